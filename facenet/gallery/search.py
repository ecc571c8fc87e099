"""Searching a gallery: faces, people or their mean faces, with names.

Letters: N items, Q queries, k neighbours, m answers, D embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from facenet.errors import ConfigError, DataError, choose
from facenet.gallery.engines.engine import Engine
from facenet.gallery.engines.exact import absent
from facenet.gallery.faiss.layers import using_threads
from facenet.gallery.faiss.scan import nearest, within
from facenet.gallery.items import Item, Where
from facenet.gallery.people import MEAN, NEAREST, Means, mean_faces, read_people
from facenet.types import EmbeddingSet, Neighbours
from facenet.vectors import unit_rows


class Hit(NamedTuple):
    """One neighbour of a query; rank 1 is the nearest."""

    rank: int
    id: str
    identity: str
    path: str  # relative to `root`, POSIX
    sq_dist: float
    root: str
    metadata: dict[str, Any]
    fingerprint: str = ""  # of the encoder that made the face's vector
    number: int = -1  # of the item, as searches return it

    def accepted(self, threshold: float) -> bool:
        """Tell whether this is a match: sq_dist <= threshold; otherwise the answer is "no match"."""
        return self.sq_dist <= threshold


class Search:
    """The searches of one gallery; each answers from one state."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def search(self, queries: EmbeddingSet, k: int, **how: Any) -> Neighbours:
        """Return the k nearest items; see :meth:`facenet.gallery.gallery.Gallery.search`."""
        with self.engine.reading():
            return self._answered(self._checked(queries), k, **how)

    def within(self, queries: EmbeddingSet, max_sq_dist: float, where: Where) -> list[Neighbours]:
        """Return all items within a radius; see :meth:`facenet.gallery.gallery.Gallery.within`."""
        with self.engine.reading():
            return self._within(self._checked(queries), max_sq_dist, where)

    def count_within(self, queries: EmbeddingSet, max_sq_dist: float, where: Where, most: int) -> int:
        """Return about how many items are within a radius; see :meth:`facenet.gallery.gallery.Gallery.count_within`."""
        with self.engine.reading():
            vectors = self._checked(queries)
            return self.engine.count_within(vectors, max_sq_dist, self.engine.admitted(where), most)

    def hits(
        self, queries: EmbeddingSet, k: int, *, by_identity: bool, identity_by: str, where: Where, without: str
    ) -> list[list[Hit]]:
        """Return the k nearest items with names; see :meth:`facenet.gallery.gallery.Gallery.hits`."""
        with self.engine.reading():
            vectors, seen = self._checked(queries), dict[int, Item]()
            found = self._answered(
                vectors, k, by_identity=by_identity, identity_by=identity_by, where=where, rescore=True,
                without=self._number_of(without), seen=seen,
            )  # fmt: skip
            return self._named([Neighbours(*one) for one in zip(*found, strict=True)], seen)

    def hits_within(
        self, queries: EmbeddingSet, max_sq_dist: float, *, where: Where, means: bool, without: str
    ) -> list[list[Hit]]:
        """Return all items within a radius with names; see :meth:`facenet.gallery.gallery.Gallery.hits_within`."""
        with self.engine.reading():
            vectors, skip = self._checked(queries), self._number_of(without)
            return self._named(self._within(vectors, max_sq_dist, where, means=means, without=skip), {})

    def _checked(self, queries: EmbeddingSet) -> np.ndarray:
        """Return the vectors (Q, D) of queries that may ask.

        Raises:
            DataError: no queries, NaN, zero or not-unit vectors, another width, or an encoder that is not compatible.
        """
        self.engine.check(queries.fingerprint, queries.compatible_with)
        return unit_rows(queries.vectors, "queries", dim=self.engine.dim())

    def _answered(
        self,
        queries: np.ndarray,
        k: int,
        *,
        by_identity: bool = False,
        identity_by: str = NEAREST,
        where: Where = None,
        rescore: bool | None = None,
        threads: int | None = None,
        without: int = -1,
        seen: dict[int, Item] | None = None,
    ) -> Neighbours:
        """Return the k nearest items, or people; people do not answer by the item number `without`.

        Items that are read on the way are added to `seen`.
        """
        if k < 1:
            raise DataError(f"k: expected at least 1, got {k}")
        by_mean = choose({NEAREST: False, MEAN: True}, identity_by, "identity_by")
        if by_mean and not by_identity:
            raise ConfigError("identity_by: it says how people answer; pass by_identity=true too, or leave it out")
        admitted = self.engine.admitted(where)
        if by_mean:
            return self._nearest_means(queries, k, self._means(admitted, without), threads)
        if by_identity:
            seen = {} if seen is None else seen
            return self._nearest_people(queries, k, admitted, rescore, threads, without, seen)
        return self.engine.nearest(queries, k, admitted, rescore=rescore, threads=threads)

    def _within(
        self, queries: np.ndarray, max_sq_dist: float, where: Where, *, means: bool = False, without: int = -1
    ) -> list[Neighbours]:
        """Return all items within a radius, or all mean faces without the item number `without`."""
        if not max_sq_dist >= 0:
            raise DataError(f"max_sq_dist: expected at least 0, got {max_sq_dist}")
        admitted = self.engine.admitted(where)
        if means:
            faces = self._means(admitted, without)
            return within([(faces.rows, faces.vectors)], queries, max_sq_dist)
        return self.engine.within(queries, max_sq_dist, admitted)

    def _number_of(self, name: str) -> int:
        """Return the number of the item of an id, -1 for "" or an unknown one."""
        return self.engine.numbers_of_ids([name]).get(name, -1) if name else -1

    def _read(self, rows: np.ndarray, seen: dict[int, Item]) -> dict[int, Item]:
        """Add the items of these rows to those `seen`, and return these."""
        new = set(rows.ravel().tolist()) - seen.keys()
        numbers = np.array(sorted(number for number in new if number >= 0), np.int64)
        found = self.engine.find(numbers)
        if len(found) < len(numbers) and self.engine.transactions:
            raise self.engine.damaged(f"{len(numbers) - len(found)} items that the index knows are not there")
        seen.update(found)
        return seen

    def _named(self, answers: Sequence[Neighbours], seen: dict[int, Item]) -> list[list[Hit]]:
        """Return the hits of answers (m,), one for each of Q queries."""
        items = self._read(np.concatenate([answer.rows for answer in answers]), seen)
        return [
            [
                Hit(rank, item.id, item.identity, item.path, sq_dist, item.root, item.metadata, item.fingerprint, row)
                for rank, (row, sq_dist) in enumerate(zip(*(part.tolist() for part in answer), strict=True), 1)
                if row >= 0 and (item := items.get(row))  # else it went meanwhile
            ]
            for answer in answers
        ]

    def _nearest_people(
        self,
        queries: np.ndarray,
        k: int,
        admitted: Any,
        rescore: bool | None,
        threads: int | None,
        without: int,
        seen: dict[int, Item],
    ) -> Neighbours:
        """Return the nearest item of each of the k nearest identities; more items are fetched until k are found."""
        total = self.engine.size(admitted)
        best = absent(len(queries), k)
        pending, fetch = np.arange(len(queries)), 4 * k
        while pending.size:
            found = self.engine.nearest(
                queries[pending], min(fetch, max(total, 1)), admitted, rescore=rescore, threads=threads
            )
            items = self._read(found.rows, seen)
            unfinished = []
            for query, rows, sq_dist in zip(pending, found.rows, found.sq_dist, strict=True):
                there = [place for place, row in enumerate(rows.tolist()) if row in items]
                keys = [row if row == without else items[row].identity or row for row in rows[there].tolist()]
                places = [there[i] for i in _first_of_each(keys) if rows[there[i]] != without][:k]
                if len(places) < k and fetch < total:
                    unfinished.append(query)
                best.rows[query, : len(places)] = rows[places]
                best.sq_dist[query, : len(places)] = sq_dist[places]
            pending, fetch = np.array(unfinished, np.int64), 4 * fetch
        return best

    def _nearest_means(self, queries: np.ndarray, k: int, means: Means, threads: int | None) -> Neighbours:
        """Return the k people whose mean faces are nearest, each by the nearest of the means; all are compared."""
        best, count = absent(len(queries), k), len(means.rows)
        several = int(np.bincount(means.people).max(initial=1))  # means of a person, by different encoders
        with using_threads(threads):
            found = nearest([(np.arange(count), means.vectors)], queries, min(k * several, count)) if count else best
        for query, (places, sq_dist) in enumerate(zip(*found, strict=True)):
            first = _first_of_each(means.people[places].tolist() if count else [])[:k]
            best.rows[query, : len(first)] = means.rows[places[first]]
            best.sq_dist[query, : len(first)] = sq_dist[first]
        return best

    def _means(self, admitted: Any, without: int) -> Means:
        """Return the mean faces of the people; those of all items are kept until the next write."""
        if admitted is None and without < 0:
            return self.engine.kept("means", lambda: mean_faces(self.engine, read_people(self.engine)))
        who = read_people(self.engine, admitted)
        return mean_faces(self.engine, who.part(who.numbers != without))


def _first_of_each(keys: Sequence[object]) -> list[int]:
    """Return the places at which a key appears for the first time."""
    first: dict[object, int] = {}
    for i, key in enumerate(keys):
        first.setdefault(key, i)
    return list(first.values())
