"""A searchable set of vectors in three layers: an index that never changes, later items, and removed numbers.

The base may be of any kind, and mapped from a file. Later items lie beside it in an exact index, and so do the items by
which its recall is measured. Removed items stay in the base: the base is asked for more, and they are left out of the
answers. So the cost of adding or removing an item does not grow with the base. The cache merges the layers when they
have grown.

Letters: Q queries, k neighbours, D embedding width.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from facenet.gallery.faiss.kinds import Built, drop, new_index, selecting
from facenet.gallery.faiss.scan import by_distance, ranged
from facenet.types import Neighbours

MORE = 16  # answers asked for beyond k if some of the base's are gone


class Layers:
    """The three layers over item numbers; `base` is never written to."""

    def __init__(
        self, base: Built, dim: int, gone: np.ndarray | None = None, beside: tuple[np.ndarray, np.ndarray] | None = None
    ) -> None:
        """Begin with a base; `gone` are item numbers (n,) of it that are not to be answered.

        `beside` are those numbers and vectors of `base.beside` that are still items.
        """
        self.base = base
        self.later = new_index(dim)
        self._later: set[int] = set()
        self.gone = np.unique(np.asarray([] if gone is None else gone, np.int64))
        self.edits = 0  # items added and removed since
        if beside is not None:
            self.add(*beside)
            self.edits = 0

    def __len__(self) -> int:
        """Return how many items can be answered."""
        return int(self.base.faiss.ntotal) - len(self.gone) + len(self._later)

    @property
    def changed(self) -> int:
        """How many items are added to the base and what lies beside it, or gone from them."""
        return len(self._later.symmetric_difference(self.base.beside)) + len(self.gone)

    @property
    def beside(self) -> np.ndarray:
        """The sorted numbers of the items that lie beside the base for good."""
        return np.array(sorted(self._later.intersection(self.base.beside)), np.int64)

    def add(self, numbers: np.ndarray, vectors: np.ndarray) -> None:
        """Add items by number (n,) and vector (n, D)."""
        self.later.add_with_ids(vectors, numbers)
        self._later.update(numbers.tolist())
        self.edits += len(numbers)

    def remove(self, numbers: list[int]) -> None:
        """Leave items out from now on."""
        later = self._later.intersection(numbers)
        drop(self.later, np.array(sorted(later), np.int64))
        self._later -= later
        self.edits += len(numbers)
        rest = set(numbers).difference(later, self.base.beside)
        if rest:
            self.gone = np.union1d(self.gone, np.array(sorted(rest), np.int64))

    def search(
        self, queries: np.ndarray, k: int, *, threads: int | None = None, among: np.ndarray | None = None
    ) -> Neighbours:
        """Return the k nearest item numbers of checked `queries` (Q, D), padded as :class:`Neighbours` says.

        If `among` (n,) is given, only these numbers may be answered.

        Raises:
            ConfigError: `among` with a kind of index that can not be filtered.
        """
        found = self.candidates(queries, k, threads=threads, among=among)
        return _nearer(found, k) if self._later else found

    def candidates(
        self,
        queries: np.ndarray,
        k: int,
        *,
        fetch: int = 1,
        threads: int | None = None,
        among: np.ndarray | None = None,
    ) -> Neighbours:
        """Return k x `fetch` answers of the base beside the k nearest later items (Q, m), which do not compare yet."""
        with using_threads(threads):
            found = self._base(queries, k * fetch, among)
            if not self._later:
                return found
            later = _asked(self.later, queries, k, among)
            return Neighbours(*(np.concatenate(pair, axis=1) for pair in zip(found, later, strict=True)))

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

        Only an exact base is asked.
        """
        found = [ranged(index, queries, max_sq_dist) for index in (self.base.faiss, self.later)]
        return [by_distance([self._present(part) for part in parts]) for parts in zip(*found, strict=True)]

    def _present(self, part: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        there = ~np.isin(part[0], self.gone)
        return part[0][there], part[1][there]


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


def _first(found: Neighbours, absent: np.ndarray, k: int) -> Neighbours:
    """Return the first k of each row without the absent places (Q, k + more)."""
    sq_dist = np.where(absent, np.float32(np.inf), found.sq_dist)
    order = np.argsort(absent | (found.rows < 0), axis=1, kind="stable")[:, :k]
    rows = np.where(absent, -1, found.rows)
    return Neighbours(np.take_along_axis(rows, order, 1), np.take_along_axis(sq_dist, order, 1))


def _nearer(found: Neighbours, k: int) -> Neighbours:
    """Return the k nearest of answers (Q, m); equal distances stay in their order."""
    order = np.argsort(found.sq_dist, axis=1, kind="stable")[:, :k]
    return Neighbours(*(np.take_along_axis(part, order, 1) for part in found))


def use_threads(threads: int) -> None:
    """Let FAISS use so many threads for what the calling thread asks."""
    import faiss

    faiss.omp_set_num_threads(threads)


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
