"""Atomic writes, checksums and distrustful reading: a reader sees the old file or the new one, never half of one.

What is read back may be damaged or made by somebody else: nothing is unpickled, and no header or number makes us
reserve more memory than the file itself takes.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from facenet.errors import DataError, one_line

MOST_JSON = 1 << 28  # bytes of a JSON file; the hashes of a million people are a tenth of it
DIGEST = "digest"  # of a sealed JSON file: the SHA-256 over all its other fields


@contextlib.contextmanager
def atomic_write(path: str | Path) -> Iterator[IO[bytes]]:
    """Open a temporary file beside `path`; on success fsync it and move it over `path`.

    The temporary file lies in the target's own folder, so the move never crosses a file system.
    On any error the old file is left as it was and the temporary one is removed.

    Raises:
        DataError: the folder can not be written (missing rights, full disk).
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    except OSError as error:
        raise DataError(f"{path}: can not be written ({error.strerror}); choose a folder you may write to") from error
    try:
        os.close(handle)
        with Path(name).open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())  # noqa: PTH101 - mkstemp makes files private; ours are ordinary
        Path(name).replace(path)
        _sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        if isinstance(error, OSError):
            raise DataError(f"{path}: writing failed ({error.strerror}); the old file, if any, is unchanged") from error
        raise


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


def write_sealed(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object with its own SHA-256 in the field ``digest``; as :func:`write_json`."""
    write_json(path, {**content, DIGEST: digest_of(content)})


def read_sealed(path: str | Path) -> dict[str, Any]:
    """Read what :func:`write_sealed` wrote, without its digest; any changed field raises :class:`DataError`."""
    content = read_json(path)
    try:
        whole = content.pop(DIGEST, None) == digest_of(content)
    except (ValueError, RecursionError):  # NaN, infinity
        whole = False
    if not whole:
        raise DataError(f"{path}: its SHA-256 is missing or not that of its content (damaged?); write or copy it again")
    return content


def digest_of(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of what JSON keeps of a mapping, whatever the order of its keys; NaN raises ValueError."""
    plain = json.loads(json.dumps(content, allow_nan=False))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


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


def read_array(path: str | Path, *, mode: Literal["r", "c"] | None = None) -> np.ndarray:
    """Read a ``.npy`` file of plain numbers, mapped into memory where `mode` (of ``numpy.memmap``) is given.

    Raises:
        DataError: missing, damaged, not numbers, or of another size than its header says.
    """
    path = Path(path)
    try:
        if not path.is_file():
            raise DataError(f"{path}: no such file")
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
            shape, _, kind = read(file)
            size = math.prod(shape) * kind.itemsize
            if kind.kind not in "biuf" or min(shape, default=0) < 0 or file.tell() + size != path.stat().st_size:
                raise ValueError(f"its header says {kind} {shape}, which it does not hold")
        return np.load(path, mmap_mode=mode if size else None, allow_pickle=False)
    except DataError:
        raise
    except Exception as error:  # numpy raises many kinds on headers that are none
        raise DataError(f"{path}: not readable as a NumPy array ({one_line(error)}); write it again") from error


def keep_array(path: Path, array: np.ndarray) -> None:
    """Write an array with its SHA-256 beside it, for :func:`kept_array`."""
    with atomic_write(path) as file:
        np.save(file, array, allow_pickle=False)
    write_json(path.with_suffix(".json"), {"sha256": sha256_file(path)})


def kept_array(path: Path, shape: tuple[int, ...], kind: type, *, mode: Literal["r", "c"] = "r") -> np.ndarray | None:
    """Map an array that :func:`keep_array` wrote, or return None if it has to be made again."""
    try:
        if not path.is_file() or read_json(path.with_suffix(".json")).get("sha256") != sha256_file(path):
            return None
        array = read_array(path, mode=mode)
    except (OSError, DataError):
        return None
    return array if array.shape == shape and array.dtype == kind else None


def is_inside(path: str) -> bool:
    """Whether a POSIX path that a file names stays in the folder it is relative to, by its text alone.

    >>> [is_inside(path) for path in ("a/b.jpg", "a..b", "", "/a", "a/../../b", "a\\0", ".")]
    [True, True, False, False, False, False, False]
    """
    parts = path.split("/")
    named = any(part not in ("", ".") for part in parts)
    return named and parts[0] != "" and ".." not in parts and "\0" not in path


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
