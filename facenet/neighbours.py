"""The k nearest others of every face of a set: exact up to a size, by inverted lists (IVF) above it.

Above `exact_to` faces, k-means on a seeded sample splits the space into about 4 sqrt(N) cells, and each face searches
its nearest cells. A held-out sample of faces decides how many cells: as many as it needs to find the share `recall` of
its true neighbours. Faces are processed in the order of their cells, so that the lists stay in the processor's cache.

A matrix product rounds differently on one thread and on two. So the threads share out fixed blocks of faces, one thread
computes each block, and the answer is the same to the last bit for any number of threads.
FAISS is imported inside functions: if a process uses torch too, torch must come first (each brings an OpenMP runtime).
Letters: N faces, Q queries, C cells, D embedding width, k neighbours.
Source: Johnson et al. 2019 (FAISS); Jegou et al. 2011 (inverted lists).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from facenet.errors import ConfigError, DataError
from facenet.types import Neighbours
from facenet.vectors import finite_rows

EXACT_TO = 50_000
BLOCK = 2048  # queries that a thread searches at a time
POINTS, ROUNDS = 40, 10  # k-means: faces for each cell, rounds
RECALL = 0.8  # share of the true neighbours that a search by cells finds
HELD = 128  # faces that decide how many cells are searched
LEAST_CELLS = 8  # that are searched

Search = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]  # queries (Q, D) -> sq_dist and rows (Q, k)


def knn_graph(
    vectors: np.ndarray,
    k: int,
    *,
    exact_to: int = EXACT_TO,
    recall: float = RECALL,
    threads: int | None = None,
    seed: int = 0,
    block: int = BLOCK,
    least_cells: int = LEAST_CELLS,
) -> Neighbours:
    """Find for each of N vectors its k nearest others by squared L2, nearest first; rows (N, k), sq_dist (N, k).

    A face is not its own neighbour; its exact duplicates are its neighbours. If fewer than k others are found, the
    rest is row -1 and sq_dist inf. Up to `exact_to` faces the answer is exact. Above, distances are to vectors rounded
    to 16 bits, and a sample of the faces finds at least about the share `recall` of its true neighbours. The answer
    depends on the seed and `block`, not on `threads`. Memory: 12 k N bytes for the answer, 2 D N bytes above
    `exact_to`, and the blocks.

    Raises:
        DataError: no vectors, NaN among them, or k < 1.
        ConfigError: `threads` < 1.
    """
    vectors = _checked(vectors, k)
    count = len(vectors)
    most, others = min(k + 1, count), min(k, count - 1)
    if count <= exact_to:
        order, search = np.arange(count), _brute(vectors, most)
    else:
        index, cells = _inverted_lists(vectors, threads, seed)
        index.nprobe = cells_needed(index, vectors, most, recall, threads, seed, least_cells)
        order, search = np.argsort(cells, kind="stable"), lambda asking: index.search(asking, most)
    found = _empty(count, k)

    def ask(start: int) -> None:
        asking = order[start : start + block]
        sq_dist, rows = search(vectors[asking])
        kept = rows != asking[:, None]
        kept[kept.all(1), -1] = False  # duplicates filled all k + 1 places: the farthest is left out
        found.rows[asking, :others] = rows[kept].reshape(len(asking), others)
        found.sq_dist[asking, :others] = sq_dist[kept].reshape(len(asking), others)

    _share_out(ask, count, threads, block)
    found.sq_dist[found.rows < 0] = np.inf
    return found


def knn_search(vectors: np.ndarray, queries: np.ndarray, k: int, *, threads: int | None = None) -> Neighbours:
    """Find the k nearest of N vectors (N, D) for Q queries (Q, D), exactly; rows (Q, k), sq_dist (Q, k).

    If k > N, the last places hold row -1 and sq_dist inf. The vectors are not copied.

    Raises:
        DataError: no vectors, NaN among them or the queries, another width, or k < 1.
    """
    vectors, queries = _checked(vectors, k), _checked(queries, k)
    if vectors.shape[1] != queries.shape[1]:
        raise DataError(f"neighbours: queries of width {queries.shape[1]} for vectors of width {vectors.shape[1]}")
    found, most = _empty(len(queries), k), min(k, len(vectors))
    search = _brute(vectors, most)

    def ask(start: int) -> None:
        part = slice(start, start + BLOCK)
        found.sq_dist[part, :most], found.rows[part, :most] = search(queries[part])

    _share_out(ask, len(queries), threads)
    return found


def _checked(vectors: np.ndarray, k: int) -> np.ndarray:
    if k < 1:
        raise DataError(f"neighbours: expected k >= 1, got {k}")
    return finite_rows(vectors, "neighbours")


def _empty(count: int, k: int) -> Neighbours:
    return Neighbours(np.full((count, k), -1, np.int64), np.full((count, k), np.inf, np.float32))


def _share_out(ask: Callable[[int], None], count: int, threads: int | None, block: int = BLOCK) -> None:
    """Call `ask` with the start of each block, in `threads` threads (None: as FAISS) of one OpenMP thread each."""
    import faiss

    workers = faiss.omp_get_max_threads() if threads is None else threads
    if workers < 1:
        raise ConfigError(f"threads: expected at least 1, got {threads}")
    # this sets the threads of the calling worker only
    with ThreadPoolExecutor(workers, initializer=lambda: faiss.omp_set_num_threads(1)) as pool:
        for _ in pool.map(ask, range(0, count, block)):
            pass


def _brute(vectors: np.ndarray, k: int) -> Search:
    import faiss

    def search(queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        sq_dist, rows = faiss.knn(queries, vectors, k)
        return np.maximum(sq_dist, 0, out=sq_dist), rows

    return search


def cells_for(count: int) -> int:
    """Return the number of cells for N faces: about 4 sqrt(N) as a power of two, and 40 faces in each or more."""
    return 1 << min(round(math.log2(4 * math.sqrt(count))), int(math.log2(max(1, count // POINTS))))


def _inverted_lists(vectors: np.ndarray, threads: int | None, seed: int) -> tuple[Any, np.ndarray]:
    """Return the inverted lists of the vectors, and the cell of each (N,)."""
    import faiss

    count, dim = vectors.shape
    centroids = _centroids(vectors, cells_for(count), threads, seed)
    coarse = faiss.IndexFlatL2(dim)
    coarse.add(centroids)
    index = faiss.IndexIVFScalarQuantizer(coarse, dim, len(centroids), faiss.ScalarQuantizer.QT_fp16)
    index.train(vectors[:1])  # the centroids are given: this call only marks the index as trained
    cell = knn_search(centroids, vectors, 1, threads=threads).rows[:, 0]
    rows = np.arange(count)
    for start in range(0, count, 8 * BLOCK):
        parts = [np.ascontiguousarray(array[start : start + 8 * BLOCK]) for array in (vectors, rows, cell)]
        index.add_core(len(parts[0]), *(faiss.swig_ptr(part) for part in parts))
    return index, cell


def _centroids(vectors: np.ndarray, cells: int, threads: int | None, seed: int) -> np.ndarray:
    """Return the centroids (C, D) of k-means on a sample of the vectors; an empty cell restarts at a random face.

    FAISS's own k-means is not used: its sums depend on the number of threads, and the last bits of centroids with them.
    """
    rng = np.random.default_rng(seed)
    sample = vectors[np.sort(rng.choice(len(vectors), min(len(vectors), POINTS * cells), replace=False))]
    centroids = sample[np.sort(rng.choice(len(sample), cells, replace=False))]
    for _ in range(ROUNDS):
        cell = knn_search(centroids, sample, 1, threads=threads).rows[:, 0]
        order, sizes = np.argsort(cell, kind="stable"), np.bincount(cell, minlength=cells)
        full = np.flatnonzero(sizes)
        starts = (np.cumsum(sizes) - sizes)[full]
        centroids = sample[rng.choice(len(sample), cells, replace=False)]
        centroids[full] = np.add.reduceat(sample[order], starts) / sizes[full, None]
    return centroids


def cells_needed(
    index: Any, vectors: np.ndarray, k: int, recall: float, threads: int | None, seed: int, least: int = LEAST_CELLS
) -> int:
    """Return the number of cells, a power of two times `least`, in which held-out faces find `recall` of their k."""
    held = vectors[np.random.default_rng(seed + 1).choice(len(vectors), min(HELD, len(vectors)), replace=False)]
    wanted, cells = knn_search(vectors, held, k, threads=threads).rows, min(least, index.nlist)
    found: list[np.ndarray] = []
    while cells < index.nlist:
        index.nprobe = cells
        _share_out(lambda _: found.append(index.search(held, k)[1]), 1, 1)
        if np.mean([np.isin(one, other).mean() for one, other in zip(wanted, found[-1], strict=True)]) >= recall:
            break
        cells *= 2
    return int(cells)
