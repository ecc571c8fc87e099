"""The engine of a gallery in Milvus. Many processes read and write, without transactions.

Two collections belong to a gallery: NAME holds the items, NAME_settings the encoders and the recipe of the index. The
primary key of an item follows from its id. So an id is there once, and a replaced item keeps its number. A write of
several items that is interrupted leaves a part of them; the same add with on_duplicate="skip" writes the rest. Of two
processes that add the same new id at once, the last wins.

Letters: N items, n of them, Q queries, k neighbours, D embedding width.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from facenet.errors import Busy, DataError
from facenet.gallery.engines.database import Database
from facenet.gallery.engines.milvus.collection import BLOCK, Collection, rows_of
from facenet.gallery.engines.milvus.connection import Connection, Row
from facenet.gallery.engines.milvus.index import KINDS, Index
from facenet.gallery.engines.milvus.rows import TEXTS, number_of, person_of, renamed, row_of, texts_of
from facenet.gallery.engines.milvus.schema import LONGEST
from facenet.gallery.engines.milvus.settings import Settings
from facenet.gallery.engines.tags import tag_of
from facenet.gallery.engines.tuning import checked
from facenet.gallery.items import (
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

WHOLE = (*TEXTS, "encoder", "digest", "vector")


class Milvus(Database):
    """One gallery in two collections; `admitted` items are an expression that holds numbers alone."""

    transactions = False

    def __init__(self, address: str, timeout: float, *, create: bool) -> None:
        """Connect; see :meth:`facenet.gallery.gallery.Gallery.open`."""
        self.connection = Connection(address, timeout)
        super().__init__(self.connection.address.shown)
        self.collection = Collection(self.connection)
        self.settings = Settings(self.connection, self.collection)
        self.index = Index(self)
        self._depth = 0  # of sessions inside each other
        self._seen: dict[int, Row] = {}  # what the searches of the present session found: rows may change meanwhile
        self._wrote = False
        try:
            with self.connection.one_line_errors():
                if not self.settings.open(create=create):
                    raise DataError(f"{self.place}: no gallery there; make one with facenet index")
        except BaseException:
            self.connection.close()
            raise

    # Sessions

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        self._depth += 1
        try:
            with self.connection.one_line_errors():
                if self._depth == 1:
                    self.settings.read()
                    self._seen.clear()
                yield
        finally:
            self._depth -= 1

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        with self.connection.strongly(), self.reading():
            self._wrote = False
            try:
                yield
            finally:  # what was written before an error is there
                if self._wrote:
                    self.settings.begin_state()

    def close(self, *, write_index: bool) -> None:
        self.connection.close()

    def state(self) -> State:
        token, generation = self.settings.state()
        return State(token, self.size(), generation)

    # Encoders and settings

    def encoders(self) -> dict[str, int]:
        return self.settings.encoders()

    def counts(self, admitted: Any = None) -> dict[int, int]:
        only = f" and ({admitted})" if admitted else ""
        return {number: self.collection.count(f"encoder == {number:d}{only}") for number in self.encoders().values()}

    def admit(self, fingerprint: str | None, compatible_with: Sequence[str], dim: int | None) -> int:
        self.check(fingerprint, compatible_with, dim)
        if dim and not self.dim():
            self.put_setting("dim", str(dim))
        if width := self.dim():
            self.collection.make(width)
        return self.settings.number_of(fingerprint) if fingerprint else 0

    def setting(self, key: str) -> str | None:
        return self.settings.get(key)

    def put_setting(self, key: str, value: str) -> None:
        self.settings.put(key, value)

    def forget_settings(self, prefix: str, before: float) -> None:
        self.settings.forget(before)

    def hold(self, name: str) -> None:
        """Do nothing: Milvus has no locks."""

    def remember(self, name: str, content: Mapping[str, Any]) -> None:
        text = json.dumps(content)
        if len(text) <= LONGEST:
            with contextlib.suppress(self.connection.pymilvus.MilvusException):  # a role that may only read
                self.put_setting(f"answers:{name}", text)

    # Items

    def admitted(self, where: Where) -> str | None:
        if not where:
            return None
        parts = []
        for key, choices in choices_of(where).items():
            given = [tag_of(key, choice) for choice in choices if choice is not None]
            either = [f"array_contains_any(tags, {given})"] if given else []
            either += [f"not array_contains(tags, {tag_of(key)})"] if None in choices else []
            parts.append(f"({' or '.join(either)})")
        return " and ".join(parts)

    def size(self, admitted: Any = None) -> int:
        return self.collection.count(admitted or "")

    def numbers_of_ids(self, ids: Sequence[str]) -> dict[str, int]:
        found = {}
        for rows in self.collection.chunks([number_of(name) for name in ids], ["id"]):
            found.update({row["id"]: row["number"] for row in rows})
        return {name: found[name] for name in ids if name in found}

    def numbers_of_identity(self, identity: str) -> list[int]:
        return [row["number"] for row in rows_of(self.collection.stream(f"person == {person_of(identity)}", []))]

    def next_numbers(self, after: int, limit: int, identity: str | None) -> list[int]:
        only = "" if identity is None else f" and person == {person_of(identity)}"
        rows = self.collection.next_rows(f"number > {int(after)}{only}", [], limit)
        return [row["number"] for row in rows]

    def find(self, numbers: np.ndarray) -> dict[int, Item]:
        seen = [self._seen[number] for number in numbers.tolist() if number in self._seen]
        rest = [number for number in numbers.tolist() if number not in self._seen]
        pages = [seen, *self.collection.chunks(rest, WHOLE)]
        return {item.number: item for rows in pages for item, _ in self._items(rows)}

    def people(self, after: str, limit: int, prefix: str) -> list[Person]:
        names = self.kept("names", self.collection.names)
        end = above(prefix)
        chosen = sorted(name for name in names if name > after and name >= prefix and (not end or name < end))[:limit]
        first = self.find(np.array([names[name][1] for name in chosen], np.int64))
        there = [(name, *names[name]) for name in chosen if names[name][1] in first]  # others went meanwhile
        return [Person(name, count, first[number].id, number) for name, count, number in there]

    def identities(self) -> set[str]:
        return set(self.kept("names", self.collection.names))

    def count_identities(self, most: int = -1) -> int:
        return len(self.identities())

    def count_unknown(self) -> int:
        return self.collection.count(f"person == {person_of('')}")

    def labels(self, admitted: Any = None) -> Labels:
        rows = list(rows_of(self.collection.stream(admitted or "", ["identity", "encoder"])))
        return Labels(*([row[name] for row in rows] for name in ("number", "identity", "encoder")))

    def vectors(self, numbers: np.ndarray) -> np.ndarray:
        distinct, places = np.unique(numbers, return_inverse=True)
        rows = list(rows_of(self.collection.chunks(distinct.tolist(), ["vector"])))
        if len(rows) < len(distinct):
            raise Busy(f"{self.place}: {len(distinct) - len(rows)} items were removed meanwhile; ask again")
        there, vectors = self.block(rows)
        return vectors[np.argsort(there)][places]

    def vector_blocks(self) -> Iterator[Block]:
        return map(self.block, self.collection.stream("", ["vector"]))

    def item_blocks(self) -> Iterator[tuple[list[Item], np.ndarray]]:
        for page in self.collection.stream("", WHOLE, BLOCK):
            items, vectors = zip(*self._items(page), strict=True)
            yield list(items), np.array(vectors)

    def block(self, rows: Sequence[Row]) -> Block:
        """Turn n rows into numbers (n,) and vectors (n, D)."""
        vectors = np.array([row["vector"] for row in rows], np.float32).reshape(len(rows), self.dim() or 0)
        return np.array([row["number"] for row in rows], np.int64), self.sound(vectors)

    def _items(self, rows: Sequence[Row]) -> Iterator[tuple[Item, np.ndarray]]:
        """Yield items and their vectors (D,) of whole rows."""
        names = {number: name for name, number in self.encoders().items()}
        if any(row["encoder"] not in names for row in rows):  # of an encoder that came meanwhile
            with self.connection.strongly():
                self.settings.read()
            names = {number: name for name, number in self.encoders().items()}
        for row in rows:
            texts, vector = [row[name] for name in TEXTS], np.array(row["vector"], np.float32)
            seal = bytes.fromhex(row["digest"])
            yield self.sealed(row["number"], texts, names.get(row["encoder"], ""), vector.tobytes(), seal), vector

    # Searching

    def search(self, queries: Sequence[Any], most: int, expression: str, params: Mapping[str, Any]) -> list[Block]:
        """Return numbers (m,) and vectors (m, D) of the nearest items, for each query.

        Few come with their texts, so that :meth:`find` tells them as they were.
        """
        whole = len(queries) * most <= BLOCK and len(self._seen) < 10 * BLOCK
        fields = WHOLE if whole else ["vector"]
        found = self.connection.search(self.collection.name, queries, most, expression, params, fields)
        if whole:
            self._seen.update({row["number"]: row for rows in found for row in rows})
        return list(map(self.block, found))

    def nearest(
        self, queries: np.ndarray, k: int, admitted: Any, *, rescore: bool | None, threads: int | None
    ) -> Neighbours:
        return self.index.nearest(queries, k, admitted or "")

    def within(self, queries: np.ndarray, max_sq_dist: float, admitted: Any) -> list[Neighbours]:
        return self.index.within(queries, max_sq_dist, admitted or "")

    def count_within(self, queries: np.ndarray, max_sq_dist: float, admitted: Any, most: int) -> int:
        return self.index.count_within(queries, max_sq_dist, admitted or "", most)

    # Writing

    def add(
        self, rows: Sequence[tuple[Texts, np.ndarray]], encoder: int, fingerprint: str, on_duplicate: str
    ) -> AddResult:
        known = self.numbers_of_ids([texts[0] for texts, _ in rows])
        if known and on_duplicate == "error":
            raise self.taken(list(known))
        kept = [row for row in rows if row[0][0] not in known] if on_duplicate == "skip" else rows
        self._put([row_of(*row, encoder, fingerprint, self.place) for row in kept])
        replaced = len(known) if on_duplicate == "replace" else 0
        return AddResult(len(kept) - replaced, replaced, len(rows) - len(kept))

    def _put(self, rows: Sequence[Row]) -> None:
        """Write rows of items, in the place of those of the same ids."""
        for start in range(0, len(rows), BLOCK):
            self._wrote = True
            self.connection.upsert(self.collection.name, rows[start : start + BLOCK])

    def remove(self, numbers: Sequence[int]) -> int:
        there = [row["number"] for row in rows_of(self.collection.chunks(numbers, []))]
        if there:
            self._wrote = True
            self.connection.delete(self.collection.name, there)
        return len(there)

    def rename(self, numbers: Sequence[int], identity: str) -> int:
        count = 0
        for page in self.collection.chunks(numbers, WHOLE):
            rows = renamed(page, list(self._items(page)), identity, self.place)
            self._put(rows)
            count += len(rows)
        return count

    def old_items(
        self, encoders: Sequence[int], after: int, most: int, among: Sequence[int] | None
    ) -> list[tuple[int, Texts]]:
        if not encoders:
            return []
        only = "" if among is None else f" and number in {[int(number) for number in among]}"
        expression = f"number > {int(after)} and encoder in {[int(one) for one in encoders]}{only}"
        return [(row["number"], texts_of(row)) for row in self.collection.next_rows(expression, TEXTS, most)]

    def count_old(self, encoders: Sequence[int]) -> tuple[int, int]:
        rows = (
            self.collection.stream(f"encoder in {[int(one) for one in encoders]}", ["root"]) if encoders else iter(())
        )
        roots = Counter(row["root"] for page in rows for row in page)
        return roots.total(), len(roots)

    def exchange(self, items: Sequence[tuple[int, Texts]], vectors: np.ndarray, encoder: int, fingerprint: str) -> None:
        """Items that went or changed since they were read are left as they are now."""
        pages = self.collection.chunks([number for number, _ in items], TEXTS)
        now = {row["number"]: texts_of(row) for page in pages for row in page}
        pairs = zip(items, vectors, strict=True)
        same = [(texts, vector) for (number, texts), vector in pairs if now.get(number) == texts]
        self._put([row_of(*one, encoder, fingerprint, self.place) for one in same])

    # The index, and care

    def configure(self, recipe: Recipe) -> None:
        checked(recipe, KINDS, self.place)
        with self.writing():
            self.put_plain("index", recipe)

    def save_index(self, *, force: bool = False) -> bool:
        if not force:
            return False
        with self.writing():
            return self.index.build()

    def describe(self) -> dict[str, Any]:
        return {
            "schema": 1,
            "consistency": self.connection.address.consistency.lower(),
            **self.index.info(),
            "bytes": {},
        }

    def problems(self) -> Iterator[str]:
        for page in self.collection.stream("", WHOLE, BLOCK):
            for row in page:
                try:
                    self.block([row])
                    list(self._items([row]))
                except DataError as error:
                    yield f"{row['id']}: {error}"

    def compact(self) -> dict[str, int]:
        """Ask the server to merge its segments, which it does in the background; bytes are not told."""
        with self.reading():
            if self.collection.is_there():
                self.connection.client.compact(self.collection.name)
        return {"bytes_before": 0, "bytes_after": 0}
