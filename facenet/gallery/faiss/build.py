"""Build an index from a stream of vectors, and tune it until a measured recall reaches the target.

Tuning chooses the search parameter (nprobe, efSearch), and how many candidates are scored again on the stored vectors.
The tuner takes 2,000 of the gallery's faces as queries and compares the index with an exact search. No query may find
itself. A graph links a face's neighbours through the face: it is filled without the queries and takes them in at the
end.

Letters: N items, D embedding width, S sampled queries, k neighbours.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from facenet.errors import ConfigError
from facenet.gallery.faiss.kinds import (
    LIMITS,
    Built,
    Limits,
    Recipe,
    inverted,
    is_graph,
    new_index,
    parameters,
    use_parameter,
)

POINTS = 40  # training vectors for each centroid
ROUNDS = 10  # of k-means
QUERIES, DEPTH = 2000, 10  # faces that recall is measured on, and its second rank
FETCH = (1, 2, 4, 8, 16)  # candidates for each answer that may be scored again
CONFIDENCE = 1.645  # one-sided 95 %: the sample's recall must be this sure to reach the target
BLOCK = 65_536  # rows scored at once for the exact answers
Block = tuple[np.ndarray, np.ndarray]  # item numbers (n,) and vectors (n, D)
Blocks = Callable[[], Iterable[Block]]  # a stream of all items, the same each time
log = logging.getLogger(__name__)


def build(blocks: Blocks, count: int, dim: int, recipe: Recipe, *, limits: Limits = LIMITS, seed: int = 0) -> Built:
    """Train, fill and tune an index of `count` vectors; the same blocks and seed give the same centroids.

    Raises:
        ConfigError: a factory string that does not work for these vectors.
    """
    factory = recipe.string(count, dim, limits)
    index = new_index(dim, factory)
    if not index.is_trained:
        _train(index, factory, blocks, count, dim, limits.trained, seed)
    if factory == "Flat":
        for numbers, vectors in blocks():
            index.add_with_ids(vectors, numbers)
        return Built(index, factory, count)
    held_back = is_graph(index) and count > 3
    most = min(QUERIES, count // 2 if held_back else count)
    own, queries = sampled(blocks, np.sort(np.random.default_rng(seed + 1).choice(count, most, False)), dim)
    fill = _without_items(blocks, own) if held_back else blocks
    for numbers, vectors in fill():
        index.add_with_ids(vectors, numbers)
    built = Built(index, factory, count)
    if index.ntotal > 1:
        _tune(built, fill, own, queries, recipe.recall_target)
    if held_back:
        index.add_with_ids(queries, own)
    return built


def _without_items(blocks: Blocks, numbers: np.ndarray) -> Blocks:
    """Return the same stream without some of its items."""

    def others() -> Iterator[Block]:
        for block, vectors in blocks():
            kept = ~np.isin(block, numbers)
            yield block[kept], vectors[kept]

    return others


def _train(index: Any, factory: str, blocks: Blocks, count: int, dim: int, least: int, seed: int) -> None:
    ivf = inverted(index)
    most = count
    if ivf:
        ivf.cp.niter, ivf.cp.max_points_per_centroid, ivf.cp.seed = ROUNDS, POINTS, seed + 1
        ivf.cp.min_points_per_centroid = 1  # no warning of few points: the recall that they give is measured
        most = max(POINTS * ivf.nlist, least)
    rows = np.sort(np.random.default_rng(seed).choice(count, min(most, count, 2_000_000), replace=False))
    sample = sampled(blocks, rows, dim)[1]
    try:
        index.train(sample)
    except RuntimeError as error:
        why = str(error).strip().splitlines()[-1][-120:]
        raise ConfigError(f"factory: {factory!r} can not be trained on {len(sample)} vectors ({why})") from error


def sampled(blocks: Blocks, rows: np.ndarray, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Return numbers (S,) and vectors (S, D) at the sorted places `rows` (S,) of a stream."""
    numbers, vectors, start, done = np.empty(len(rows), np.int64), np.empty((len(rows), dim), np.float32), 0, 0
    for block_numbers, block in blocks():
        end = done + int(np.searchsorted(rows[done:], start + len(block)))
        numbers[done:end], vectors[done:end] = block_numbers[rows[done:end] - start], block[rows[done:end] - start]
        start, done = start + len(block), end
    return numbers, vectors


