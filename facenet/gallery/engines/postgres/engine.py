"""The engine of a gallery in PostgreSQL. Many processes read and write; each call is one transaction.

Writes lock rows in the order of their ids and count them last, so that two of them never wait for each other. Searches
read one state (``REPEATABLE READ``). Item numbers are those of a sequence, and are never reused.

Letters: N items, n of them, Q queries, k neighbours, D embedding width.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from facenet.errors import DataError
from facenet.gallery.engines.database import Database
from facenet.gallery.engines.postgres.connection import Connection
from facenet.gallery.engines.postgres.index import KINDS, Index
from facenet.gallery.engines.postgres.rows import BLOCK, decoded, little_endian
from facenet.gallery.engines.postgres.schema import PUT, add_vectors, prepare
from facenet.gallery.engines.postgres.writes import Writes
from facenet.gallery.engines.tags import tag_of
from facenet.gallery.engines.tuning import checked
from facenet.gallery.items import (
    COLUMNS,
    AddResult,
    Block,
    Item,
    Labels,
    Person,
    Recipe,
    State,
    Texts,
    Where,
    above,
    choices_of,
)
from facenet.types import Neighbours

Condition = tuple[str, list[Any]]  # SQL and its values


class Postgres(Database):
    """One gallery in a schema of a database; `admitted` items are a condition in SQL, with its values."""

    def __init__(self, address: str, timeout: float, *, create: bool) -> None:
        """Connect; see :meth:`facenet.gallery.gallery.Gallery.open`."""
        self.connection = Connection(address, timeout)
        super().__init__(self.connection.address.shown)
        self.index = Index(self)
        self.writes = Writes(self.connection, self.index)
        self._answers: dict[str, str] = {}  # to be stored when the present reading ends
        try:
            with self.connection.one_line_errors():
                prepare(self.connection, create=create)
        except BaseException:
            self.connection.close()
            raise

    # Sessions

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        if self.connection.in_transaction:
            yield
            return
        with self._transaction("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"):
            yield
        if self._answers:
            answers, self._answers = self._answers, {}
            with contextlib.suppress(DataError), self._transaction("BEGIN"):  # a role that may only read
                for key, value in answers.items():
                    self.put_setting(key, value)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        with self._transaction("BEGIN"), self.writes.counted():
            yield

    @contextlib.contextmanager
    def _transaction(self, begin: str) -> Iterator[None]:
        with self.connection.one_line_errors():
            self.connection.begin(begin)
            try:
                yield
                self.connection.execute("COMMIT")
            finally:
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")

    def close(self, *, write_index: bool) -> None:
        self.connection.close()

    def state(self) -> State:
        query = "SELECT token, (SELECT coalesce(sum(items), 0)::bigint FROM encoders), generation FROM state"
        return State(*self.connection.row(query))

    # Encoders and settings

    def encoders(self) -> dict[str, int]:
        return dict(self.connection.execute("SELECT fingerprint, number FROM encoders ORDER BY number").fetchall())

    def counts(self, admitted: Any = None) -> dict[int, int]:
        if admitted is None:
            return dict(self.connection.execute("SELECT number, items FROM encoders").fetchall())
        condition, values = admitted
        query = f"SELECT encoder, count(*) FROM items WHERE {condition} GROUP BY encoder"
        return dict(self.connection.execute(query, values).fetchall())

    def admit(self, fingerprint: str | None, compatible_with: Sequence[str], dim: int | None) -> int:
        known = self.encoders()
        if fingerprint in known and (dim is None or dim == self.dim()):
            return known[fingerprint]
        self.hold("encoders")
        self.check(fingerprint, compatible_with, dim)
        if dim and not self.dim():
            self.put_setting("dim", str(dim))
        known, width = self.encoders(), self.dim()
        if fingerprint and fingerprint not in known:
            insert = "INSERT INTO encoders (fingerprint) VALUES (%s) RETURNING number"
            known[fingerprint] = self.connection.value(insert, fingerprint)
        if fingerprint and width and known[fingerprint] not in self.index.columns():
            add_vectors(self.connection, known[fingerprint], width)
        return known.get(fingerprint or "", 0)

    def setting(self, key: str) -> str | None:
        return self.connection.value("SELECT value FROM settings WHERE key = %s", key)

    def put_setting(self, key: str, value: str) -> None:
        self.connection.execute(PUT, (key, value))

    def forget_settings(self, prefix: str, before: float) -> None:
        delete = "DELETE FROM settings WHERE starts_with(key, %s) AND (value::json ->> 'time')::float8 < %s"
        self.connection.execute(delete, (prefix, before))

    def hold(self, name: str) -> None:
        lock = "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))"
        self.connection.execute(lock, (f"{self.connection.address.schema} {name}",))

    def remember(self, name: str, content: Mapping[str, Any]) -> None:
        self._answers[f"answers:{name}"] = json.dumps(content)

    # Items

    def admitted(self, where: Where) -> Condition | None:
        if not where:
            return None
        parts, values = [], list[Any]()
        for key, choices in choices_of(where).items():
            if key in COLUMNS:
                parts.append(f"{key} = ANY(%s)")
                values.append([choice for choice in choices if choice is not None])
                continue
            given = [tag_of(key, choice) for choice in choices if choice is not None]
            absent = " OR NOT tags @> %s::bigint[]" if None in choices else ""
            parts.append(f"(tags && %s::bigint[]{absent})")
            values += [given, [tag_of(key)]] if absent else [given]
        return " AND ".join(parts), values

    def size(self, admitted: Any = None) -> int:
        if admitted is None:
            return self.state().items
        return int(self.connection.value(f"SELECT count(*) FROM items WHERE {admitted[0]}", *admitted[1]))

    def numbers_of_ids(self, ids: Sequence[str]) -> dict[str, int]:
        return dict(self.connection.execute("SELECT id, number FROM items WHERE id = ANY(%s)", (list(ids),)).fetchall())

    def numbers_of_identity(self, identity: str) -> list[int]:
        return self.connection.column("SELECT number FROM items WHERE identity = %s ORDER BY number", identity)

    def next_numbers(self, after: int, limit: int, identity: str | None) -> list[int]:
        only, values = ("", []) if identity is None else ("AND identity = %s", [identity])
        query = f"SELECT number FROM items WHERE number > %s {only} ORDER BY number LIMIT %s"
        return self.connection.column(query, after, *values, limit)

    def find(self, numbers: np.ndarray) -> dict[int, Item]:
        query = f"SELECT {self.index.whole()} WHERE items.number = ANY(%s)"
        return {
            item.number: item for item, _ in map(self.item_of_row, self.connection.execute(query, (numbers.tolist(),)))
        }

    def people(self, after: str, limit: int, prefix: str) -> list[Person]:
        lower = (">=", prefix) if prefix > after else (">", after)
        upper = [("<", end)] if (end := above(prefix)) else []
        sql = " AND ".join(f"identity {sign} %s" for sign, _ in (lower, *upper))
        query = f"""SELECT found.identity, faces, items.id, first FROM (SELECT identity, count(*) AS faces,
          min(number) AS first FROM items WHERE {sql} GROUP BY identity ORDER BY identity LIMIT %s) AS found
          JOIN items ON items.number = first ORDER BY 1"""
        values = [text for _, text in (lower, *upper)]
        return [Person(*row) for row in self.connection.execute(query, (*values, limit))]

    def identities(self) -> set[str]:
        return set(self.connection.column("SELECT DISTINCT identity FROM items WHERE identity <> ''"))

    def count_identities(self, most: int = -1) -> int:
        limit = "" if most < 0 else f"LIMIT {most:d}"
        query = f"SELECT count(*) FROM (SELECT DISTINCT identity FROM items WHERE identity > '' {limit}) AS found"
        return int(self.connection.value(query))

    def count_unknown(self) -> int:
        return int(self.connection.value("SELECT count(*) FROM items WHERE identity = ''"))

    def labels(self, admitted: Any = None) -> Labels:
        condition, values = admitted or ("true", [])
        query = f"SELECT number, identity, encoder FROM items WHERE {condition} ORDER BY number"
        rows = self.connection.execute(query, values).fetchall()
        numbers, names, encoders = zip(*rows, strict=True) if rows else ((), (), ())
        return Labels(numbers, names, encoders)

    def vectors(self, numbers: np.ndarray) -> np.ndarray:
        distinct, places = np.unique(numbers, return_inverse=True)
        query = f"SELECT number, {self.index.vector()} FROM items WHERE number = ANY(%s) ORDER BY number"
        rows = self.connection.execute(query, (distinct.tolist(),)).fetchall()
        if len(rows) < len(distinct):
            raise self.damaged(f"{len(distinct) - len(rows)} items that the index knows are not there")
        return self.block(rows)[1][places]

    def vector_blocks(self) -> Iterator[Block]:
        query = f"SELECT number, {self.index.vector()} FROM items ORDER BY number"
        return map(self.block, self.connection.stream(query, BLOCK))

    def item_blocks(self) -> Iterator[tuple[list[Item], np.ndarray]]:
        query = f"SELECT {self.index.whole()} ORDER BY items.number"
        for rows in self.connection.stream(query, BLOCK):
            items, vectors = zip(*map(self.item_of_row, rows), strict=True)
            yield list(items), self.block([(item.number, one) for item, one in zip(items, vectors, strict=True)])[1]

    def block(self, rows: Sequence[tuple[int, bytes]]) -> Block:
        """Turn number and vector of n items, as the server sends them, into numbers (n,) and vectors (n, D).

        Raises:
            DataError: a vector of another width, or not of unit length.
        """
        vectors = decoded([vector or b"" for _, vector in rows])
        if vectors is None:
            raise self.damaged("a vector not of the gallery's width")
        return np.array([number for number, _ in rows], np.int64), self.sound(vectors)

    def item_of_row(self, row: Sequence[Any]) -> tuple[Item, bytes]:
        """Return the item of a row of :meth:`Index.whole`, and its vector as the server sends it."""
        number, *texts, fingerprint, vector, seal = row
        if vector is None:
            raise self.damaged(f"item {number} without a vector")
        return self.sealed(number, texts, fingerprint, little_endian(vector), seal), vector

    # Searching

    def nearest(
        self, queries: np.ndarray, k: int, admitted: Any, *, rescore: bool | None, threads: int | None
    ) -> Neighbours:
        return self.index.nearest(queries, k, admitted)

    def within(self, queries: np.ndarray, max_sq_dist: float, admitted: Any) -> list[Neighbours]:
        return self.index.within(queries, max_sq_dist, admitted)

    def count_within(self, queries: np.ndarray, max_sq_dist: float, admitted: Any, most: int) -> int:
        return self.index.count_within(queries, max_sq_dist, admitted, most)

    # Writing

    def add(
        self, rows: Sequence[tuple[Texts, np.ndarray]], encoder: int, fingerprint: str, on_duplicate: str
    ) -> AddResult:
        added, replaced, kept = self.writes.put(rows, encoder, fingerprint, replace=on_duplicate == "replace")
        if kept and on_duplicate == "error":
            raise self.taken(kept)
        return AddResult(added, replaced, len(kept))

    def remove(self, numbers: Sequence[int]) -> int:
        return self.writes.delete(numbers)

    def rename(self, numbers: Sequence[int], identity: str) -> int:
        return self.writes.rename(numbers, identity)

    def old_items(
        self, encoders: Sequence[int], after: int, most: int, among: Sequence[int] | None
    ) -> list[tuple[int, Texts]]:
        return self.writes.lock_old(encoders, after, most, among)

    def count_old(self, encoders: Sequence[int]) -> tuple[int, int]:
        query = "SELECT count(*), count(DISTINCT root) FROM items WHERE encoder = ANY(%s)"
        items, roots = self.connection.row(query, list(encoders))
        return items, roots

    def exchange(self, items: Sequence[tuple[int, Texts]], vectors: np.ndarray, encoder: int, fingerprint: str) -> None:
        self.writes.exchange(items, vectors, encoder, fingerprint)

    # The index, and care

    def configure(self, recipe: Recipe) -> None:
        checked(recipe, KINDS, self.place)
        with self.writing():
            self.put_plain("index", recipe)

    def save_index(self, *, force: bool = False) -> bool:
        with self.connection.one_line_errors():
            self.connection.begin("SELECT 1")
            return force and self.index.build()

    def describe(self) -> dict[str, Any]:
        sizes = "SELECT pg_table_size('items'), pg_indexes_size('items')"
        items, indexes = self.connection.row(sizes)
        bytes_ = {"items": items, "indexes": indexes}
        return {"schema": int(self.setting("schema") or 0), **self.index.info(), "bytes": bytes_}

    def problems(self) -> Iterator[str]:
        counts = Counter[int]()
        vectors = ", ".join(f"vector_{column}" for column in self.index.columns())
        query = f"SELECT encoder, num_nonnulls({vectors}), {self.index.whole()}"
        for rows in self.connection.stream(query, BLOCK) if vectors else ():
            for encoder, held, *row in rows:
                counts[encoder] += 1
                try:
                    self.block([(row[0], self.item_of_row(row)[1])])
                except DataError as error:
                    yield f"{row[1]}: {error}"
                if held != 1:
                    yield f"{row[1]}: {held} vectors; add it again (on_duplicate=replace)"
        for number, count in self.counts().items():
            if counts[number] != count:
                yield f"{self.place}: {counts[number]} items of encoder {number}, it counts {count}"

    def compact(self) -> dict[str, int]:
        size = "SELECT pg_total_relation_size('items')"
        with self.connection.one_line_errors():
            self.connection.begin("SELECT 1")
            before = self.connection.value(size)
            self.connection.execute("VACUUM (ANALYZE) items")
            return {"bytes_before": before, "bytes_after": self.connection.value(size)}
