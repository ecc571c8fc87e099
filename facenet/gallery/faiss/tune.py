"""Tune an index until its recall on queries that it does not hold surely reaches a target, and state that recall.

Up to 2,000 items lie beside the index, in an exact layer, for good. They are its queries: they behave as new faces, and
the index that is measured is the index in use. A query whose near copy is in the index is easy, so the recall of fresh
queries and of copies is measured apart. For a part of the queries all near copies lie beside the index too.
Strangers lie farther from everything and are found less well. Their recall is measured with vectors drawn from a normal
distribution of the queries' mean and covariance; the target does not hold for them.

Letters: N items of the gallery, S items beside the index, C candidates, W true neighbours, k neighbours, D embedding
width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from facenet.gallery.faiss.kinds import Built, parameters, use_parameter
from facenet.gallery.faiss.scan import Blocks, nearest
from facenet.gallery.items import Block
from facenet.vectors import normalise

QUERIES, DEPTH = 2000, 10  # items beside the index, and the second rank at which recall is measured
SEEDS = 3  # one of so many queries lies beside the index with all its near copies
NEAR_COPY, COPIES = 0.1, 16  # sq_dist up to which a face is a near copy, and how many are looked for
FEW = 30  # queries that are too few to state a recall
FETCH = (1, 2, 4, 8, 16)  # candidates for each answer that may be scored again
COARSE = 0.02  # error of an index whose own sq_dist do not compare with exact ones: its candidates are scored again
CONFIDENCE = 1.645  # one-sided 95 %: the queries' recall must be this sure to reach the target
PRECISION = 0.01  # of the stated recall: half of that interval, for all items
TIE = 1e-6  # sq_dist up to which two items are equally near


class Queries(NamedTuple):
    """Queries with their true nearest items in the index."""

    vectors: np.ndarray  # (S, D)
    rows: np.ndarray  # (S, W)
    sq_dist: np.ndarray  # (S, W)

    def part(self, chosen: np.ndarray) -> Queries:
        """Return some of the queries."""
        return Queries(*(array[chosen] for array in self))


def wanted(count: int) -> int:
    """Return how many of N items lie beside the index."""
    return min(QUERIES, count // 2)


def enough(queries: int, target: float) -> bool:
    """Tell whether so many queries can be sure of a recall target, if they find everything."""
    return queries > 0 and interval(1.0, queries)[0] >= target


def tune(built: Built, blocks: Blocks, beside: Block, target: float, gone: np.ndarray, count: int) -> bool:
    """Set parameter, fetch, error and recall of an index; return whether it surely reaches the target.

    `blocks` are the items of the index, `beside` those that lie beside it, `gone` the numbers of the index that are no
    items any more, and `count` is N.
    """
    depth = max(1, min(DEPTH, int(built.faiss.ntotal) - len(gone)))
    queries = _answered(blocks, beside[1], depth)
    queries = queries.part(first_of_copies(beside[1]))
    share = len(beside[0]) / count
    fresh = queries.sq_dist[:, 0] > NEAR_COPY
    tried: dict[str, np.ndarray] = {}  # parameter -> sq_dist of the candidates that are true neighbours (S, C)
    extra = 0  # settings tried since the most candidates would have reached the target
    for parameter in parameters(built.faiss):
        use_parameter(built.faiss, parameter)
        tried[parameter], error = _candidates(built, queries, depth, gone)
        built.error = max(built.error, error)
        extra += _reached(queries, tried[parameter], fresh, FETCH[-1], target, share)
        if extra > 2 or _reached(queries, tried[parameter], fresh, 1, target, share):
            break
    choice = _cheapest(queries, tried, fresh, target, share, FETCH if built.error < COARSE else FETCH[1:])
    built.parameter, built.fetch = choice or (list(tried)[-1], FETCH[-1])
    use_parameter(built.faiss, built.parameter)
    strangers = _answered(blocks, _strangers(beside[1]), depth)
    told = fresh if fresh.sum() >= FEW else np.ones(len(fresh), bool)
    found = {
        "at_1": (queries.part(told), tried[built.parameter][told], 1),
        f"at_{depth}": (queries.part(told), tried[built.parameter][told], depth),
        "strangers_at_1": (strangers, _candidates(built, strangers, depth, gone)[0], 1),
    }
    built.recall = _stated(found, built.fetch, share)
    built.recall |= {"target": target, "queries": int(told.sum()), "faces": count}
    built.changed = 0
    return choice is not None


def _answered(blocks: Blocks, vectors: np.ndarray, depth: int) -> Queries:
    return Queries(vectors, *nearest(blocks(), vectors, depth + COPIES))


def _strangers(vectors: np.ndarray) -> np.ndarray:
    """Draw as many unit vectors (S, D) as are given, from a normal distribution of their mean and covariance."""
    weights = np.random.default_rng(2).standard_normal((len(vectors), len(vectors)), np.float32)
    mean = vectors.mean(0)
    return normalise(mean + weights @ (vectors - mean) / math.sqrt(len(vectors)))


def _candidates(built: Built, queries: Queries, depth: int, gone: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the exact sq_dist of what the index finds (S, C), and its own largest error.

    A candidate that is none of the W true neighbours has sq_dist inf.
    """
    most, missing = FETCH[-1] * depth, min(len(gone), FETCH[-1] * depth)
    told, found = built.faiss.search(queries.vectors, min(most + missing, int(built.faiss.ntotal)))
    if missing:
        order = np.argsort(np.isin(found, gone), 1, kind="stable")[:, :most]
        told, found = np.take_along_axis(told, order, 1), np.take_along_axis(found, order, 1)
    exact = np.full(found.shape, np.inf, np.float32)
    for row, sq_dist in zip(queries.rows.T, queries.sq_dist.T, strict=True):
        here = (found == row[:, None]) & (found >= 0)
        exact[here] = np.broadcast_to(sq_dist[:, None], found.shape)[here]
    difference = np.abs(told - exact)[np.isfinite(exact)]
    return exact, float(difference.max(initial=0.0))


