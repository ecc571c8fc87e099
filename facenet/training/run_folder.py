"""A run folder, which one process trains in at a time."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from facenet.errors import DataError

if sys.platform != "win32":
    import fcntl

PATIENCE = 10.0  # seconds: workers of a killed process live on for some


@contextlib.contextmanager
def hold_folder(folder: str | Path) -> Iterator[None]:
    """Make a folder, and hold it for this process alone within the block; another process waits for it, and is refused.

    A lock on the folder itself is held, which leaves no file behind and ends with the process. Where a file system has
    no locks, nothing is held.

    Raises:
        DataError: after :data:`PATIENCE` seconds the folder is still held by another process.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    if sys.platform == "win32":
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        give_up = time.monotonic() + PATIENCE
        while not _locked(handle):
            if time.monotonic() > give_up:
                raise DataError(f"{folder}: another process works in it; wait for its end, or give another folder")
            time.sleep(0.1)
        yield
    finally:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_UN)  # children that were forked would hold it on
        os.close(handle)


def _locked(handle: int) -> bool:
    """Lock an open file or folder; return False if another process holds the lock."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True
