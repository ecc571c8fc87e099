"""Files written atomically and read back checked: bytes, JSON, sealed JSON, arrays, checksums, paths.

A reader sees the old file or the new one, never half of one. The standard library has no such writer. Packages that
have one leave no lock by which the files of killed writers are found. No function unpickles. No header of a file
makes a function reserve more memory than the file itself takes.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import hashlib
import io
import json
import math
import os
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from facenet.errors import DataError, one_line

DIGEST = "digest"  # field of a sealed JSON file: the SHA-256 over all other fields
MOST_JSON = 1 << 28  # bytes; a JSON file with the hashes of a million people has a tenth of this

if sys.platform != "win32":
    import fcntl

REFUSED = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
UMASK = os.umask(0)  # read once: it can only be read by changing it, for all threads
os.umask(UMASK)
TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}\.tmp")  # what mkstemp makes of ".{name}." and ".tmp"


@contextlib.contextmanager
def atomic_write(path: str | Path) -> Iterator[IO[bytes]]:
    """Open a temporary file beside `path`; on success fsync it and move it over `path`.

    The temporary file lies in the folder of `path`, so the move never crosses a file system. Its writer holds a lock on
    it, by which :func:`remove_abandoned` tells the files of living writers from those of killed ones. After any error
    the old file is as it was and the temporary file is gone.

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
            os.chmod(file.name, 0o666 & ~UMASK)  # noqa: PTH101 - mkstemp makes private files
            if sys.platform == "win32":
                file.close()  # Windows moves no open file
            Path(file.name).replace(path)
        _sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            Path(file.name).unlink()
        if isinstance(error, OSError):
            raise DataError(f"{path}: writing failed ({error.strerror}); the old file, if any, is unchanged") from error
        raise


def remove_abandoned(*folders: str | Path) -> list[Path]:
    """Remove temporary files of :func:`atomic_write` whose writers were killed; return the files that were removed.

    A file whose writer lives, in this or another process, is locked and stays. A file that can not be removed (missing
    rights) stays too. A folder that does not exist counts as empty.
    """
    return [path for folder in folders for path in sorted(Path(folder).glob(".*.tmp")) if _abandoned(path)]


def _temporary(path: Path) -> IO[bytes]:
    """Open a new file beside `path`, locked."""
    while True:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        file = open(name, "wb", opener=lambda *_, handle=handle: handle)  # noqa: SIM115
        if sys.platform == "win32":
            return file
        with contextlib.suppress(OSError):  # some file systems have no locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return file
        file.close()  # removed between its creation and the lock


def _abandoned(path: Path) -> bool:
    """Remove a temporary file if no writer holds its lock; return whether it was removed."""
    if sys.platform == "win32" or not TEMPORARY.fullmatch(path.name) or path.is_symlink():
        return False
    try:
        with path.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
    except OSError:  # a writer holds its lock, or we lack the right
        return False
    return True


@contextlib.contextmanager
def explain_disk_errors(folder: str | Path) -> Iterator[None]:
    """Raise DataError that says what to do if the disk is full, or refuses a write or a read, within the block."""
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
    """Read a JSON object.

    Raises:
        DataError: missing, larger than 2^28 bytes, not JSON, or JSON of another type.
    """
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
    """Read an ordinary file of at most `most` bytes; a pipe or device may never end and is refused.

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


def write_sealed(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object as :func:`write_json` does, with the SHA-256 of its fields in the field ``digest``."""
    write_json(path, {**content, DIGEST: digest_of(content)})


def read_sealed(path: str | Path) -> dict[str, Any]:
    """Read what :func:`write_sealed` wrote, without the digest; raises DataError if any field has changed."""
    content = read_json(path)
    try:
        whole = content.pop(DIGEST, None) == digest_of(content)
    except (ValueError, RecursionError):  # NaN, infinity
        whole = False
    if not whole:
        raise DataError(f"{path}: its SHA-256 is missing or not that of its content (damaged?); write or copy it again")
    return content


