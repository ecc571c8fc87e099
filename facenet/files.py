"""Atomic writes and checksums: a reader sees the old file or the new one, never half of one."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from facenet.errors import DataError, one_line

MOST_JSON = 1 << 28  # bytes of a JSON file; the hashes of a million people are a tenth of it

if sys.platform != "win32":
    import fcntl

REFUSED = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}\.tmp")  # what mkstemp makes of ".{name}." and ".tmp"


@contextlib.contextmanager
def atomic_write(path: str | Path) -> Iterator[IO[bytes]]:
    """Open a temporary file beside `path`; on success fsync it and move it over `path`.

    The temporary file lies in the target's own folder, so the move never crosses a file system. It is locked while
    its writer lives, so that :func:`sweep` knows those of killed ones. On any error the old file is left as it was and
    the temporary one is removed.

    Raises:
        DataError: the folder can not be written (missing rights, full disk).
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _temporary(path)
    except OSError as error:
        raise DataError(f"{path}: can not be written ({error.strerror}); choose a folder you may write to") from error
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.chmod(file.name, 0o666 & ~_umask())  # noqa: PTH101 - mkstemp makes files private; ours are ordinary
            if sys.platform == "win32":
                file.close()  # it moves no open file
            Path(file.name).replace(path)
        _sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            Path(file.name).unlink()
        if isinstance(error, OSError):
            raise DataError(f"{path}: writing failed ({error.strerror}); the old file, if any, is unchanged") from error
        raise


def sweep(*folders: str | Path) -> list[Path]:
    """Remove what killed writers left of :func:`atomic_write` in these folders; return the files that were removed.

    A file whose writer lives, in this or another process, stays: it is locked. Folders that are not there hold nothing,
    and what can not be removed (missing rights) stays.
    """
    return [path for folder in folders for path in sorted(Path(folder).glob(".*.tmp")) if _abandoned(path)]


def _temporary(path: Path) -> IO[bytes]:
    """Open a new file beside `path`, locked."""
    while True:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        file = open(name, "wb", opener=lambda *_, handle=handle: handle)  # noqa: SIM115
        if sys.platform == "win32":
            return file
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return file
        file.close()  # swept between its creation and the lock


def _abandoned(path: Path) -> bool:
    """Remove a temporary file if nobody holds it; whether that was done."""
    if sys.platform == "win32" or not TEMPORARY.fullmatch(path.name) or path.is_symlink():
        return False
    try:
        with path.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
    except OSError:  # somebody writes it, or it is not ours to remove
        return False
    return True


@contextlib.contextmanager
def clear_errors(folder: str | Path) -> Iterator[None]:
    """Turn what the disk or its rights refuse, wherever in the block, into one DataError that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in REFUSED:
            raise
        name = error.filename or folder
        raise DataError(
            f"{name}: {error.strerror}; free some space or choose a folder you may write to, then run the same"
            " command again"
        ) from error


def write_json(path: str | Path, content: Any) -> None:
    """Write `content` as indented JSON, atomically; NaN and infinity are refused with ValueError."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    with atomic_write(path) as file:
        file.write(text.encode() + b"\n")


def read_json(path: str | Path) -> dict[str, Any]:
    """Read a JSON object; a missing, broken or foreign file raises :class:`DataError`."""
    path = Path(path)
    data = read_bytes(path, most=MOST_JSON)
    try:
        content = json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not readable as JSON ({one_line(error)}); write it again") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected a JSON object, got {type(content).__name__}; write it again")
    return content


def read_bytes(path: str | Path, *, most: int | None = None) -> bytes:
    """Read an ordinary file of at most `most` bytes; a pipe or device, which may never end, is none.

    Raises:
        DataError: missing, too large, not a file, or not readable.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise DataError(f"{path}: not a file; give the file itself")
        if most is not None and path.stat().st_size > most:
            raise DataError(f"{path}: {path.stat().st_size:,} bytes, more than the {most:,} that such a file may have")
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: can not be read ({one_line(error)})") from error


def sha256_file(path: str | Path) -> str:
    """Return the SHA-256 of an ordinary file's bytes as 64 hex digits; raises OSError."""
    if Path(path).exists() and not Path(path).is_file():
        raise OSError(errno.EINVAL, "not a file", str(path))
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _digest(file)


def _digest(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
