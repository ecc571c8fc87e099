"""What the cache reads of ``items.sqlite``: the writes, the wanted kind of index, and the vectors as a stream.

Letters: N items, D embedding width.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from facenet.errors import DataError
from facenet.gallery.faiss.kinds import Recipe
from facenet.vectors import UNIT_TOLERANCE, square_norms

TRUTH = "items.sqlite"
BLOCK = 8192  # rows read at once
CHUNK = 500  # values in one SQL IN (...)
ASKED = "SELECT number, coalesce(CAST(vector AS BLOB), x'') FROM items WHERE number"
WHOLE = """SELECT items.number, id, identity, path, root, metadata, fingerprint, coalesce(CAST(vector AS BLOB), x''),
  digest FROM items LEFT JOIN encoders ON encoders.number = items.encoder"""


class Database(Protocol):
    """What is used of the SQLite connection, which `index` opens and owns."""

    def execute(self, sql: str, parameters: Any = ..., /) -> Any:
        """Run one statement and return a cursor."""


class State(NamedTuple):
    """One write transaction of the truth, and what it left."""

    generation: int
    token: str  # random: a generation alone can not tell a restored backup
    last: int  # the highest item number given out until then; numbers are never used again
    items: int


def last_write(folder: Path, db: Database) -> State:
    """The newest write of the truth."""
    row = db.execute("SELECT generation, token, last, items FROM writes ORDER BY generation DESC LIMIT 1").fetchone()
    if row is None or list(map(type, row)) != [int, str, int, int]:
        raise damaged(folder, "no write on record")
    return State(*row)


def find_write(db: Database, name: tuple[int, str]) -> State | None:
    """The write of the truth with that (generation, token), or None where it is not in this history."""
    query = "SELECT generation, token, last, items FROM writes WHERE generation = ? AND token = ?"
    row = db.execute(query, name).fetchone()
    return State(*row) if row else None


def wanted(folder: Path, db: Database) -> Recipe:
    """The kind of index that the gallery was told to have."""
    row = db.execute("SELECT value FROM meta WHERE key = 'index'").fetchone()
    try:
        return Recipe(*json.loads(row[0])).checked() if row else Recipe()
    except (TypeError, ValueError, RecursionError) as error:
        raise damaged(folder, "the kind of its index") from error


def removed_since(db: Database, write: State) -> list[int]:
    """Numbers of items that were there at a write and are not any more."""
    query = "SELECT number FROM removed WHERE generation > ? AND number <= ?"
    return [row[0] for row in db.execute(query, (write.generation, write.last))]


def vector_blocks(
    folder: Path, db: Database, last: int, count: int, dim: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Numbers (n,) and vectors (n, D) of the `count` items above `last`; DataError where they are not that."""
    done = 0
    cursor = db.execute(f"{WHOLE} WHERE items.number > ? ORDER BY items.number", (last,))
    while rows := cursor.fetchmany(BLOCK):
        done += len(rows)
        if done > count:
            break
        yield _block(folder, [(whole(folder, row)[0], row[-2]) for row in rows], dim)
    if done != count:
        raise damaged(folder, f"{done} items where {count} should be")


def whole(folder: Path, row: Sequence[Any]) -> Sequence[Any]:
    """Return a row of `WHOLE`; DataError where its digest does not fit its content."""
    if row[-1] != digest(row[1:-2], row[-2]):
        raise damaged(folder, f"the content of item {row[0]}")
    return row


def digest(row: Sequence[Any], vector: bytes) -> bytes:
    """BLAKE2b of an item's text columns, its encoder's fingerprint and its vector: 16 bytes."""
    return hashlib.blake2b(json.dumps(list(row), default=repr).encode() + vector, digest_size=16).digest()


def vectors_of(folder: Path, db: Database, numbers: np.ndarray, dim: int) -> np.ndarray:
    """The stored vectors (n, D) of sorted, distinct item numbers (n,)."""
    found = []
    for start in range(0, len(numbers), CHUNK):
        chunk = numbers[start : start + CHUNK].tolist()
        found += db.execute(f"{ASKED} IN ({','.join('?' * len(chunk))}) ORDER BY number", chunk).fetchall()
    there, vectors = _block(folder, found, dim) if found else (np.empty(0, np.int64), np.empty((0, dim), np.float32))
    if not np.array_equal(there, numbers):
        raise damaged(folder, f"{len(numbers) - len(there)} items that the index knows are not there")
    return vectors


def _block(folder: Path, rows: list[tuple[int, bytes]], dim: int) -> tuple[np.ndarray, np.ndarray]:
    if any(len(vector) != 4 * dim for _, vector in rows):
        raise damaged(folder, f"a vector not of width {dim}")
    vectors = np.frombuffer(b"".join(vector for _, vector in rows), "<f4").reshape(-1, dim).astype(np.float32)
    if not (np.abs(square_norms(vectors) - 1) <= 3 * UNIT_TOLERANCE).all():
        raise damaged(folder, "a vector not of unit length")
    return np.array([number for number, _ in rows], np.int64), vectors


def damaged(folder: Path, why: str) -> DataError:
    """The error for a truth that contradicts itself."""
    return DataError(f"{folder / TRUTH}: damaged ({why}); see Gallery.check, restore a backup or index again")
