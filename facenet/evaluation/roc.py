"""Sorted distances to points of the ROC: FAR and VAL, AUC, EER, VAL at FAR with its interval, and thresholds.

A pair is accepted when D <= d, so VAL(d) = |TA(d)| / |P_same| and FAR(d) = |FA(d)| / |P_diff|.
A threshold lies halfway between two neighbouring distances, never on one that it was not meant to accept.
Scikit-learn's ``roc_curve`` is not used, since its thresholds are scores that occur, never values between two of them.
It also needs all pairs; here the nearest different pairs are enough. Pairs at equal distances are one point.
Source: Schroff et al. 2015, section 4 (VAL and FAR); Wilson 1927 (the interval of a share).
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np

from facenet.errors import ConfigError, DataError

FARS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
MAX_SQ_DIST = 4.0


class Roc(NamedTuple):
    """Points of the ROC, from "accept nothing" (0, 0, -inf) to (1, 1), one for each distinct distance."""

    far: np.ndarray  # (M,) float64
    val: np.ndarray  # (M,) float64
    threshold: np.ndarray  # (M,) float64, accept D <= threshold


def roc(sq_dist: np.ndarray, same: np.ndarray) -> Roc:
    """Return every point (FAR(d), VAL(d), d) of P pairs at their distinct distances d, after (0, 0, -inf).

    Raises:
        DataError: no pairs, other lengths, NaN, or only one class.
    """
    return curve(*by_distance(sq_dist, same))


def by_distance(sq_dist: np.ndarray, same: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Check P pairs and return their distances (P,) in ascending order, with their labels (P,).

    Raises:
        DataError: no pairs, other lengths, NaN, or only one class.
    """
    distances, labels = checked(sq_dist, same)
    order = np.argsort(distances, kind="stable")
    return distances[order], labels[order]


def curve(distances: np.ndarray, labels: np.ndarray) -> Roc:
    """Return the ROC of sorted pairs (P,): one point where each run of equal distances ends."""
    ends = np.flatnonzero(np.append(distances[1:] > distances[:-1], True))
    accepted_same = np.cumsum(labels)[ends]
    accepted_different = ends + 1 - accepted_same
    far = np.append(0, accepted_different / accepted_different[-1])
    val = np.append(0, accepted_same / accepted_same[-1])
    return Roc(far, val, np.append(-np.inf, distances[ends]))


def auc_and_eer(points: Roc) -> tuple[float, float]:
    """Return the area under the ROC by trapezia, and the EER at its first point where FAR and FRR are nearest."""
    at = int(np.argmin(np.abs(points.far - (1 - points.val))))
    auc = float(np.sum(np.diff(points.far) * (points.val[1:] + points.val[:-1])) / 2)
    return auc, float(points.far[at] + 1 - points.val[at]) / 2


def at_far(
    same: np.ndarray, different: np.ndarray, far: float, *, positives: int | None = None, negatives: int | None = None
) -> dict[str, Any]:
    """Return VAL at the largest threshold with FAR <= far: val, low, high, threshold, resolvable, negatives.

    `low` and `high` are the 95 % Wilson interval of val, as if pairs were independent. If far |P_diff| < 1, not one
    false accept is allowed: the rate is not resolvable and the rest is None. val is None without a same pair.

    Args:
        same: sorted distances of the same pairs, (S,).
        different: sorted distances of the different pairs, (M,); the floor(far |P_diff|) + 1 nearest are enough.
        far: in (0, 1].
        positives: |P_same| where `same` holds only some of them.
        negatives: |P_diff| where `different` holds only the nearest.
    """
    negatives = len(different) if negatives is None else negatives
    allowed = allowed_accepts(far, negatives)
    if allowed == 0:
        return {"val": None, "low": None, "high": None, "threshold": None, "resolvable": False, "negatives": negatives}
    hits, false = len(same), len(different)
    if allowed < negatives:  # everything below the first different pair that must be rejected
        hits, false = (int(np.searchsorted(side, different[allowed], side="left")) for side in (same, different))
    val, low, high = wilson(hits, len(same) if positives is None else positives)
    accepted = [side[count - 1] for side, count in ((same, hits), (different, false)) if count]
    rejected = [side[count] for side, count in ((same, hits), (different, false)) if count < len(side)]
    threshold = between(max(accepted, default=None), min(rejected, default=None))
    return {"val": val, "low": low, "high": high, "threshold": threshold, "resolvable": True, "negatives": negatives}