def _recall(queries: Queries, candidates: np.ndarray, k: int, most: int) -> float:
    """Return the share of the k nearest among the first `most` candidates; items as near as the k-th count for it."""
    near = (candidates[:, :most] <= queries.sq_dist[:, k - 1 : k] + TIE) & np.isfinite(candidates[:, :most])
    return float(np.minimum(near.sum(1), k).mean() / k)


def first_of_copies(vectors: np.ndarray) -> np.ndarray:
    """Tell of each vector (S,) that it is no near copy of an earlier one: copies ask the same again."""
    found = nearest([(np.arange(len(vectors)), vectors)], vectors, min(COPIES, len(vectors)))
    earlier = (found.rows < np.arange(len(vectors))[:, None]) & (found.rows >= 0)
    return np.asarray(~np.any(earlier & (found.sq_dist <= NEAR_COPY), axis=1))


def _reached(
    queries: Queries, candidates: np.ndarray, fresh: np.ndarray, fetch: int, target: float, share: float
) -> bool:
    """Tell whether fresh queries surely find their nearest, and copies do, for the target.

    The recall over all items, of which a `share` lies beside the index, must also be known to `PRECISION`.
    """
    parts = [(queries.part(chosen), candidates[chosen]) for chosen in (fresh, ~fresh) if chosen.sum() >= FEW]
    parts = parts or [(queries, candidates)]
    shares = [_recall(*part, 1, fetch) for part in parts]
    low, high = interval(shares[0], len(parts[0][1]))
    return min(shares) >= target and low >= target and (1 - share) * (high - low) / 2 <= PRECISION


def interval(share: float, n: int) -> tuple[float, float]:
    """Return the ends of the 90 % interval of a share (Wilson 1927); each is one-sided 95 %."""
    z = CONFIDENCE
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    middle = share + z * z / (2 * n)
    return (middle - spread) / (1 + z * z / n), (middle + spread) / (1 + z * z / n)


def _cheapest(
    queries: Queries,
    tried: Mapping[str, np.ndarray],
    fresh: np.ndarray,
    target: float,
    share: float,
    fetches: Sequence[int],
) -> tuple[str, int] | None:
    """Return the setting with least fetch, then least work, that surely reaches the target; None without one."""
    for fetch in fetches:
        for parameter, candidates in tried.items():
            if _reached(queries, candidates, fresh, fetch, target, share):
                return parameter, fetch
    return None


def _stated(found: Mapping[str, tuple[Queries, np.ndarray, int]], fetch: int, beside: float) -> dict[str, float]:
    """Return the recall at k of each row of `found` over all N items.

    The share `beside` the index is always found. So the index holds only so many of the k nearest as the rest.
    """
    stated = {}
    for name, (queries, candidates, k) in found.items():
        inside = max(1, round((1 - beside) * k))
        stated[name] = beside + (1 - beside) * _recall(queries, candidates, inside, k * fetch)
    return stated