def digest_of(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a mapping as JSON with sorted keys, in hex digits; NaN raises ValueError."""
    plain = json.loads(json.dumps(content, allow_nan=False))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def csv_text(rows: Iterable[Iterable[Any]]) -> str:
    """Return rows as lines of CSV that end in a line feed; None is an empty cell.

    >>> csv_text([("path", "identity"), ("a,b.jpg", None)])
    'path,identity\\n"a,b.jpg",\\n'
    """
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def write_csv(
    path: str | Path, columns: Sequence[str], rows: Iterable[Iterable[Any]], *, errors: str = "strict"
) -> None:
    """Write a header and rows as UTF-8 CSV, atomically; `errors` is what ``str.encode`` does with half characters."""
    with atomic_write(path) as file:
        text = io.TextIOWrapper(file, "utf-8", errors, newline="")
        try:
            csv.writer(text, lineterminator="\n").writerow(columns)
            csv.writer(text, lineterminator="\n").writerows(rows)
        finally:
            text.detach()


def read_csv(path: str | Path, needed: Sequence[str] = (), *, remedy: str, whole: bool = False) -> list[dict[str, str]]:
    """Read the lines below the header of a UTF-8 CSV file, by name of the column; empty lines are left out.

    A line with fewer cells than the header gets empty ones at its end; cells beyond the header are left out. With
    `whole`, both are errors. Each message ends with `remedy`, which says what to do next.

    Raises:
        DataError: missing, not CSV, without one of the columns `needed`, or a line that is not whole.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise OSError("not a file")
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            names = next(reader, [])
            rows = [row for row in reader if row]
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; {remedy}") from None
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path}: not readable as CSV ({one_line(error)}); {remedy}") from error
    missing = [name for name in needed if name not in names]
    if missing:
        expected = f"expected the columns {', '.join(needed)}"
        raise DataError(f"{path}: {expected}; missing: {', '.join(missing)}; {remedy}")
    if whole and "" in names:
        raise DataError(f"{path}: column {names.index('') + 1} has no name; {remedy}")
    for number, row in enumerate(rows, 1):
        if len(row) != len(names):
            if whole:
                raise DataError(f"{path}: row {number} has {len(row)} cells for {len(names)} columns; {remedy}")
            row.extend([""] * (len(names) - len(row)))
    return [dict(zip(names, row, strict=False)) for row in rows]


def read_array(path: str | Path, *, mode: Literal["r", "c"] | None = None) -> np.ndarray:
    """Read a ``.npy`` file of plain numbers, mapped into memory if `mode` (of ``numpy.memmap``) is given.

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
    except Exception as error:  # numpy raises many kinds of errors on damaged headers
        raise DataError(f"{path}: not readable as a NumPy array ({one_line(error)}); write it again") from error


def default_cache() -> Path:
    """Return ``~/.cache/facenet``, or the place that ``XDG_CACHE_HOME`` names."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "facenet"


def write_cached_array(path: Path, array: np.ndarray) -> None:
    """Write an array, and its SHA-256 in a JSON file beside it; abandoned temporary files of the folder are removed."""
    remove_abandoned(path.parent)
    with atomic_write(path) as file:
        np.save(file, array, allow_pickle=False)
    write_json(path.with_suffix(".json"), {"sha256": sha256_file(path)})


def read_cached_array(
    path: Path, shape: tuple[int, ...] | None, kind: type, *, mode: Literal["r", "c"] = "r"
) -> np.ndarray | None:
    """Map an array of :func:`write_cached_array`; None if it is missing, damaged, or of another shape or type.

    A `shape` of None is any.
    """
    try:
        if not path.is_file() or read_json(path.with_suffix(".json")).get("sha256") != sha256_file(path):
            return None
        array = read_array(path, mode=mode)
    except (OSError, DataError):
        return None
    return array if shape in (None, array.shape) and array.dtype == kind else None


def is_inside(path: str) -> bool:
    """Return whether a relative POSIX path, judged by its text alone, stays inside its folder.

    >>> [is_inside(path) for path in ("a/b.jpg", "a..b", "", "/a", "a/../../b", "a\\0", ".")]
    [True, True, False, False, False, False, False]
    """
    parts = path.split("/")
    named = any(part not in ("", ".") for part in parts)
    return named and parts[0] != "" and ".." not in parts and "\0" not in path


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
