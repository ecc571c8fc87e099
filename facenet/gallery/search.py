"""Reading a gallery: nearest items, all within a radius, filters, names and stored vectors, each from one state.

Letters: N items, Q queries, k neighbours, D embedding width.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from facenet.errors import DataError
from facenet.files import is_inside
from facenet.gallery.faiss.cache import Cache
from facenet.gallery.sql.rows import condition, first_of_each
from facenet.gallery.sql.store import Store
from facenet.gallery.sql.truth import BLOCK, WHOLE, damaged, vectors_of, whole
from facenet.neighbours import knn_search
from facenet.types import Neighbours
from facenet.vectors import unit_rows

FEW = 20_000  # items left by a filter up to which the stored vectors are compared, whatever the index


class Item(NamedTuple):
    """One face of a gallery; `number` is what searches return as its row."""

    number: int
    id: str
    identity: str  # "" where unknown
    path: str  # relative to `root`, POSIX
    root: str
    metadata: dict[str, Any]
    fingerprint: str  # of the encoder that made the vector


class Hit(NamedTuple):
    """One neighbour of a query; rank 1 is the nearest."""

    rank: int
    id: str
    identity: str
    path: str  # relative to `root`, POSIX
    sq_dist: float
    root: str
    metadata: dict[str, Any]

    def accepted(self, threshold: float) -> bool:
        """Whether this is a match: sq_dist <= threshold; otherwise the answer is "no match"."""
        return self.sq_dist <= threshold


class Reader(Store):
    """The reading half of `index.Gallery`."""

    def __init__(self, folder: Path, timeout: float, *, create: bool) -> None:
        """As :class:`Store`; the index is opened by the first search."""
        super().__init__(folder, timeout, create=create)
        self._cache = Cache(folder, self._db)

    def search(
        self,
        vectors: np.ndarray,
        k: int,
        *,
        fingerprint: str,
        compatible_with: Sequence[str] = (),
        by_identity: bool = False,
        where: Mapping[str, Any] | None = None,
        rescore: bool | None = None,
        threads: int | None = None,
    ) -> Neighbours:
        """The k nearest items of the unit `vectors` (Q, D); `rows` are item numbers for :meth:`items`.

        With `by_identity` each identity answers once, by its nearest item; an item without identity counts alone.
        `where` admits only items whose id, identity, path or metadata field equals the value given for it.
        A flat index is exact; others find the share of true neighbours that :meth:`info` states, and where they hold
        codes, sq_dist is that of the codes unless `rescore`d on the stored vectors (None: where the tuning says so).
        Absent places (k > N, an empty gallery) hold row -1 and sq_dist inf.

        Raises:
            DataError: no queries, NaN, zero or not-unit vectors, another width, k < 1, a foreign encoder.
            ConfigError: a filter that is none.
        """
        with self._reading():
            queries = self._queries(vectors, fingerprint, compatible_with)
            return self._search(queries, k, by_identity, where, rescore, threads)

    def within(
        self,
        vectors: np.ndarray,
        max_sq_dist: float,
        *,
        fingerprint: str,
        compatible_with: Sequence[str] = (),
        where: Mapping[str, Any] | None = None,
    ) -> list[Neighbours]:
        """For each of the unit `vectors` (Q, D) every item with sq_dist <= max_sq_dist, nearest first.

        Returns Q :class:`Neighbours` whose arrays have shape (m,), m >= 0. Distances are exact; an approximate index
        looks only at the lists or nodes it was tuned to. Raises as :meth:`search`.
        """
        with self._reading():
            return self._within(self._queries(vectors, fingerprint, compatible_with), max_sq_dist, where)

    def hits(
        self,
        vectors: np.ndarray,
        k: int,
        *,
        fingerprint: str,
        compatible_with: Sequence[str] = (),
        by_identity: bool = False,
        where: Mapping[str, Any] | None = None,
    ) -> list[list[Hit]]:
        """As :meth:`search`, with names and exact distances: for each of Q queries at most k hits, from one state."""
        with self._reading():
            queries = self._queries(vectors, fingerprint, compatible_with)
            lossy = self._cache.current(queries.shape[1]).base.lossy
            return self._named(self._search(queries, k, by_identity, where, lossy or None, None))

    def hits_within(
        self,
        vectors: np.ndarray,
        max_sq_dist: float,
        *,
        fingerprint: str,
        compatible_with: Sequence[str] = (),
        where: Mapping[str, Any] | None = None,
    ) -> list[list[Hit]]:
        """As :meth:`within`, with names."""
        with self._reading():
            found = self._within(self._queries(vectors, fingerprint, compatible_with), max_sq_dist, where)
            most = max((len(rows) for rows, _ in found), default=0)
            all_of_them = _absent(len(found), most)
            for i, one in enumerate(found):
                all_of_them.rows[i, : len(one.rows)], all_of_them.sq_dist[i, : len(one.rows)] = one
            return self._named(all_of_them)

    def items(self, rows: Sequence[int] | np.ndarray) -> list[Item]:
        """The items of the given numbers (n,), in that order; -1 or one removed since raises DataError."""
        numbers = np.asarray(rows, np.int64).ravel()
        with self._reading():
            found = self._items(numbers)
        absent = [int(number) for number in numbers if int(number) not in found]
        if absent:
            raise DataError(f"{self.folder}: no item number {absent[0]} (removed since the search?); search again")
        return [found[int(number)] for number in numbers]

    def vector(self, name: str) -> tuple[Item, np.ndarray]:
        """The item of that id and its stored vector (D,).

        Raises:
            DataError: no such id.
        """
        with self._reading():
            numbers = self._numbers([name])
            if not numbers:
                raise DataError(f"{self.folder}: no id {name!r} in the gallery")
            number = np.array([numbers[name]])
            return self._items(number)[numbers[name]], vectors_of(self.folder, self._db, number, self._dim() or 0)[0]

    def blocks(self) -> Iterator[tuple[list[Item], np.ndarray]]:
        """All items with their vectors (n, D) by number, block by block, from one state."""
        with self._reading():
            numbers, dim = self._column("SELECT number FROM items ORDER BY number"), self._dim() or 0
            for start in range(0, len(numbers), BLOCK):
                block = np.array(numbers[start : start + BLOCK], np.int64)
                items = self._found(block)
                yield [items[number] for number in block.tolist()], vectors_of(self.folder, self._db, block, dim)

    def _queries(self, vectors: np.ndarray, fingerprint: str, compatible_with: Sequence[str]) -> np.ndarray:
        self._check_encoder(fingerprint, compatible_with, self._encoders())
        return unit_rows(vectors, "queries", dim=self._dim())

    def _within(self, queries: np.ndarray, max_sq_dist: float, where: Mapping[str, Any] | None) -> list[Neighbours]:
        if not max_sq_dist >= 0:
            raise DataError(f"max_sq_dist: expected at least 0, got {max_sq_dist}")
        layers, among = self._cache.current(queries.shape[1]), self._matching(where)
        slack = layers.base.error if layers.base.lossy else 0.0
        results = []
        for query, (rows, sq_dist) in zip(queries, layers.within(queries, max_sq_dist + slack), strict=True):
            if among is not None:
                there = np.isin(rows, among)
                rows, sq_dist = rows[there], sq_dist[there]
            if slack and len(rows):
                rows, sq_dist = (part[0] for part in self._rescored(query[None], rows[None]))
                rows, sq_dist = rows[sq_dist <= max_sq_dist], sq_dist[sq_dist <= max_sq_dist]
            results.append(Neighbours(rows, sq_dist))
        return results

    def _search(
        self,
        queries: np.ndarray,
        k: int,
        by_identity: bool,
        where: Mapping[str, Any] | None,
        rescore: bool | None,
        threads: int | None,
    ) -> Neighbours:
        among = self._matching(where)
        if not by_identity:
            return self._nearest(queries, k, among, rescore, threads)
        total = len(self._cache.current(queries.shape[1])) if among is None else len(among)
        best = _absent(len(queries), k)
        todo, fetch = np.arange(len(queries)), 4 * k
        while todo.size:
            found = self._nearest(queries[todo], min(fetch, max(total, 1)), among, rescore, threads)
            identities = {number: item.identity for number, item in self._found(found.rows).items()}
            unfinished = []
            for query, rows, sq_dist in zip(todo, found.rows, found.sq_dist, strict=True):
                places = first_of_each([identities[row] or row for row in rows.tolist() if row >= 0])[:k]
                if len(places) < k and fetch < total:
                    unfinished.append(query)
                best.rows[query, : len(places)] = rows[places]
                best.sq_dist[query, : len(places)] = sq_dist[places]
            todo, fetch = np.array(unfinished, np.int64), 4 * fetch
        return best

    def _nearest(
        self, queries: np.ndarray, k: int, among: np.ndarray | None, rescore: bool | None, threads: int | None
    ) -> Neighbours:
        layers = self._cache.current(queries.shape[1])
        if among is not None and len(among) <= FEW:
            return self._nearest_of_few(queries, k, among, threads)
        fetch = layers.base.fetch if rescore in (None, True) else 1
        found = layers.search(queries, k * fetch, threads=threads, among=among)
        if not (fetch > 1 if rescore is None else rescore):
            return found
        rows, sq_dist = self._rescored(queries, found.rows)
        return Neighbours(rows[:, :k], sq_dist[:, :k])

    def _nearest_of_few(self, queries: np.ndarray, k: int, among: np.ndarray, threads: int | None) -> Neighbours:
        if not len(among):
            return _absent(len(queries), k)
        found = knn_search(vectors_of(self.folder, self._db, among, queries.shape[1]), queries, k, threads=threads)
        return Neighbours(np.where(found.rows < 0, -1, among[found.rows]), found.sq_dist)

    def _rescored(self, queries: np.ndarray, rows: np.ndarray) -> Neighbours:
        """Candidates (Q, m) in the order of their exact sq_dist on the stored vectors."""
        numbers, place = np.unique(rows, return_inverse=True)
        there = numbers >= 0
        vectors = np.zeros((len(numbers), queries.shape[1]), np.float32)
        vectors[there] = vectors_of(self.folder, self._db, numbers[there], queries.shape[1])
        sq_dist = np.empty(rows.shape, np.float32)
        for i, (query, at) in enumerate(zip(queries, place.reshape(rows.shape), strict=True)):
            difference = vectors[at] - query
            sq_dist[i] = np.einsum("md,md->m", difference, difference)
        sq_dist[rows < 0] = np.inf
        order = np.argsort(sq_dist, axis=1, kind="stable")
        return Neighbours(np.take_along_axis(rows, order, 1), np.take_along_axis(sq_dist, order, 1))

    def _matching(self, where: Mapping[str, Any] | None) -> np.ndarray | None:
        """Sorted numbers of the items that a filter admits; None without a filter."""
        if not where:
            return None
        sql, values = condition(where)
        return np.array(self._column(f"SELECT number FROM items WHERE {sql} ORDER BY number", *values), np.int64)

    def _named(self, found: Neighbours) -> list[list[Hit]]:
        items = self._found(found.rows)
        return [
            [
                Hit(rank, item.id, item.identity, item.path, sq_dist, item.root, item.metadata)
                for rank, (row, sq_dist) in enumerate(zip(rows, sq_dists, strict=True), 1)
                if row >= 0 and (item := items[row])
            ]
            for rows, sq_dists in zip(found.rows.tolist(), found.sq_dist.tolist(), strict=True)
        ]

    def _found(self, rows: np.ndarray) -> dict[int, Item]:
        """The items that a search found; an index may be sealed and yet name others."""
        numbers = np.unique(rows[rows >= 0])
        items = self._items(numbers)
        if len(items) < len(numbers):
            raise damaged(self.folder, f"{len(numbers) - len(items)} items that the index knows are not there")
        return items

    def _items(self, numbers: np.ndarray) -> dict[int, Item]:
        found = {}
        for row in self._among(f"{WHOLE} WHERE items.number IN", np.unique(numbers).tolist()):
            number, *texts, metadata, fingerprint = whole(self.folder, row)[:-2]
            try:
                known = all(isinstance(text, str) for text in (*texts, fingerprint))
                if not known or not (texts[2] == "" or is_inside(texts[2])):
                    raise TypeError("expected texts, and a path below its root")
                found[number] = Item._make((number, *texts, json.loads(metadata), fingerprint))
            except (TypeError, ValueError, RecursionError) as error:
                raise damaged(self.folder, f"texts, metadata or encoder of item {number}") from error
        return found


def _absent(count: int, k: int) -> Neighbours:
    """No neighbours, for `count` queries with k places each."""
    return Neighbours(np.full((count, k), -1, np.int64), np.full((count, k), np.inf, np.float32))
