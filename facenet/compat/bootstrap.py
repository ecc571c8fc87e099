"""Paired bootstrap: how sure is it that a cell is better than (old, old)?

Pairs are drawn again with replacement for accuracy and VAL at FAR, people with all their probes for rank-1 and mAP.
Every cell gets the same draw, and the difference of the cells is taken in each draw. Same and different pairs are drawn
apart. Thresholds of the accuracy stay those of the folds; those of VAL at FAR follow the draw.
Letters: R draws, P pairs, C scores of a pair, Q probes.
Source: Efron and Tibshirani 1993, chapter 13 (percentile intervals).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from facenet.compat.cells import Cell
from facenet.compat.matching import SharedPairs
from facenet.errors import ConfigError
from facenet.evaluation.roc import allowed_accepts, far_name

COMPARED = ("new_old", "new_new")  # with old_old
FARS = (1e-1, 1e-2)  # rates at which VAL gets an interval; at smaller ones few pairs decide
BLOCK = 1 << 22  # weights held at a time
LOW, HIGH = 2.5, 97.5


def intervals(
    cells: Mapping[str, Cell],
    pairs: SharedPairs,
    people: Sequence[str] | None,
    *,
    draws: int = 1000,
    seed: int = 0,
    block: int = BLOCK,
) -> dict[str, dict[str, dict[str, float]]]:
    """Return {metric: {cell: difference to (old, old), and low and high of its 95 % percentile interval}}.

    Metrics are accuracy, val_1e-1 and val_1e-2 if the pairs resolve them, and rank1 and map if `people` holds the
    identities of the Q probes. The same arguments give the same numbers. `block` limits the weights held at a time.

    Raises:
        ConfigError: `draws` < 2.
    """
    if draws < 2:
        raise ConfigError(f"draws: expected at least 2, got {draws}")
    rng = np.random.default_rng([seed, 23])
    found = {name: cells[name] for name in ("old_old", *COMPARED)}
    drawn = _of_pairs(found, pairs, draws, rng, block)
    if people is not None:
        drawn |= _of_people(found, np.asarray(people, str), draws, rng)
    measures = {name: cell.measures() for name, cell in found.items()}
    return {
        metric: {name: _interval(metric, name, values, measures) for name in COMPARED}
        for metric, values in drawn.items()
    }


def _interval(
    metric: str, name: str, values: Mapping[str, np.ndarray], measures: Mapping[str, Any]
) -> dict[str, float]:
    low, high = np.percentile(values[name] - values["old_old"], (LOW, HIGH))
    difference = measures[name][metric] - measures["old_old"][metric]
    return {"difference": float(difference), "low": float(low), "high": float(high)}


def _of_pairs(
    cells: Mapping[str, Cell], pairs: SharedPairs, draws: int, rng: np.random.Generator, block: int
) -> dict[str, dict[str, np.ndarray]]:
    negatives = int((~pairs.same).sum())
    fars = [far for far in FARS if allowed_accepts(far, negatives)]
    parts: dict[str, dict[str, list[np.ndarray]]] = {}
    for weights in resampled(pairs.same, draws, rng, block):
        for name, cell in cells.items():
            parts.setdefault("accuracy", {}).setdefault(name, []).append(accuracies(weights, cell.right, pairs.fold))
            for far in fars:
                values = vals_at_far(weights, cell.sq_dist, pairs.same, far)
                parts.setdefault(f"val_{far_name(far)}", {}).setdefault(name, []).append(values)
    return {metric: {name: np.concatenate(some) for name, some in row.items()} for metric, row in parts.items()}


def resample(strata: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Return how often each of P elements is drawn in each of R draws, (R, P) float32; a stratum keeps its size."""
    weights = np.zeros((draws, len(strata)), np.float32)
    for stratum in np.unique(strata):
        rows = np.flatnonzero(strata == stratum)
        picked = rng.integers(0, len(rows), (draws, len(rows))) + np.arange(draws)[:, None] * len(rows)
        weights[:, rows] = np.bincount(picked.ravel(), minlength=draws * len(rows)).reshape(draws, -1)
    return weights