def allowed_accepts(far: float, negatives: int) -> int:
    """Return the largest k with k / negatives <= far; 0.29 of 100 is 29, though 0.29 * 100 < 29 in floats.

    Raises:
        ConfigError: a FAR outside (0, 1].
    """
    if not 0 < far <= 1:
        raise ConfigError(f"far: expected a false accept rate in (0, 1], got {far}")
    count = min(negatives, int(far * negatives) + 1)
    return count if count == 0 or count / negatives <= far else count - 1


def wilson(hits: int, count: int) -> tuple[float | None, float | None, float | None]:
    """Return hits / count with its 95 % Wilson interval; None without counts."""
    if count == 0:
        return None, None, None
    from scipy.stats import binomtest

    # p decides the p-value alone, which is not used, and is found without a search at the observed share
    low, high = binomtest(hits, count, p=hits / count).proportion_ci(0.95, method="wilson")
    return hits / count, float(low), float(high)


def cut(distances: np.ndarray, accepted: int) -> float:
    """Return the threshold that accepts the first `accepted` of sorted distances (P,), see :func:`between`."""
    return between(
        distances[accepted - 1] if accepted else None, distances[accepted] if accepted < len(distances) else None
    )


def between(accepted: Any, rejected: Any) -> float:
    """Return the threshold midway between the farthest accepted and the nearest rejected distance.

    If one is None, the end is 0 or 4. The value is a number of the distances' own type, so it never rounds onto
    the rejected one.
    """
    if accepted is None:
        return _midway(type(rejected)(0), rejected)
    if rejected is None:
        return float(accepted) if accepted >= MAX_SQ_DIST else _midway(accepted, type(accepted)(MAX_SQ_DIST))
    return _midway(accepted, rejected)


def _midway(low: Any, high: Any) -> float:
    if low >= high:  # nothing between them: right below `high`
        return float(np.nextafter(high, -np.inf, dtype=type(high)))
    middle = low + (high - low) / 2
    return float(middle if middle < high else low)


def checked(sq_dist: np.ndarray, same: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return distances (P,) in float32 or float64 and labels (P,) bool, or raise DataError, see :func:`roc`."""
    distances, labels = np.asarray(sq_dist), np.asarray(same, bool)
    if distances.dtype not in (np.float32, np.float64):
        distances = distances.astype(np.float64)
    if distances.ndim != 1 or distances.shape != labels.shape:
        raise DataError(f"verify: expected sq_dist and same of shape (P,), got {distances.shape} and {labels.shape}")
    if not len(labels):
        raise DataError("verify: expected at least one same and one different pair, got no pairs")
    bad = len(labels) - int(np.isfinite(distances).sum())
    if bad:
        raise DataError(
            f"verify: {bad} of {len(labels)} distances are NaN or infinite; the encoder gave broken vectors"
        )
    both_classes(labels, "verify")
    return distances, labels


def both_classes(labels: np.ndarray, where: str) -> None:
    """Raise DataError unless there are same and different pairs."""
    positives = int(np.count_nonzero(labels))
    if positives in (0, len(labels)):
        kind = "different" if positives == 0 else "same"
        raise DataError(f"{where}: expected same and different pairs, got {len(labels)} {kind} ones only; add others")


def far_name(far: float) -> str:
    """Name a FAR without a dot if it needs none (dots separate the parts of a metric's name); float() reads it.

    >>> far_name(0.001), far_name(0.0025)
    ('1e-3', '2.5e-3')
    """
    return format(Decimal(repr(float(far))).normalize(), "e")
