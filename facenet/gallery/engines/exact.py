"""Exact distances of candidates: computed in float32 from the stored vectors, by one formula in every engine.

Letters: Q queries, k neighbours, m candidates, D embedding width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from facenet.gallery.items import Block
from facenet.types import Neighbours

Stored = Callable[[np.ndarray], np.ndarray]  # vectors (n, D) of item numbers (n,)
BLOCK = 8192  # vectors fetched at once
SLACK = 1e-4  # sq_dist by which an index and the formula may differ on unit vectors


def distances(query: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Return the sq_dist (m,) of a query (D,) to vectors (m, D); the same for a pair, whatever else is compared."""
    if not len(vectors):
        return np.empty(0, np.float32)
    difference = vectors - query
    return np.einsum("md,md->m", difference, difference)


def rescored(queries: np.ndarray, rows: np.ndarray, stored: Stored) -> Neighbours:
    """Return candidates (Q, m) in the order of their exact sq_dist; rows of -1 are absent places, and come last."""
    numbers, place = np.unique(rows, return_inverse=True)
    there = numbers >= 0
    vectors = np.zeros((len(numbers), queries.shape[1]), np.float32)
    if there.any():
        vectors[there] = stored(numbers[there])
    sq_dist = np.empty(rows.shape, np.float32)
    for i, (query, at) in enumerate(zip(queries, place.reshape(rows.shape), strict=True)):
        sq_dist[i] = distances(query, vectors[at])
    sq_dist[rows < 0] = np.inf
    order = np.argsort(sq_dist, axis=1, kind="stable")
    return Neighbours(np.take_along_axis(rows, order, 1), np.take_along_axis(sq_dist, order, 1))


def ranked(queries: np.ndarray, found: Sequence[Block], k: int) -> Neighbours:
    """Return the k nearest (Q, k) of each query's candidates, numbers (m,) and vectors (m, D)."""
    answers = absent(len(queries), k)
    for place, (numbers, vectors) in enumerate(found):
        sq_dist = distances(queries[place], vectors)
        order = np.argsort(sq_dist, kind="stable")[:k]
        answers.rows[place, : len(order)] = numbers[order]
        answers.sq_dist[place, : len(order)] = sq_dist[order]
    return answers


def joined(blocks: Sequence[Block], dim: int) -> Block:
    """Return several blocks as one."""
    numbers = np.concatenate([np.empty(0, np.int64), *(block[0] for block in blocks)])
    return numbers, np.concatenate([np.empty((0, dim), np.float32), *(block[1].reshape(-1, dim) for block in blocks)])


def inside(query: np.ndarray, blocks: Iterable[Block], max_sq_dist: float) -> Neighbours:
    """Return the candidates of a query (D,) that are within a radius, nearest first; memory holds one of the blocks."""
    rows, sq_dists = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
    for numbers, vectors in blocks:
        sq_dist = distances(query, vectors)
        there = sq_dist <= np.float32(max_sq_dist)
        rows.append(numbers[there])
        sq_dists.append(sq_dist[there])
    found, sq_dist = np.concatenate(rows), np.concatenate(sq_dists)
    order = np.argsort(sq_dist, kind="stable")
    return Neighbours(found[order], sq_dist[order])


def fetched(rows: np.ndarray, stored: Stored) -> Iterator[Block]:
    """Yield numbers (n,) of `rows` (m,) with their vectors (n, D), block by block."""
    for start in range(0, len(rows), BLOCK):
        part = rows[start : start + BLOCK]
        yield part, stored(part)


def absent(count: int, k: int) -> Neighbours:
    """Return no neighbours, for `count` queries with k places each."""
    return Neighbours(np.full((count, k), -1, np.int64), np.full((count, k), np.inf, np.float32))
