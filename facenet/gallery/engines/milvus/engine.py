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
import secrets
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from facenet.errors import DataError
from facenet.gallery.engines.engine import Engine
from facenet.gallery.engines.milvus.connection import PAGE, Connection, Row
from facenet.gallery.engines.milvus.index import Index
from facenet.gallery.engines.milvus.rows import TEXTS, number_of, person_of, row_of
from facenet.gallery.engines.milvus.schema import LONGEST, items_schema
from facenet.gallery.engines.milvus.settings import Settings
from facenet.gallery.engines.tags import tag_of
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

BLOCK = 1000  # items of a request that carries texts and vectors
WHOLE = (*TEXTS, "encoder", "digest", "vector")


class Milvus(Engine):
    """One gallery in two collections; `admitted` items are an expression that holds numbers alone."""

    def __init__(
        self, address: str, timeout: float, *, create: bool, encoder: tuple[str | None, Sequence[str], int | None]
    ) -> None:
        """Connect; see :meth:`facenet.gallery.gallery.Gallery.open`. `encoder` is what :meth:`claim` is asked."""
        self.connection = Connection(address, timeout)
        super().__init__(self.connection.address.shown)
        self.items = self.connection.address.name
        self.settings = Settings(self.connection)
        self.index = Index(self)
        self._depth = 0  # of sessions inside each other
        self._seen: dict[int, Row] = {}  # what the searches of the present session found: rows may change meanwhile
        self._ready = False  # whether the collection of the items is known to be there
        self._wrote = False
        try:
            with self.connection.one_line_errors():
                if not self.settings.open(create=create):
                    raise DataError(f"{self.place}: no gallery there; make one with facenet index")
            self.claim(*encoder)
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
        with self.reading():
            self._wrote = False
            try:
                yield
            finally:  # what was written before an error is there
                if self._wrote:
                    generation = int(self.setting("generation") or 0) + 1
                    self.put_setting("generation", str(generation))
                    self.put_setting("token", secrets.token_hex(8))

    def close(self, *, write_index: bool) -> None:
        self.connection.close()

    def state(self) -> State:
        token, generation = self.setting("token") or "", int(self.setting("generation") or 0)
        return State(f"{token}-{generation}", self.size(), generation)

    # Encoders and settings

    def dim(self) -> int | None:
        found = self.setting("dim")
        return None if found is None else int(found)

    def encoders(self) -> dict[str, int]:
        return self.settings.encoders()

    def counts(self, admitted: Any = None) -> dict[int, int]:
        only = f" and ({admitted})" if admitted else ""
        return {number: self._count(f"encoder == {number:d}{only}") for number in self.encoders().values()}

    def admit(self, fingerprint: str | None, compatible_with: Sequence[str], dim: int | None) -> int:
        self.check(fingerprint, compatible_with, dim)
        if dim and not self.dim():
            self.put_setting("dim", str(dim))
        if (width := self.dim()) and not self.is_there():
            items_schema(self.connection, self.items, width)
        if not fingerprint:
            return 0
        return self.settings.number_of(fingerprint)

    def setting(self, key: str) -> str | None:
        return self.settings.get(key)

    def put_setting(self, key: str, value: str) -> None:
        self.settings.put(key, value)

    def forget_settings(self, prefix: str, before: float) -> None:
        self.settings.forget(before)

    def hold(self, name: str) -> None:
        """Do nothing: Milvus has no locks."""

    def remembered(self, name: str) -> dict[str, Any] | None:
        found = self.setting(f"answers:{name}")
        return json.loads(found) if found else None

    def remember(self, name: str, content: Mapping[str, Any]) -> None:
        text = json.dumps(content)
        if len(text) <= LONGEST:
            with contextlib.suppress(self.connection.pymilvus.MilvusException):  # a role that may only read
                self.put_setting(f"answers:{name}", text)

    # Items

    def is_there(self) -> bool:
        """Tell whether the collection of the items is there, which the first vectors make."""
        self._ready = self._ready or self.connection.has(self.items)
        return self._ready

    def _count(self, expression: str = "") -> int:
        return self.connection.count(self.items, expression) if self.is_there() else 0

    def stream(self, expression: str, fields: Sequence[str], page: int = PAGE) -> Iterator[list[Row]]:
        """Yield rows of items in pages by number; none before there is a collection."""
        return self.connection.stream(self.items, expression, fields, page) if self.is_there() else iter(())

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
        return self._count(admitted or "")

    def numbers_of_ids(self, ids: Sequence[str]) -> dict[str, int]:
        found = {}
        for rows in self._chunks([number_of(name) for name in ids], ["id"]):
            found.update({row["id"]: row["number"] for row in rows})
        return {name: found[name] for name in ids if name in found}

    def numbers_of_identity(self, identity: str) -> list[int]:
        return [row["number"] for page in self.stream(f"person == {person_of(identity)}", []) for row in page]

    def next_numbers(self, after: int, limit: int, identity: str | None) -> list[int]:
        only = "" if identity is None else f" and person == {person_of(identity)}"
        if not self.is_there():
            return []
        rows = self.connection.rows(self.items, f"number > {int(after)}{only}", ["number"], min(limit, PAGE))
        return sorted(row["number"] for row in rows)

    def find(self, numbers: np.ndarray) -> dict[int, Item]:
        seen = [self._seen[number] for number in numbers.tolist() if number in self._seen]
        pages = [seen, *self._chunks([number for number in numbers.tolist() if number not in self._seen], WHOLE)]
        return {item.number: item for rows in pages for item, _ in self._items(rows)}

    def people(self, after: str, limit: int, prefix: str) -> list[Person]:
        names = self.kept("names", self._names)
        end = above(prefix)
        chosen = sorted(name for name in names if name > after and name >= prefix and (not end or name < end))[:limit]
        first = self.find(np.array([names[name][1] for name in chosen], np.int64))
        return [Person(name, count, first[number].id, number) for name in chosen for count, number in [names[name]]]

    def _names(self) -> dict[str, tuple[int, int]]:
        """Return how many faces each person has, and the number of the first; all names are read."""
        found: dict[str, tuple[int, int]] = {}
        for page in self.stream("", ["identity"]):
            for row in page:
                if row["identity"]:
                    count, first = found.get(row["identity"], (0, row["number"]))
                    found[row["identity"]] = count + 1, min(first, row["number"])
        return found

    def identities(self) -> set[str]:
        return set(self.kept("names", self._names))

    def count_identities(self, most: int = -1) -> int:
        count = len(self.kept("names", self._names))
        return count if most < 0 else min(count, most)

    def count_unknown(self) -> int:
        return self._count(f"person == {person_of('')}")

    def labels(self, admitted: Any = None) -> Labels:
        rows = [row for page in self.stream(admitted or "", ["identity", "encoder"]) for row in page]
        rows.sort(key=lambda row: row["number"])
        return Labels(*([row[name] for row in rows] for name in ("number", "identity", "encoder")))

    def vectors(self, numbers: np.ndarray) -> np.ndarray:
        distinct, places = np.unique(numbers, return_inverse=True)
        rows = [row for page in self._chunks(distinct.tolist(), ["vector"]) for row in page]
        if len(rows) < len(distinct):
            raise self.damaged(f"{len(distinct) - len(rows)} items that the index knows are not there")
        there, vectors = self.block([(row["number"], row["vector"]) for row in rows])
        return vectors[np.argsort(there)][places]

    def vector_blocks(self) -> Iterator[Block]:
        for page in self.stream("", ["vector"]):
            numbers, vectors = self.block([(row["number"], row["vector"]) for row in page])
            order = np.argsort(numbers)
            yield numbers[order], vectors[order]

    def item_blocks(self) -> Iterator[tuple[list[Item], np.ndarray]]:
        for page in self.stream("", WHOLE, BLOCK):
            items, vectors = zip(*self._items(sorted(page, key=lambda row: row["number"])), strict=True)
            yield list(items), np.array(vectors)

    def block(self, rows: Sequence[tuple[int, Sequence[float]]]) -> Block:
        """Turn number and vector of n items into numbers (n,) and vectors (n, D)."""
        vectors = np.array([vector for _, vector in rows], np.float32).reshape(len(rows), self.dim() or 0)
        return np.array([number for number, _ in rows], np.int64), self.sound(vectors)

    def _chunks(self, numbers: Sequence[int], fields: Sequence[str]) -> Iterator[list[Row]]:
        """Yield rows of the items of these numbers, in any order."""
        for start in range(0, len(numbers) if self.is_there() else 0, BLOCK):
            chunk = [int(number) for number in numbers[start : start + BLOCK]]
            yield self.connection.rows(self.items, f"number in {chunk}", ["number", *fields], BLOCK)

    def _items(self, rows: Sequence[Row]) -> Iterator[tuple[Item, np.ndarray]]:
        """Yield items and their vectors (D,) of whole rows."""
        names = {number: name for name, number in self.encoders().items()}
        if any(row["encoder"] not in names for row in rows):  # of an encoder that came meanwhile
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
        whole = len(queries) * most <= BLOCK
        found = self.connection.search(self.items, queries, most, expression, params, WHOLE if whole else ["vector"])
        if whole:
            self._seen.update({row["number"]: row for rows in found for row in rows})
        return [self.block([(row["number"], row["vector"]) for row in rows]) for rows in found]

    def nearest(
        self, queries: np.ndarray, k: int, admitted: Any, *, rescore: bool | None, threads: int | None
    ) -> Neighbours:
        return self.index.nearest(queries, k, admitted or "")

    def within(self, queries: np.ndarray, max_sq_dist: float, admitted: Any) -> list[Neighbours]:
        return self.index.within(queries, max_sq_dist, admitted or "")

    # Writing

    def add(
        self, rows: Sequence[tuple[Texts, np.ndarray]], encoder: int, fingerprint: str, on_duplicate: str
    ) -> AddResult:
        known = self.numbers_of_ids([texts[0] for texts, _ in rows])
        if known and on_duplicate == "error":
            raise self.taken(list(known))
        kept = [row for row in rows if row[0][0] not in known] if on_duplicate == "skip" else rows
        self._put(kept, encoder, fingerprint)
        replaced = len(known) if on_duplicate == "replace" else 0
        return AddResult(len(kept) - replaced, replaced, len(rows) - len(kept))

    def _put(self, rows: Sequence[tuple[Texts, np.ndarray]], encoder: int, fingerprint: str) -> None:
        """Write items, in the place of those of the same ids."""
        written = [row_of(texts, vector, encoder, fingerprint, self.place) for texts, vector in rows]
        for start in range(0, len(written), BLOCK):
            self._wrote = True
            self.connection.upsert(self.items, written[start : start + BLOCK])

    def remove(self, numbers: Sequence[int]) -> int:
        there = [row["number"] for page in self._chunks(numbers, []) for row in page]
        self._wrote = self._wrote or bool(there)
        self.connection.delete(self.items, there)
        return len(there)

    def rename(self, numbers: Sequence[int], identity: str) -> int:
        count = 0
        for page in self._chunks(numbers, WHOLE):
            kinds = {row["number"]: (row["encoder"], row["metadata"]) for row in page}
            for item, vector in self._items(page):
                encoder, metadata = kinds[item.number]
                texts = (item.id, identity, item.path, item.root, metadata)
                self._put([(texts, vector)], encoder, item.fingerprint)
            count += len(page)
        return count

    def old_items(
        self, encoders: Sequence[int], after: int, most: int, among: Sequence[int] | None
    ) -> list[tuple[int, Texts]]:
        if not encoders or not self.is_there():
            return []
        only = "" if among is None else f" and number in {[int(number) for number in among]}"
        expression = f"number > {int(after)} and encoder in {[int(one) for one in encoders]}{only}"
        rows = self.connection.rows(self.items, expression, ["number", *TEXTS], min(most, BLOCK))
        return sorted((row["number"], tuple(row[name] for name in TEXTS)) for row in rows)

    def count_old(self, encoders: Sequence[int]) -> tuple[int, int]:
        rows = self.stream(f"encoder in {[int(one) for one in encoders]}", ["root"]) if encoders else iter(())
        roots = Counter(row["root"] for page in rows for row in page)
        return roots.total(), len(roots)

    def exchange(self, items: Sequence[tuple[int, Texts]], vectors: np.ndarray, encoder: int, fingerprint: str) -> None:
        pairs = zip(items, vectors, strict=True)
        self._put([(texts, vector) for (_, texts), vector in pairs], encoder, fingerprint)

    # The index, and care

    def recipe(self) -> Recipe:
        return self.index.recipe()

    def configure(self, recipe: Recipe) -> None:
        self.index.configure(recipe)

    def save_index(self, *, force: bool = False) -> bool:
        with self.writing():
            return self.index.build(force=force)

    def describe(self) -> dict[str, Any]:
        return {
            "schema": 1,
            "consistency": self.connection.address.consistency.lower(),
            **self.index.info(),
            "bytes": {},
        }

    def problems(self) -> Iterator[str]:
        for page in self.stream("", WHOLE, BLOCK):
            for row in page:
                try:
                    self.block([(item.number, vector.tolist()) for item, vector in self._items([row])])
                except DataError as error:
                    yield f"{row['id']}: {error}"

    def compact(self) -> dict[str, int]:
        """Ask the server to merge its segments, which it does in the background; bytes are not told."""
        with self.reading():
            if self.is_there():
                self.connection.client.compact(self.items)
        return {"bytes_before": 0, "bytes_after": 0}
