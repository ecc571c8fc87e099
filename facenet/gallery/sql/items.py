"""The table ``items``: one row a face, sealed by a digest, with its vector.

Letters: N items, n of them, D embedding width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from facenet.gallery.items import COLUMNS, Item, Labels, Person, Texts, above, choices_of, digest, item_of
from facenet.gallery.sql.database import Database, marks
from facenet.vectors import UNIT_TOLERANCE, square_norms

TABLES = """
CREATE TABLE items (number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, identity TEXT NOT NULL,
  path TEXT NOT NULL, root TEXT NOT NULL, metadata TEXT NOT NULL,
  encoder INTEGER NOT NULL REFERENCES encoders, vector BLOB NOT NULL, digest BLOB NOT NULL);
CREATE INDEX items_identity ON items (identity);
"""
BLOCK = 8192  # rows read at once
TEXTS = "id, identity, path, root, metadata"
INSERT = f"INSERT INTO items ({TEXTS}, encoder, vector, digest) VALUES (?,?,?,?,?,?,?,?)"
VECTORS = "SELECT number, coalesce(CAST(vector AS BLOB), x'') FROM items WHERE number IN"
WHOLE = """SELECT items.number, id, identity, path, root, metadata, fingerprint, coalesce(CAST(vector AS BLOB), x''),
  digest FROM items LEFT JOIN encoders ON encoders.number = items.encoder"""


class ItemTable:
    """The items of a gallery; every method is called inside a transaction."""

    def __init__(self, database: Database) -> None:
        self.database = database

    # Writing

    def add(self, rows: Iterable[tuple[Texts, np.ndarray]], encoder: int, fingerprint: str) -> None:
        """Add items with their text columns and unit vectors (D,) of one encoder, under new numbers."""
        self.database.execute_many(INSERT, _sealed_rows(rows, encoder, fingerprint))

    def remove(self, numbers: Iterable[int], generation: int) -> int:
        """Remove items in the write of that generation; returns how many."""
        gone = [(number,) for number in numbers]
        self.database.execute_many(f"INSERT INTO removed VALUES (?, {int(generation)})", gone)
        self.database.execute_many("DELETE FROM items WHERE number = ?", gone)
        return len(gone)

    def rename(self, numbers: Iterable[int], identity: str) -> None:
        """Give these items that identity, inside a write; they keep their numbers.

        Raises:
            DataError: an item whose digest does not fit its content.
        """
        rows = [self._sealed(row) for row in self.database.among(f"{WHOLE} WHERE items.number IN", list(numbers))]
        changed = [
            (identity, digest((name, identity, *texts), vector), number) for number, name, _, *texts, vector, _ in rows
        ]
        self.database.execute_many("UPDATE items SET identity = ?, digest = ? WHERE number = ?", changed)

    # Numbers of items

    def numbers(self) -> list[int]:
        """Return the numbers of all items, ascending."""
        return self.database.column("SELECT number FROM items ORDER BY number")

    def numbers_of_ids(self, ids: Sequence[str]) -> dict[str, int]:
        """Return the number of each id that is there."""
        return dict(self.database.among("SELECT id, number FROM items WHERE id IN", ids))

    def numbers_of_identity(self, identity: str) -> list[int]:
        """Return the numbers of a person's items."""
        return self.database.column("SELECT number FROM items WHERE identity = ?", identity)

    def matching(self, where: Mapping[str, Any] | None) -> np.ndarray | None:
        """Return the sorted numbers of the items that a filter admits; None without a filter.

        Raises:
            ConfigError: as :func:`condition`.
        """
        if not where:
            return None
        sql, values = condition(where)
        found = self.database.column(f"SELECT number FROM items WHERE {sql} ORDER BY number", *values)
        return np.array(found, np.int64)

    # Counts and names

    def identities(self) -> set[str]:
        """Return the names of the people, without "" (unknown)."""
        return set(self.database.column("SELECT DISTINCT identity FROM items WHERE identity <> ''"))

    def count_identities(self, most: int = -1) -> int:
        """Return how many people there are; with `most` counting ends there."""
        query = "SELECT count(*) FROM (SELECT DISTINCT identity FROM items WHERE identity > '' LIMIT ?)"
        return int(self.database.value(query, most))

    def count_unknown(self) -> int:
        """Return how many items have no identity."""
        return int(self.database.value("SELECT count(*) FROM items WHERE identity = ''"))

    def labels(self) -> Labels:
        """Return whose face each item is, by number."""
        rows = self.database.execute("SELECT number, identity, encoder FROM items ORDER BY number").fetchall()
        numbers, names, encoders = zip(*rows, strict=True) if rows else ((), (), ())
        return Labels(numbers, names, encoders)

    def count_of(self, encoders: Sequence[int]) -> tuple[int, int]:
        """Return how many items these encoders have, and of how many roots."""
        query = f"SELECT count(*), count(DISTINCT root) FROM items WHERE encoder IN ({marks(len(encoders))})"
        items, roots = self.database.execute(query, encoders).fetchone()
        return items, roots

    def count_of_encoder(self, encoder: int, among: np.ndarray) -> int:
        """Return how many of some items an encoder has."""
        query = f"SELECT count(*) FROM items WHERE encoder = {int(encoder)} AND number IN"
        return sum(int(row[0]) for row in self.database.among(query, among.tolist()))

    # Items and vectors

    def texts_of(
        self, encoders: Sequence[int], after: int, most: int, among: Sequence[int] | None
    ) -> list[tuple[int, Texts]]:
        """Return number and texts of the next `most` items of these encoders above `after`, of all or `among` some."""
        only = "" if among is None else f"AND number IN ({marks(len(among))})"
        query = f"SELECT number, {TEXTS} FROM items WHERE number > ? AND encoder IN ({marks(len(encoders))}) {only}"
        values = (after, *encoders, *(among or ()), most)
        return [(row[0], row[1:]) for row in self.database.execute(f"{query} ORDER BY number LIMIT ?", values)]

    def find(self, numbers: np.ndarray) -> dict[int, Item]:
        """Return the items of these numbers (n,) that are there.

        Raises:
            DataError: an item whose digest or content is wrong.
        """
        found = {}
        for row in self.database.among(f"{WHOLE} WHERE items.number IN", np.unique(numbers).tolist()):
            number, *texts, fingerprint = self._sealed(row)[:-2]
            try:
                found[number] = item_of(number, texts, fingerprint)
            except (TypeError, ValueError, RecursionError) as error:
                raise self.database.damaged(f"texts, metadata or encoder of item {number}") from error
        return found

    def next_numbers(self, after: int, limit: int, identity: str | None) -> list[int]:
        """Return the next `limit` numbers above `after`, of all items or of one identity."""
        only, values = ("", ()) if identity is None else ("AND identity = ?", (identity,))
        query = f"SELECT number FROM items WHERE number > ? {only} ORDER BY number LIMIT ?"
        return self.database.column(query, after, *values, limit)

    def people(self, after: str, limit: int, prefix: str) -> list[Person]:
        """Return the next `limit` people whose names are above `after` and begin with `prefix`, by name."""
        lower = (">=", prefix) if prefix > after else (">", after)
        upper = [("<", end)] if (end := above(prefix)) else []
        sql = " AND ".join(f"identity {sign} ?" for sign, _ in (lower, *upper))
        query = f"SELECT identity, count(*), min(number) FROM items WHERE {sql} GROUP BY identity ORDER BY 1 LIMIT ?"
        rows = self.database.execute(query, (*(text for _, text in (lower, *upper)), limit)).fetchall()
        first = self.found(np.array([number for *_, number in rows], np.int64))
        return [Person(name, count, first[number].id, number) for name, count, number in rows]

    def found(self, rows: np.ndarray) -> dict[int, Item]:
        """Return the items that a search found; rows of -1 are absent places.

        Raises:
            DataError: an index names items that are not there, although its seal was right.
        """
        numbers = np.unique(rows[rows >= 0])
        items = self.find(numbers)
        if len(items) < len(numbers):
            raise self.database.damaged(f"{len(numbers) - len(items)} items that the index knows are not there")
        return items

    def vectors(self, numbers: np.ndarray, dim: int) -> np.ndarray:
        """Return the stored vectors (n, D) of item numbers (n,), in that order.

        Raises:
            DataError: an item is not there, or a vector is not of that width or not of unit length.
        """
        distinct, places = np.unique(numbers, return_inverse=True)
        rows = list(self.database.among(VECTORS, distinct.tolist(), "ORDER BY number"))
        there, vectors = self._decoded(rows, dim) if rows else (np.empty(0, np.int64), np.empty((0, dim), np.float32))
        if not np.array_equal(there, distinct):
            raise self.database.damaged(f"{len(distinct) - len(there)} items that the index knows are not there")
        return vectors[places]

    def vector_blocks(self, after: int, count: int, dim: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield numbers (n,) and vectors (n, D) of the `count` items above the number `after`, in order.

        Raises:
            DataError: there are more or fewer, or one of them is damaged.
        """
        done = 0
        cursor = self.database.execute(f"{WHOLE} WHERE items.number > ? ORDER BY items.number", (after,))
        while rows := cursor.fetchmany(BLOCK):
            done += len(rows)
            if done > count:
                break
            yield self._decoded([(self._sealed(row)[0], row[-2]) for row in rows], dim)
        if done != count:
            raise self.database.damaged(f"{done} items where {count} should be")

    def unsealed_blocks(self, dim: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield numbers (n,) and vectors (n, D) of all items in order; seven times as fast, as no digest is checked."""
        cursor = self.database.execute("SELECT number, coalesce(CAST(vector AS BLOB), x'') FROM items ORDER BY number")
        while rows := cursor.fetchmany(BLOCK):
            yield self._decoded(rows, dim)

    def blocks(self, dim: int) -> Iterator[tuple[list[Item], np.ndarray]]:
        """Yield all items with their vectors (n, D), by number."""
        numbers = self.numbers()
        for start in range(0, len(numbers), BLOCK):
            block = np.array(numbers[start : start + BLOCK], np.int64)
            items = self.found(block)
            yield [items[number] for number in block.tolist()], self.vectors(block, dim)

    def problems(self, dim: int | None) -> tuple[int, list[str]]:
        """Read every item; returns how many there are, and what is wrong, one line each."""
        lines, count = [], 0
        for _, *row, vector, stored in self.database.execute(WHOLE):
            count += 1
            if stored != digest(row, vector):
                lines.append(f"{row[0]}: its digest does not fit its content; add it again (on_duplicate=replace)")
            elif len(vector) != 4 * (dim or 0):
                lines.append(f"{row[0]}: {len(vector)} bytes, not a vector of width {dim}")
        return count, lines

    def _sealed(self, row: Sequence[Any]) -> Sequence[Any]:
        """Return a row of `WHOLE`; DataError if its digest does not fit its content."""
        if row[-1] != digest(row[1:-2], row[-2]):
            raise self.database.damaged(f"the content of item {row[0]}")
        return row

    def _decoded(self, rows: Sequence[tuple[Any, ...]], dim: int) -> tuple[np.ndarray, np.ndarray]:
        """Turn (number, bytes) of n items into numbers (n,) and vectors (n, D)."""
        if any(len(vector) != 4 * dim for _, vector in rows):
            raise self.database.damaged(f"a vector not of width {dim}")
        vectors = np.frombuffer(b"".join(vector for _, vector in rows), "<f4").reshape(-1, dim).astype(np.float32)
        if not (np.abs(square_norms(vectors) - 1) <= 3 * UNIT_TOLERANCE).all():
            raise self.database.damaged("a vector not of unit length")
        return np.array([number for number, _ in rows], np.int64), vectors


def _sealed_rows(rows: Iterable[tuple[Texts, np.ndarray]], encoder: int, fingerprint: str) -> Iterator[tuple[Any, ...]]:
    for texts, vector in rows:
        content = vector.astype("<f4", copy=False).tobytes()
        yield (*texts, encoder, content, digest((*texts, fingerprint), content))


def condition(where: Mapping[str, Any]) -> tuple[str, list[Any]]:
    """Return SQL and values for "every key equals one of its values"; see `Engine.admitted`.

    Raises:
        ConfigError: as :func:`facenet.gallery.items.choices_of`.
    """
    parts, values = [], []
    for key, choices in choices_of(where).items():
        column = key if key in COLUMNS else "(SELECT value FROM json_each(metadata) WHERE key = ?)"
        path = [] if key in COLUMNS else [key]
        parts.append(" OR ".join(f"{column} IS ?" for _ in choices))
        values += [item for choice in choices for item in (*path, choice)]
    return " AND ".join(f"({part})" for part in parts) or "1", values
