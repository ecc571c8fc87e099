"""Files with the same bytes: one person's are kept once, those under two names are label noise and are left out.

Nothing is opened but files of equal size; of these 64 bytes are read from their middle, and only what agrees in them
too is hashed as a whole. A healthy folder is hardly read.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from pathlib import Path

import numpy as np

from facenet.data.pictures import read_picture
from facenet.data.records import Records
from facenet.errors import DataError
from facenet.files import sha256_file

SAMPLE = 64  # bytes


def without_duplicates(records: Records) -> Records:
    """Leave out what is there twice; it joins `skipped`, with the path of the other file.

    Of the same file under one identity the first path is kept. Under two identities none is: one of the two names
    is wrong, and nobody can tell which. Left alone are images without identity, pixels in memory, and files that are no
    image anyway: pages that say "not found" are not one person.
    """
    bad: list[tuple[int, str]] = []
    for rows in same_files(records):
        if not _is_image(Path(records.root) / records.paths[rows[0]]):
            continue
        bad += left_out(rows, records.labels, records.paths)
    return records.without(sorted(bad)) if bad else records


def left_out(rows: Sequence[int], labels: np.ndarray, paths: Sequence[str]) -> list[tuple[int, str]]:
    """Return (row, reason) of what is not used of two or more rows, in order, that hold the same bytes."""
    whose = labels[rows]
    if (whose == whose[0]).all():
        return [(row, f"the same file twice: {paths[rows[0]]} is used") for row in rows[1:]]
    others = [rows[int(np.argmax(whose != label))] for label in whose]
    return [
        (row, f"the same file under another identity: {paths[other]}") for row, other in zip(rows, others, strict=True)
    ]


def same_files(records: Records) -> list[list[int]]:
    """Return groups of two or more rows, in order, whose files hold the same bytes; what can not be read is alone."""
    if records.images is not None:
        return []
    groups = [[row for row, name in enumerate(records.identities) if name]]
    for mark in (_size, _middle, sha256_file):
        groups = [part for group in groups for part in _alike(records, group, mark)]
    return groups


def _alike(records: Records, rows: Sequence[int], mark: Callable[[Path], Hashable]) -> Iterator[list[int]]:
    """Split rows by the mark of their files and keep parts of two or more."""
    parts: dict[Hashable, list[int]] = {}
    root = Path(records.root)
    for row in rows:
        try:
            parts.setdefault(mark(root / records.paths[row]), []).append(row)
        except OSError:  # it is listed when it is decoded
            continue
    return (part for part in parts.values() if len(part) > 1)


def _size(path: Path) -> int:
    return path.stat().st_size


def _middle(path: Path) -> bytes:
    with path.open("rb", buffering=0) as file:
        file.seek(max(0, path.stat().st_size // 2 - SAMPLE // 2))
        return file.read(SAMPLE)


def _is_image(path: Path) -> bool:
    try:
        read_picture(path)
    except DataError:
        return False
    return True
