"""``index.faiss`` and ``index.json``: a FAISS index on disk, its SHA-256 by blocks, and what is known of it.

The file is mapped into memory, checked against its hashes, and used in place. So processes share its pages, and opening
allocates next to nothing. FAISS ends the process if a mapped index is written to: nothing is ever added to one, see
`facenet.gallery.faiss.layers`.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from facenet.errors import DataError
from facenet.files import atomic_write, read_sealed, write_sealed
from facenet.gallery.faiss.kinds import Built, use_parameter

SCHEMA = 3
INDEX, HEADER = "index.faiss", "index.json"
MOST_FETCHED = 1024  # candidates for an answer that a header may ask for; tuning tries fewer
HASHED = 1 << 24  # bytes of a block
STALE_TEMPORARY = 3600.0  # seconds after which a temporary file can only be a dead writer's
FIELDS: dict[str, type] = {
    "generation": int,
    "token": str,
    "count": int,
    "bytes": int,
    "sha256": list,
    "holes": list,
    "recipe": list,
    "trained_on": int,
    "factory": str,
    "parameter": str,
    "fetch": int,
    "error": float,
    "recall": dict,
    "changed": int,
    "beside": list,
    "instead_of": str,
}


class Stored(NamedTuple):
    """An index as it lies on disk: which write of the truth it holds, and which removed items are still in it."""

    built: Built
    generation: int
    token: str
    recipe: list[Any]  # kind, factory, recall_target that were asked for
    holes: list[int]  # item numbers in the index that are no longer items


def write_index(folder: Path, stored: Stored) -> None:
    """Write ``index.faiss``, then ``index.json``; a crash between the two makes both unusable.

    Raises:
        DataError: the folder can not be written, or the disk is full; the old files are then as they were.
    """
    for path in folder.glob(f".{INDEX}.*.tmp"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > STALE_TEMPORARY:
                path.unlink()
    with atomic_write(folder / INDEX) as file:
        size, sha256 = write_hashed(stored.built.faiss, file)
    header = {
        "schema": SCHEMA,
        "generation": stored.generation,
        "token": stored.token,
        "count": int(stored.built.faiss.ntotal),
        "bytes": size,
        "sha256": sha256,
        "holes": stored.holes,
        "recipe": stored.recipe,
        **stored.built.facts(),
    }
    write_sealed(folder / HEADER, header)


def write_hashed(index: Any, file: IO[bytes]) -> tuple[int, list[str]]:
    """Write an index piece by piece and hash its blocks on the way; returns size and hashes."""
    import faiss

    failure: list[OSError] = []
    blocks, size = [hashlib.sha256()], 0

    def write(piece: bytes) -> int:
        nonlocal size
        try:
            if not failure:
                file.write(piece)
        except OSError as error:  # an exception would not pass through FAISS
            failure.append(error)
        view = memoryview(piece)
        while len(view):
            if size and size % HASHED == 0:
                blocks.append(hashlib.sha256())
            part = view[: HASHED - size % HASHED]
            blocks[-1].update(part)
            size, view = size + len(part), view[len(part) :]
        return len(piece)

    faiss.write_index(index, faiss.PyCallbackIOWriter(write, 1 << 20))
    if failure:
        raise failure[0]
    return size, [block.hexdigest() for block in blocks]


def read_header(folder: Path) -> dict[str, Any]:
    """Return the content of ``index.json``, or an empty dict if it is missing, broken or of another schema."""
    try:
        header = read_sealed(folder / HEADER)
    except DataError:
        return {}
    fits = all(type(header.get(name)) is kind for name, kind in FIELDS.items())
    numbers = [value for value in header.values() if type(value) is int]
    numbers += header["holes"] + header["beside"] if fits else []
    fits = fits and all(type(number) is int and 0 <= number < 1 << 62 for number in numbers)
    fits = fits and 1 <= header["fetch"] <= MOST_FETCHED and header["error"] >= 0
    return header if fits and header.get("schema") == SCHEMA else {}


def read_index(folder: Path) -> tuple[Stored | None, str]:
    """Map the index; returns it, or None and the reason ("" if there is none: a lost index is no problem)."""
    if not (folder / INDEX).exists():
        return None, ""
    header = read_header(folder)
    if not header and _older(folder):
        return None, ""
    if not header:
        return None, f"{HEADER} is missing, broken or of another version"
    try:
        content = np.memmap(folder / INDEX, np.uint8, "r")
    except (OSError, ValueError) as error:  # an empty file can not be mapped
        return None, f"{INDEX} can not be read ({getattr(error, 'strerror', None) or 'empty'})"
    if content.size != header["bytes"] or list(_hashes(content)) != header["sha256"]:
        return None, f"{INDEX} has another SHA-256 than {HEADER} says"
    try:
        index = mapped(content)
        use_parameter(index, header["parameter"])
    except Exception:  # FAISS may run out of memory, or refuse the parameter
        return None, f"{INDEX} can not be read by this FAISS"
    if index.ntotal != header["count"]:
        return None, f"{INDEX} holds {index.ntotal} vectors, {HEADER} says {header['count']}"
    names = [item.name for item in fields(Built) if item.name in FIELDS]
    built = Built(index, **{name: header[name] for name in names}, mapped=content)
    return Stored(built, header["generation"], header["token"], header["recipe"], header["holes"]), ""


def _older(folder: Path) -> bool:
    """Tell whether ``index.json`` is of an earlier version, whose stated recall was too high: it counts as lost."""
    try:
        return read_sealed(folder / HEADER).get("schema") in range(SCHEMA)
    except DataError:
        return False


def _hashes(content: np.ndarray) -> Iterator[str]:
    blocks = [content[start : start + HASHED] for start in range(0, content.size, HASHED)]
    with ThreadPoolExecutor() as pool:
        yield from pool.map(lambda block: hashlib.sha256(block).hexdigest(), blocks)


def mapped(content: np.ndarray) -> Any:
    """Return the FAISS index that lies in `content`, which must outlive it."""
    import faiss

    reader = faiss.ZeroCopyIOReader(faiss.swig_ptr(content), content.size)
    return faiss.read_index(reader, faiss.IO_FLAG_MMAP_IFC)


def writable(built: Built) -> Any:
    """Return the FAISS index of `built` to be added to: the index itself, or a copy if it is mapped."""
    return built.faiss if built.mapped is None else copied(built.mapped)


def copied(bytes_: np.ndarray) -> Any:
    """Return a copy in memory of the FAISS index that lies in `bytes_`."""
    import faiss

    content, start = memoryview(bytes_.data), 0

    def read(size: int) -> bytes:
        nonlocal start
        piece = bytes(content[start : start + size])
        start += len(piece)
        return piece

    return faiss.read_index(faiss.PyCallbackIOReader(read, 1 << 20))