def resampled(strata: np.ndarray, draws: int, rng: np.random.Generator, block: int = BLOCK) -> Iterator[np.ndarray]:
    """Yield the weights of :func:`resample`, some draws at a time; memory holds `block` of them."""
    step = max(1, block // len(strata))
    for start in range(0, draws, step):
        yield resample(strata, min(step, draws - start), rng)


def accuracies(weights: np.ndarray, right: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Return the accuracy in each draw (R,): the share of right scores (P, C), averaged over the folds in the draw."""
    hot = (fold[:, None] == np.unique(fold)).astype(np.float32)  # (P, folds)
    hits, count = weights @ (hot * right.mean(1, dtype=np.float32)[:, None]), weights @ hot  # (R, folds)
    shares = np.divide(hits, count, out=np.zeros_like(hits), where=count > 0)
    return np.asarray(shares.sum(1, dtype=np.float64) / (count > 0).sum(1))


def aucs(weights: np.ndarray, sq_dist: np.ndarray, same: np.ndarray) -> np.ndarray:
    """Return the AUC in each draw (R,): how often a pair of one person is nearer than one of two, pairs repeated.

    Equal distances (P,) count half.
    """
    near, far = (np.sort(sq_dist[same == label]) for label in (True, False))
    sides = [weights[:, np.flatnonzero(same == label)[np.argsort(sq_dist[same == label])]] for label in (True, False)]
    before = np.concatenate([np.zeros((len(weights), 1)), np.cumsum(sides[0], axis=1, dtype=np.float64)], axis=1)
    nearer = (before[:, np.searchsorted(near, far, "left")] + before[:, np.searchsorted(near, far, "right")]) / 2
    return np.asarray((nearer * sides[1]).sum(1) / (sides[0].sum(1, dtype=np.float64) * sides[1].sum(1)))


def vals_at_far(weights: np.ndarray, sq_dist: np.ndarray, same: np.ndarray, far: float) -> np.ndarray:
    """Return VAL at FAR in each draw (R,): :func:`facenet.evaluation.roc.at_far` of scores (P, C), pairs repeated."""
    sides = sq_dist.shape[1]
    order, distances, counts = {}, {}, {}
    for label in (True, False):
        flat = sq_dist[same == label].ravel()
        order[label] = np.argsort(flat, kind="stable")
        distances[label] = flat[order[label]]
        counts[label] = np.cumsum(weights[:, np.flatnonzero(same == label)[order[label] // sides]], axis=1)  # (R, M)
    negatives, positives = len(distances[False]), len(distances[True])
    allowed = allowed_accepts(far, negatives)
    if allowed == negatives:
        return np.ones(len(weights))
    limit = distances[False][np.argmax(counts[False] > allowed, axis=1)]  # the nearest score to be rejected
    accepted = np.searchsorted(distances[True], limit, side="left")
    hits = np.where(accepted > 0, counts[True][np.arange(len(weights)), np.maximum(accepted, 1) - 1], 0)
    return np.asarray(hits / positives, np.float64)


def _of_people(
    cells: Mapping[str, Cell], people: np.ndarray, draws: int, rng: np.random.Generator
) -> dict[str, dict[str, np.ndarray]]:
    names, code = np.unique(people, return_inverse=True)
    weights = resample(np.zeros(len(names), bool), draws, rng).astype(np.float64)
    probes = weights @ np.bincount(code)
    found: dict[str, dict[str, np.ndarray]] = {"rank1": {}, "map": {}}
    for name, answers in ((name, cell.answers) for name, cell in cells.items() if cell.answers is not None):
        for metric, values in (("rank1", answers.rank == 1), ("map", answers.precision)):
            found[metric][name] = weights @ np.bincount(code, values) / probes
    return found
