"""Reading back what may be damaged or made by somebody else: sealed JSON, arrays, paths.

Nothing is unpickled, and no header makes us reserve more memory than the file itself takes.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from facenet.errors import DataError, one_line
from facenet.files import atomic_write, read_json, sha256_file, sweep, write_json

DIGEST = "digest"  # of a sealed JSON file: the SHA-256 over all its other fields


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
    """Write an array with its SHA-256 beside it, for :func:`kept_array`; what killed writers left there goes."""
    sweep(path.parent)
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
