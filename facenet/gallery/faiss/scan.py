"""Exact answers from a stream of vectors, with one block of it in memory.

Letters: N items of the stream, n of a block, Q queries, k neighbours, D embedding width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from facenet.gallery.items import Block
from facenet.types import Neighbours

BLOCK = 65_536  # rows compared at once
Blocks = Callable[[], Iterable[Block]]  # a stream of all items, the same each time


def nearest(blocks: Iterable[Block], queries: np.ndarray, k: int) -> Neighbours:
    """Return item numbers and sq_dist (Q, k) of the k nearest of a stream; absent places hold -1 and inf."""
    import faiss

    best = np.full((len(queries), k), np.inf, np.float32)
    who = np.full((len(queries), k), -1, np.int64)
    for numbers, vectors in gathered(blocks, BLOCK):
        sq_dist, rows = faiss.knn(queries, vectors, min(k, len(vectors)))
        both = np.concatenate([best, np.maximum(sq_dist, 0)], 1)
        order = np.argsort(both, 1, kind="stable")[:, :k]
        best = np.take_along_axis(both, order, 1)
        who = np.take_along_axis(np.concatenate([who, numbers[rows]], 1), order, 1)
    return Neighbours(who, best)


def within(blocks: Iterable[Block], queries: np.ndarray, max_sq_dist: float) -> list[Neighbours]:
    """Return for each of Q queries all items of a stream with sq_dist <= max_sq_dist, nearest first: (m,) arrays."""
    import faiss

    found: list[list[Block]] = [[] for _ in queries]
    for numbers, vectors in gathered(blocks, BLOCK):
        index = faiss.IndexFlatL2(vectors.shape[1])
        index.add(vectors)
        for parts, (rows, sq_dist) in zip(found, ranged(index, queries, max_sq_dist), strict=True):
            parts.append((numbers[rows], sq_dist))
    return [by_distance(parts) for parts in found]


def ranged(index: object, queries: np.ndarray, max_sq_dist: float) -> list[Block]:
    """Return rows (m,) and sq_dist (m,) of an exact FAISS index within a radius, for each of Q queries."""
    radius = float(np.nextafter(np.float32(max_sq_dist), np.float32(np.inf)))  # FAISS takes < radius
    limits, sq_dist, rows = index.range_search(queries, radius)  # type: ignore[attr-defined]
    ends = zip(limits[:-1].tolist(), limits[1:].tolist(), strict=True)
    return [(rows[start:end], np.maximum(sq_dist[start:end], 0)) for start, end in ends]


def by_distance(parts: Sequence[Block]) -> Neighbours:
    """Join numbers and sq_dist of several answers to one, nearest first."""
    rows = np.concatenate([np.empty(0, np.int64), *(part[0] for part in parts)])
    sq_dist = np.concatenate([np.empty(0, np.float32), *(part[1] for part in parts)])
    order = np.argsort(sq_dist, kind="stable")
    return Neighbours(rows[order], sq_dist[order])


def without(blocks: Blocks, numbers: np.ndarray | Sequence[int]) -> Blocks:
    """Return the same stream without some of its items."""

    def others() -> Iterator[Block]:
        for block, vectors in blocks():
            kept = ~np.isin(block, numbers)
            yield block[kept], vectors[kept]

    return others


def sampled(blocks: Iterable[Block], rows: np.ndarray, dim: int) -> Block:
    """Return numbers (S,) and vectors (S, D) at the sorted places `rows` (S,) of a stream."""
    numbers, vectors, start, done = np.empty(len(rows), np.int64), np.empty((len(rows), dim), np.float32), 0, 0
    for block_numbers, block in blocks:
        end = done + int(np.searchsorted(rows[done:], start + len(block)))
        numbers[done:end], vectors[done:end] = block_numbers[rows[done:end] - start], block[rows[done:end] - start]
        start, done = start + len(block), end
    return numbers[:done], vectors[:done]


def chosen_of(blocks: Iterable[Block], numbers: np.ndarray, dim: int) -> Block:
    """Return those items of a stream whose numbers are given, in the order of the stream."""
    parts = [(block[there], vectors[there]) for block, vectors in blocks if (there := np.isin(block, numbers)).any()]
    return _joined(parts) if parts else (np.empty(0, np.int64), np.empty((0, dim), np.float32))


def gathered(blocks: Iterable[Block], size: int) -> Iterator[Block]:
    """Yield blocks of `size` items or a little more, and none without items."""
    held: list[Block] = []
    for block in blocks:
        held.append(block)
        if sum(len(numbers) for numbers, _ in held) >= size:
            yield _joined(held)
            held = []
    if any(len(numbers) for numbers, _ in held):
        yield _joined(held)


def _joined(held: Sequence[Block]) -> Block:
    return np.concatenate([numbers for numbers, _ in held]), np.concatenate([vectors for _, vectors in held])
