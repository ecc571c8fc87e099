"""Distances like those of LFW, and verification by loops over every threshold."""

from __future__ import annotations

import numpy as np


def lfw_like(seed: int = 0, ties: bool = False, dtype: type = np.float64) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """10 folds of 300 + 300 pairs; with ties the distances lie on multiples of 1/16."""
    rng = np.random.default_rng(seed)
    same = np.tile(np.repeat([True, False], 300), 10)
    distances = np.where(same, rng.normal(1.0, 0.3, 6000), rng.normal(1.7, 0.3, 6000)).clip(0, 4)
    return (np.round(distances * 16) / 16 if ties else distances).astype(dtype), same, np.repeat(np.arange(10), 600)


def accuracies_by_loops(distances: np.ndarray, same: np.ndarray) -> dict[float, float]:
    """Accuracy on every distinct way of cutting: below all distances, and at each of them."""
    return {float(t): float(np.mean((distances <= t) == same)) for t in [-1.0, *np.unique(distances)]}


def at_far_by_loops(distances: np.ndarray, same: np.ndarray, far: float) -> tuple[float, int] | None:
    """(VAL, accepted pairs) at the largest cut with FAR <= far; None where one false accept is too many."""
    if far * int((~same).sum()) < 1 - 1e-9:
        return None
    best = (0.0, 0)
    for t in np.unique(distances):
        accepted = distances <= t
        if np.sum(accepted & ~same) / np.sum(~same) <= far:
            best = float(np.sum(accepted & same) / np.sum(same)), int(accepted.sum())
    return best


def eer_by_loops(distances: np.ndarray, same: np.ndarray) -> float:
    points = [
        (np.sum((distances <= t) & ~same) / np.sum(~same), np.sum((distances > t) & same) / np.sum(same))
        for t in [-1.0, *np.unique(distances)]
    ]
    far, frr = min(points, key=lambda point: abs(point[0] - point[1]))  # the first of the least
    return float(far + frr) / 2


def unit(count: int, dim: int, labels: np.ndarray, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(labels.max() + 1, dim))[labels] + rng.normal(size=(count, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
