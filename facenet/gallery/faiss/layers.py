"""A searchable set of vectors in three layers: an index that never changes, later items, and removed numbers.

The base may be of any kind, and mapped from a file. Later items lie beside it in an exact index. Removed items stay in
the base: the base is asked for more, and they are left out of the answers. So the cost of adding or removing an item
does not grow with the base. The cache merges the layers when they have grown.

Letters: Q queries, k neighbours, D embedding width.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from facenet.errors import ConfigError
from facenet.gallery.faiss.kinds import Built, drop, new_index, selecting
from facenet.types import Neighbours

MORE = 16  # answers asked for beyond k if some of the base's are gone


class Layers:
    """The three layers over item numbers; `base` is never written to."""

    def __init__(self, base: Built, dim: int, gone: np.ndarray | None = None) -> None:
        """Begin with a base; `gone` are item numbers (n,) of it that are not to be answered."""
        self.base = base
        self.later = new_index(dim)
        self._later: set[int] = set()
        self.gone = np.unique(np.asarray([] if gone is None else gone, np.int64))

    def __len__(self) -> int:
        """Return how many items can be answered."""
        return int(self.base.faiss.ntotal) - len(self.gone) + len(self._later)

    @property
    def changed(self) -> int:
        """How many items are in the later layer, or gone from the base."""
        return len(self._later) + len(self.gone)

    def add(self, numbers: np.ndarray, vectors: np.ndarray) -> None:
        """Add items by number (n,) and vector (n, D)."""
        self.later.add_with_ids(vectors, numbers)
        self._later.update(numbers.tolist())

    def remove(self, numbers: list[int]) -> None:
        """Leave items out from now on."""
        later = self._later.intersection(numbers)
        drop(self.later, np.array(sorted(later), np.int64))
        self._later -= later
        rest = [number for number in numbers if number not in later]
        if rest:
            self.gone = np.union1d(self.gone, np.array(rest, np.int64))

    def search(
        self, queries: np.ndarray, k: int, *, threads: int | None = None, among: np.ndarray | None = None
    ) -> Neighbours:
        """Return the k nearest item numbers of checked `queries` (Q, D), padded as :class:`Neighbours` says.

        If `among` (n,) is given, only these numbers may be answered.

        Raises:
            ConfigError: `among` with a kind of index that can not be filtered.
        """
        with using_threads(threads):
            found = self._base(queries, k, among)
            if not self._later:
                return found
            return _nearer(found, _asked(self.later, queries, k, among))

    def _base(self, queries: np.ndarray, k: int, among: np.ndarray | None) -> Neighbours:
        more = min(MORE, len(self.gone))
        while True:
            found = _asked(self.base.faiss, queries, k + more, among, self.base.parameter)
            if not more:
                return found
            absent = np.isin(found.rows, self.gone)
            if more >= len(self.gone) or (absent.sum(1) <= more).all():
                return _first(found, absent, k)
            more = min(4 * more, len(self.gone))

    def within(self, queries: np.ndarray, max_sq_dist: float) -> list[Neighbours]:
        """Return for each of `queries` (Q, D) all item numbers with sq_dist <= max_sq_dist, nearest first: (m,) arrays.

        Raises:
            ConfigError: a kind of index that can not search a radius.
        """
        radius = float(np.nextafter(np.float32(max_sq_dist), np.float32(np.inf)))  # FAISS takes < radius
        layers = [_ranged(index, queries, radius) for index in (self.base.faiss, self.later)]
        results = []
        for rows, sq_dist in (map(np.concatenate, zip(*pair, strict=True)) for pair in zip(*layers, strict=True)):
            there = ~np.isin(rows, self.gone)
            order = np.argsort(sq_dist[there], kind="stable")
            results.append(Neighbours(rows[there][order], sq_dist[there][order]))
        return results


def _asked(index: Any, queries: np.ndarray, k: int, among: np.ndarray | None, parameter: str = "") -> Neighbours:
    found = min(int(k), int(index.ntotal))
    options = {} if among is None else {"params": selecting(index, parameter, among)}
    if found == k:
        sq_dist, rows = index.search(queries, k, **options)
    else:
        rows = np.full((len(queries), k), -1, np.int64)
        sq_dist = np.full((len(queries), k), np.inf, np.float32)
        if found:
            sq_dist[:, :found], rows[:, :found] = index.search(queries, found, **options)
    sq_dist[rows < 0] = np.inf  # FAISS pads with its largest float
    return Neighbours(rows, np.maximum(sq_dist, 0, out=sq_dist))


def _ranged(index: Any, queries: np.ndarray, radius: float) -> list[tuple[np.ndarray, np.ndarray]]:
    try:
        limits, sq_dist, rows = index.range_search(queries, radius)
    except RuntimeError as error:
        raise ConfigError("within: this index can not search a radius; choose another kind or factory") from error
    ends = zip(limits[:-1].tolist(), limits[1:].tolist(), strict=True)
    return [(rows[start:end], np.maximum(sq_dist[start:end], 0)) for start, end in ends]


def _first(found: Neighbours, absent: np.ndarray, k: int) -> Neighbours:
    """Return the first k of each row without the absent places (Q, k + more)."""
    sq_dist = np.where(absent, np.float32(np.inf), found.sq_dist)
    order = np.argsort(absent | (found.rows < 0), axis=1, kind="stable")[:, :k]
    rows = np.where(absent, -1, found.rows)
    return Neighbours(np.take_along_axis(rows, order, 1), np.take_along_axis(sq_dist, order, 1))


def _nearer(one: Neighbours, other: Neighbours) -> Neighbours:
    """Return the k nearest of two answers of k each; equal distances go to the first answer."""
    rows, sq_dist = (np.concatenate(pair, axis=1) for pair in zip(one, other, strict=True))
    order = np.argsort(sq_dist, axis=1, kind="stable")[:, : one.rows.shape[1]]
    return Neighbours(np.take_along_axis(rows, order, 1), np.take_along_axis(sq_dist, order, 1))


@contextlib.contextmanager
def using_threads(threads: int | None) -> Iterator[None]:
    """Let FAISS use so many threads inside the block; None changes nothing."""
    import faiss

    if threads is None:
        yield
        return
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(threads)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
