"""Rights on files, as a user without root's power has them."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Callable, Iterator
from pathlib import Path


@contextlib.contextmanager
def without_root_power() -> Iterator[None]:
    """Lay down root's power to read and write every file (Linux), so that rights on files count.

    This holds for the calling thread, and for the threads and processes that it starts meanwhile.
    """
    if os.geteuid() != 0:
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    before = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; twice
    libc.capget(header, before)
    less = (ctypes.c_uint32 * 6)(*before)
    less[0] &= ~0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    libc.capset(header, less)
    try:
        yield
    finally:
        libc.capset(header, before)


def close_folder(folder: Path) -> Callable[[], None]:
    """Make a folder read-only, and act as another user if this process is root; return the function that undoes it."""
    root = os.geteuid() == 0
    folder.chmod(0o555)
    if root:
        os.seteuid(65534)

    def reopen() -> None:
        if root:
            os.seteuid(0)
        folder.chmod(0o755)

    return reopen