def exact(blocks: Blocks, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return numbers and sq_dist (S, k) of the k nearest of a stream, exactly, with one block in memory."""
    import faiss

    best = np.full((len(queries), k), np.inf, np.float32)
    who = np.full((len(queries), k), -1, np.int64)
    for numbers, vectors in _gathered(blocks(), BLOCK):
        sq_dist, rows = faiss.knn(queries, vectors, min(k, len(vectors)))
        both = np.concatenate([best, np.maximum(sq_dist, 0)], 1)
        order = np.argsort(both, 1, kind="stable")[:, :k]
        best, who = (
            np.take_along_axis(both, order, 1),
            np.take_along_axis(np.concatenate([who, numbers[rows]], 1), order, 1),
        )
    return who, best


def _gathered(blocks: Iterable[Block], size: int) -> Iterator[Block]:
    """Yield blocks of `size` items or a little more."""
    held: list[Block] = []
    for block in blocks:
        held.append(block)
        if sum(len(numbers) for numbers, _ in held) >= size:
            yield _joined(held)
            held = []
    if held:
        yield _joined(held)


def _joined(held: Sequence[Block]) -> Block:
    return np.concatenate([numbers for numbers, _ in held]), np.concatenate([vectors for _, vectors in held])


def _tune(built: Built, blocks: Blocks, own: np.ndarray, queries: np.ndarray, target: float) -> None:
    """Set parameter, fetch, error and recall of an index of `blocks`; the S queries do not find themselves."""
    count = built.faiss.ntotal
    depth = max(1, min(DEPTH, count - 1))
    truth, distances = _without(own, *exact(blocks, queries, depth + 1))
    tried: dict[str, np.ndarray] = {}  # parameter -> numbers of the candidates (S, depth x most fetched)
    enough = 0  # settings tried since the most candidates would have reached the target
    for parameter in parameters(built.faiss):
        use_parameter(built.faiss, parameter)
        sq_dist, found = built.faiss.search(queries, min(FETCH[-1] * depth + 1, count))
        tried[parameter], approximate = _without(own, found, sq_dist)
        built.error = max(built.error, _error(truth, distances, tried[parameter], approximate))
        enough += _surely(truth, tried[parameter], FETCH[-1]) >= target
        if enough > 2 or _surely(truth, tried[parameter], 1) >= target:
            break
    built.parameter, built.fetch = _cheapest(tried, truth, target)
    use_parameter(built.faiss, built.parameter)
    chosen = tried[built.parameter]
    built.recall = {f"at_{k}": _recall(truth, chosen, k, built.fetch) for k in sorted({1, depth})}
    built.recall |= {"target": target, "queries": len(own)}
    if built.recall["at_1"] < target:
        found = (built.factory, built.recall["at_1"], target)
        log.warning("%s: finds %.4f of the nearest faces, %.4f was wanted; choose another kind", *found)


def _cheapest(tried: dict[str, np.ndarray], truth: np.ndarray, target: float) -> tuple[str, int]:
    """Return the setting with least fetch, then least work, that surely reaches the target; else the best one."""
    for fetch in FETCH:
        for parameter, candidates in tried.items():
            if _surely(truth, candidates, fetch) >= target:
                return parameter, fetch
    return max(reversed(tried), key=lambda parameter: _recall(truth, tried[parameter], 1, FETCH[-1])), FETCH[-1]


def _recall(truth: np.ndarray, candidates: np.ndarray, k: int, fetch: int) -> float:
    """Return the share of the k nearest (S, k) among the first k x fetch candidates, which are then scored exactly."""
    return float((truth[:, :k, None] == candidates[:, None, : k * fetch]).any(2).mean())


def _surely(truth: np.ndarray, candidates: np.ndarray, fetch: int) -> float:
    """Return the lower end of the one-sided 95 % interval (Wilson 1927) of the recall of the nearest."""
    share, n, z = _recall(truth, candidates, 1, fetch), len(truth), CONFIDENCE
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return (share + z * z / (2 * n) - spread) / (1 + z * z / n)


def _error(truth: np.ndarray, distances: np.ndarray, candidates: np.ndarray, approximate: np.ndarray) -> float:
    """Return the largest difference between an index's sq_dist and the exact one, over the neighbours it found."""
    equal = truth[:, :, None] == candidates[:, None, :]
    difference = np.abs(np.take_along_axis(approximate, equal.argmax(2), 1) - distances)[equal.any(2)]
    return float(difference.max(initial=0.0))


def _without(own: np.ndarray, who: np.ndarray, sq_dist: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Drop from each row of answers (S, k) the query itself, or the last if it is not there: (S, k - 1)."""
    order = np.argsort(who == own[:, None], axis=1, kind="stable")[:, :-1]
    return np.take_along_axis(who, order, 1), np.take_along_axis(sq_dist, order, 1)
