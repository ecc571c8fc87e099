"""Verification: from the squared distances of labelled pairs to accuracy, ROC, EER, VAL at FAR and thresholds.

One sort of the distances gives every number exactly, ties included; see :mod:`.roc` for the definitions.
Source: Schroff et al. 2015, section 4 (VAL and FAR) and 5.6 (LFW: the threshold of a fold is chosen on the others).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from facenet.data.pairs import pair_rows
from facenet.errors import ConfigError, DataError, choose
from facenet.evaluation.roc import (
    FARS,
    MAX_SQ_DIST,
    Roc,
    at_far,
    auc_and_eer,
    both_classes,
    by_distance,
    checked,
    curve,
    cut,
    far_name,
    roc,
)
from facenet.types import EmbeddingSet, Pairs, image_key
from facenet.vectors import sq_dist as row_sq_dist

__all__ = [
    "FARS",
    "Roc",
    "ScoredPairs",
    "Verification",
    "best_threshold",
    "common_grid",
    "far_name",
    "roc",
    "score_at",
    "score_pairs",
    "verify_embeddings",
    "verify_pairs",
]
GRIDS = {"400": 0.01, "4000": 0.001}  # the grids in common use: how many thresholds, and their step


@dataclass(frozen=True)
class Verification:
    """What :func:`verify_pairs` measured; fractions in [0, 1], thresholds in squared L2."""

    accuracy: float  # mean over the folds
    sem: float  # standard error of that mean: std / sqrt(folds)
    std: float  # over the folds, ddof = 1
    fold_accuracies: tuple[float, ...]
    thresholds: tuple[float, ...]  # of each fold, chosen on the other folds
    threshold: float  # their mean
    auc: float
    eer: float
    val_at_far: dict[float, dict[str, Any]]  # far -> val, low, high, threshold, resolvable, negatives
    pairs: int
    same: int
    different: int
    skipped: int = 0  # pairs left out because an embedding was missing
    duplicated: int = 0  # scored pairs of two images that an earlier pair has too, in either order

    def metrics(self) -> dict[str, Any]:
        """Return plain nested numbers for ``metrics.json``; FARs are named ``1e-3``, see :func:`far_name`."""
        content = {name: getattr(self, name) for name in ("accuracy", "sem", "std", "auc", "eer")}
        content["val_at_far"] = {far_name(far): dict(row) for far, row in self.val_at_far.items()}
        content["folds"], content["thresholds"] = list(self.fold_accuracies), list(self.thresholds)
        counts = ("threshold", "pairs", "same", "different", "skipped", "duplicated")
        return content | {name: getattr(self, name) for name in counts}


class ScoredPairs(NamedTuple):
    """The pairs that have embeddings, with their distances, and how many were left out or named twice."""

    pairs: Pairs
    sq_dist: np.ndarray  # (P,) float32
    skipped: int
    duplicated: int


def check_scorable(pairs: Pairs) -> None:
    """Refuse, before anything is embedded, pairs that no cross-validation can score.

    Raises:
        DataError: as :func:`verify_pairs`.
    """
    verify_pairs(np.zeros(len(pairs)), pairs.same, pairs.fold)


def verify_pairs(
    sq_dist: np.ndarray,
    same: np.ndarray,
    folds: np.ndarray,
    *,
    fars: Sequence[float] = FARS,
    grid: np.ndarray | None = None,
) -> Verification:
    """Score P pairs by cross-validation over the folds; everything else is pooled over them.

    accuracy = mean_f acc_f(t_f), t_f = argmax_t of the accuracy on the pairs outside fold f. If several
    thresholds are best, the middle one is taken. `grid` restricts t_f to given thresholds (the common reference:
    :func:`common_grid`), of which the first best is taken.
    EER = (FAR + 1 - VAL) / 2 at the first ROC point where |FAR - (1 - VAL)| is least.
    VAL at FAR is the VAL at the largest threshold with FAR(d) <= far, with the 95 % Wilson interval of VAL at
    that threshold; if far |P_diff| < 1 it is not resolvable, and None.

    Args:
        sq_dist: squared distances (P,), in [0, 4] for unit vectors.
        same: whether a pair shows one person (P,), bool.
        folds: fold labels (P,), at least two distinct ones.
        fars: false accept rates in (0, 1].
        grid: thresholds (G,), optional.

    Raises:
        DataError: no pairs, other lengths, NaN, a single fold, or only one class (also outside a fold).
        ConfigError: a FAR outside (0, 1] or an empty grid.
    """
    distances, labels = checked(sq_dist, same)
    folds = np.asarray(folds)
    if folds.shape != labels.shape:
        raise DataError(f"verify: expected one fold for each of {len(labels)} pairs, got shape {folds.shape}")
    order = np.argsort(distances, kind="stable")
    distances, labels = distances[order], labels[order]
    accuracies, thresholds = _cross_validate(distances, labels, folds[order], grid)
    auc, eer = auc_and_eer(curve(distances, labels))
    std = float(np.std(accuracies, ddof=1))
    positives, negatives = distances[labels], distances[~labels]
    return Verification(
        accuracy=float(np.mean(accuracies)),
        sem=std / float(np.sqrt(len(accuracies))),
        std=std,
        fold_accuracies=tuple(accuracies),
        thresholds=tuple(thresholds),
        threshold=float(np.mean(thresholds)),
        auc=auc,
        eer=eer,
        val_at_far={float(far): at_far(positives, negatives, far) for far in fars},
        pairs=len(labels),
        same=len(positives),
        different=len(negatives),
    )


def verify_embeddings(
    embeddings: EmbeddingSet,
    pairs: Pairs,
    *,
    allow_missing: bool = False,
    fars: Sequence[float] = FARS,
    grid: np.ndarray | None = None,
) -> Verification:
    """Score `pairs` on the squared distances ||a - b||^2 of their embeddings, see :func:`verify_pairs`.

    Raises:
        DataError: pairs without an embedding, unless `allow_missing`; then `skipped` counts them.
    """
    scored = score_pairs(embeddings, pairs, allow_missing=allow_missing)
    result = verify_pairs(scored.sq_dist, scored.pairs.same, scored.pairs.fold, fars=fars, grid=grid)
    return replace(result, skipped=scored.skipped, duplicated=scored.duplicated)


def score_pairs(embeddings: EmbeddingSet, pairs: Pairs, *, allow_missing: bool = False) -> ScoredPairs:
    """Return the squared distances ||a - b||^2 of the pairs whose images are embedded, in their order.

    Raises:
        DataError: pairs without an embedding, unless `allow_missing`.
    """
    first, second, missing = pair_rows(pairs, map(image_key, embeddings.paths))
    found = np.flatnonzero((first >= 0) & (second >= 0))
    if len(found) < len(pairs) and not allow_missing:
        raise DataError(
            f"verify: {len(pairs) - len(found)} of {len(pairs)} pairs have no embedding (first missing: {missing[0]}); "
            "embed these images or pass allow_missing=true"
        )
    first, second = first[found], second[found]
    distances = row_sq_dist(embeddings.vectors[first], embeddings.vectors[second])
    unordered = np.minimum(first, second) * len(embeddings) + np.maximum(first, second)
    one, two = (tuple(side[i] for i in found) for side in (pairs.first, pairs.second))
    scored = Pairs(one, two, np.asarray(pairs.same)[found], np.asarray(pairs.fold)[found])
    return ScoredPairs(scored, distances, len(pairs) - len(found), len(found) - len(np.unique(unordered)))


def score_at(sq_dist: np.ndarray, same: np.ndarray, threshold: float) -> dict[str, Any]:
    """Score P pairs at a threshold that was chosen elsewhere, as for one held fold of View 2.

    accuracy = correct / pairs, a pair being correct when (D <= threshold) == same. AUC and EER are those of
    :func:`verify_pairs`.
    Returns accuracy, correct, pairs, same, different, threshold, auc, eer: plain numbers for ``metrics.json``.

    Raises:
        DataError: no pairs, other lengths, NaN, or only one class; or a threshold that is not finite.
    """
    distances, labels = by_distance(sq_dist, same)
    if not np.isfinite(threshold):
        raise DataError(f"verify: expected a finite threshold (squared L2), got {threshold}; choose it on other pairs")
    correct = int(np.count_nonzero((distances <= np.float64(threshold)) == labels))
    auc, eer = auc_and_eer(curve(distances, labels))
    positives = int(np.count_nonzero(labels))
    return {
        "accuracy": correct / len(labels),
        "correct": correct,
        "pairs": len(labels),
        "same": positives,
        "different": len(labels) - positives,
        "threshold": float(threshold),
        "auc": auc,
        "eer": eer,
    }


def best_threshold(sq_dist: np.ndarray, same: np.ndarray) -> float:
    """Return the threshold of highest accuracy on P pairs; of several best ones, the middle one.

    Raises:
        DataError: no pairs, other lengths, NaN, or only one class.
    """
    return _best(*by_distance(sq_dist, same), None)


def common_grid(steps: int | str | None) -> np.ndarray | None:
    """Return the thresholds 0, 0.01 .. 3.99 (400) or 0, 0.001 .. 3.999 (4000) that others search; None for None.

    Raises:
        ConfigError: another number.
    """
    return None if steps is None else np.arange(0, MAX_SQ_DIST, choose(GRIDS, str(steps), "grid"))


def _cross_validate(
    distances: np.ndarray, labels: np.ndarray, folds: np.ndarray, grid: np.ndarray | None
) -> tuple[list[float], list[float]]:
    """Choose each fold's threshold on the other folds, from sorted pairs (P,), and score the fold with it."""
    names = np.unique(folds)
    if len(names) < 2:
        raise DataError(f"verify: expected at least two folds, got {len(names)}; cut the pairs into ten equal parts")
    accuracies, thresholds = [], []
    for name in names:
        held = folds == name
        both_classes(labels[~held], f"verify, outside fold {name}")
        threshold = _best(distances[~held], labels[~held], grid)
        accuracies.append(float(np.mean((distances[held] <= np.float64(threshold)) == labels[held])))
        thresholds.append(threshold)
    return accuracies, thresholds


def _best(distances: np.ndarray, labels: np.ndarray, grid: np.ndarray | None) -> float:
    """Return the threshold of highest accuracy on sorted pairs (P,)."""
    right = np.zeros(len(labels) + 1, np.int64)  # right[k]: correct decisions, less a constant, when k are accepted
    np.cumsum(np.where(labels, 1, -1), out=right[1:])
    if grid is not None:
        steps = np.sort(np.asarray(grid, np.float64))
        if not len(steps):
            raise ConfigError("grid: expected at least one threshold, got none")
        return float(steps[np.argmax(right[np.searchsorted(distances, steps, side="right")])])
    cuts = np.flatnonzero(np.concatenate([[True], distances[1:] > distances[:-1], [True]]))
    cuts = cuts[right[cuts] == right[cuts].max()]
    return cut(distances, int(cuts[(len(cuts) - 1) // 2]))
