"""roc: points against scikit-learn's ROC and DET, rates against counting, thresholds between neighbouring distances."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import det_curve, roc_auc_score, roc_curve

from facenet.errors import ConfigError, DataError
from facenet.evaluation.roc import allowed_accepts, at_far, auc_and_eer, between, by_distance, cut, roc, wilson
from tests.helpers.verification import lfw_like


@pytest.mark.parametrize("ties", [False, True])
def test_roc_and_det_are_those_of_scikit_learn(ties: bool) -> None:
    distances, same, _ = lfw_like(11, ties)
    points = roc(distances, same)
    far, val, thresholds = roc_curve(same, -distances, drop_intermediate=False)
    np.testing.assert_allclose(points.far, far, atol=1e-12)
    np.testing.assert_allclose(points.val, val, atol=1e-12)
    np.testing.assert_array_equal(points.threshold, -thresholds)
    assert auc_and_eer(points)[0] == pytest.approx(roc_auc_score(same, -distances), abs=1e-12)
    fpr, fnr, _ = det_curve(same, -distances)
    ours = {(round(f, 12), round(r, 12)) for f, r in zip(points.far, 1 - points.val, strict=True)}
    theirs = {(round(f, 12), round(r, 12)) for f, r in zip(fpr, fnr, strict=True)}
    assert len(theirs) > 20
    assert theirs <= ours


@pytest.mark.parametrize(
    ("far", "negatives", "count"), [(0.29, 100, 29), (0.07, 100, 7), (1e-3, 3000, 3), (1e-3, 999, 0), (1, 5, 5)]
)
def test_allowed_false_accepts_do_not_suffer_from_rounding(far: float, negatives: int, count: int) -> None:
    assert allowed_accepts(far, negatives) == count


def test_a_rate_of_a_truncated_tail_is_that_of_all_different_pairs() -> None:
    distances, same, _ = lfw_like(12, ties=True)
    distances, labels = by_distance(distances, same)
    right, wrong = distances[labels], distances[~labels]
    for far in (0.2, 0.01, 1e-3):
        nearest = wrong[: allowed_accepts(far, len(wrong)) + 1]
        assert at_far(right, nearest, far, negatives=len(wrong)) == at_far(right, wrong, far)
    half = at_far(right[: len(right) // 2], wrong, 0.01, positives=len(right))
    assert half["val"] == np.sum(right[: len(right) // 2] <= half["threshold"]) / len(right)


def test_no_different_pair_resolves_nothing() -> None:
    assert at_far(np.float32([0.5]), np.empty(0, np.float32), 0.1)["resolvable"] is False
    assert at_far(np.empty(0, np.float32), np.float32([0.5, 1.0]), 0.5)["val"] is None
    with pytest.raises(ConfigError, match="false accept rate"):
        allowed_accepts(0, 10)


def test_a_threshold_lies_between_what_is_accepted_and_what_is_not() -> None:
    distances = np.asarray([0.5, 1.0, 2.0])
    assert [cut(distances, k) for k in range(4)] == [0.25, 0.75, 1.5, 3.0]
    one = np.float32(1)
    assert between(one, np.nextafter(one, np.float32(2))) == 1.0
    assert between(one, one) < 1.0
    assert between(np.float64(5), None) == 5.0


def test_wilson_interval() -> None:
    assert wilson(0, 0) == (None, None, None)
    assert wilson(8, 10) == pytest.approx((0.8, 0.490, 0.943), abs=1e-3)  # Wilson 1927
    assert wilson(0, 10)[1] == 0.0
    assert wilson(10, 10)[2] == pytest.approx(1.0, abs=1e-12)


def test_wilson_interval_is_the_formula() -> None:
    """(p + z^2 / 2n +- z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n) with p = hits / n, z the 97.5 % point."""
    z = 1.959963984540054
    for count in (1, 7, 300, 45_000_000):
        for hits in sorted({0, 1, count // 3, count - 1, count}):
            p, n = hits / count, count
            half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
            low, high = ((p + z * z / (2 * n) + sign * half) / (1 + z * z / n) for sign in (-1, 1))
            assert wilson(hits, count) == pytest.approx((p, max(0.0, low), min(1.0, high)), abs=1e-12, rel=0)


def test_one_class_has_no_roc() -> None:
    with pytest.raises(DataError, match="same ones only"):
        roc(np.asarray([0.1, 0.2]), np.asarray([True, True]))
