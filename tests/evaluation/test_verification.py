"""verify: every number against a loop over thresholds, scikit-learn or torchmetrics; ties and bad input."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve

from facenet.errors import ConfigError, DataError
from facenet.evaluation.verification import (
    best_threshold,
    common_grid,
    far_name,
    roc,
    score_at,
    verify_embeddings,
    verify_pairs,
)
from facenet.types import EmbeddingSet, Pairs
from tests.helpers.verification import accuracies_by_loops, at_far_by_loops, eer_by_loops, lfw_like, unit

GRID = np.arange(0, 4, 0.01)


@pytest.mark.parametrize("ties", [False, True])
def test_folds_against_loops_over_every_threshold(ties: bool) -> None:
    distances, same, folds = (a[::7] for a in lfw_like(1, ties))
    result = verify_pairs(distances, same, folds)
    for fold, threshold, accuracy in zip(range(10), result.thresholds, result.fold_accuracies, strict=True):
        train = accuracies_by_loops(distances[folds != fold], same[folds != fold])
        reached = np.mean((distances[folds != fold] <= threshold) == same[folds != fold])
        assert reached == max(train.values()) > 0.7
        assert accuracy == np.mean((distances[folds == fold] <= threshold) == same[folds == fold])
        assert threshold not in distances[folds != fold]
    assert result.accuracy == pytest.approx(np.mean(result.fold_accuracies), abs=1e-15)
    assert result.std == pytest.approx(np.std(result.fold_accuracies, ddof=1), abs=1e-15)
    assert result.sem == pytest.approx(result.std / np.sqrt(10), abs=1e-15)
    assert result.threshold == pytest.approx(np.mean(result.thresholds))
    assert (result.pairs, result.same, result.different) == (len(same), same.sum(), (~same).sum())


def test_the_threshold_of_a_fold_does_not_see_the_fold() -> None:
    distances, same, folds = lfw_like(2)
    before = verify_pairs(distances, same, folds).thresholds[3]
    held = folds == 3
    distances[held] = np.random.default_rng(0).uniform(0, 4, held.sum())
    changed = verify_pairs(distances, ~same ^ ~held, folds)
    assert changed.thresholds[3] == before
    assert changed.thresholds[4] != before


def test_the_common_grid_gives_the_common_reference() -> None:
    distances, same, folds = lfw_like(3)
    result = verify_pairs(distances, same, folds, grid=GRID)
    for fold in range(10):  # as in davidsandberg/facenet: the first best of 400 thresholds on the other folds
        train, held = folds != fold, folds == fold
        best = int(np.argmax([np.mean((distances[train] < t) == same[train]) for t in GRID]))
        assert result.thresholds[fold] == pytest.approx(GRID[best])
        assert result.fold_accuracies[fold] == np.mean((distances[held] < GRID[best]) == same[held])
    exact = verify_pairs(distances, same, folds)
    assert exact.thresholds != result.thresholds
    np.testing.assert_array_equal(common_grid(400), GRID)
    np.testing.assert_array_equal(common_grid(4000), np.arange(0, 4, 0.001))
    assert common_grid(None) is None
    with pytest.raises(ConfigError, match=r"unknown name '500'.*known: 400, 4000"):
        common_grid(500)
    with pytest.raises(ConfigError, match="at least one threshold"):
        verify_pairs(distances, same, folds, grid=np.empty(0))


def test_a_grid_point_counts_alike_in_choosing_and_in_scoring() -> None:
    """0.6 as float32 lies above 0.6 as float64: a float32 distance there is beyond the threshold, in every fold."""
    edge = np.float32(0.6)
    assert float(edge) > 0.6
    distances = np.float32([0.3, edge, 0.3, edge])
    result = verify_pairs(distances, [True, False] * 2, [0, 0, 1, 1], grid=np.asarray([0.6]))
    assert result.fold_accuracies == (1.0, 1.0)


@pytest.mark.parametrize("ties", [False, True])
def test_auc_roc_and_eer_against_outside_libraries(ties: bool) -> None:
    distances, same, folds = lfw_like(4, ties)
    result = verify_pairs(distances, same, folds)
    assert 0.8 < result.auc < 0.999
    assert result.auc == pytest.approx(roc_auc_score(same, -distances), abs=1e-12)
    far, val, thresholds = roc_curve(same, -distances, drop_intermediate=False)
    curve = roc(distances, same)
    np.testing.assert_allclose(curve.far, far, atol=1e-12)
    np.testing.assert_allclose(curve.val, val, atol=1e-12)
    np.testing.assert_array_equal(curve.threshold, -thresholds)
    assert result.eer == pytest.approx(eer_by_loops(distances, same), abs=1e-12)


@pytest.mark.parametrize("ties", [False, True])
def test_eer_is_that_of_torchmetrics(ties: bool) -> None:
    torch = pytest.importorskip("torch")
    binary_eer = pytest.importorskip("torchmetrics.functional.classification").binary_eer
    distances, same, folds = lfw_like(4, ties)
    want = float(binary_eer(torch.from_numpy(1 - distances / 4), torch.from_numpy(same).long()))
    assert verify_pairs(distances, same, folds).eer == pytest.approx(want, abs=1e-6)


@given(
    st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=2, max_size=40),
    st.sampled_from([0.05, 0.1, 0.29, 0.5, 1.0]),
)
@settings(max_examples=30, deadline=None, derandomize=True)
def test_random_tied_cases_against_loops(rows: list[tuple[int, bool]], far: float) -> None:
    rows = [(0, True), (3, False), (1, True), (2, False), *rows]
    distances, same = np.asarray([d / 4 for d, _ in rows]), np.asarray([s for _, s in rows])
    folds = np.arange(len(rows)) // 2 % 2
    threshold = best_threshold(distances, same)
    assert np.mean((distances <= threshold) == same) == max(accuracies_by_loops(distances, same).values())
    result = verify_pairs(distances, same, folds, fars=(far,))
    assert result.eer == pytest.approx(eer_by_loops(distances, same), abs=1e-12)
    assert result.auc == pytest.approx(roc_auc_score(same, -distances), abs=1e-12)
    row, want = result.val_at_far[far], at_far_by_loops(distances, same, far)
    assert row["resolvable"] == (want is not None)
    if want is not None:
        accepted = distances <= row["threshold"]
        assert (row["val"], accepted.sum()) == (pytest.approx(want[0]), want[1])
        assert row["low"] <= row["val"] <= row["high"]
    turned = np.random.default_rng(0).permutation(len(rows))
    again = verify_pairs(distances[turned], same[turned], folds[turned], fars=(far,))
    assert again == result


def test_val_at_far_pools_the_folds_and_says_what_it_can_not_resolve() -> None:
    distances, same, folds = lfw_like(5)
    rows = verify_pairs(distances, same, folds, fars=(1e-1, 1e-3, 3e-4, 1.0)).val_at_far
    assert rows[1e-3]["negatives"] == 3000
    third = np.sort(distances[~same])[3]  # 3 of 3,000 may be accepted, the fourth not
    assert rows[1e-3]["val"] == np.mean(distances[same] < third)
    assert rows[3e-4] == dict.fromkeys(("val", "low", "high", "threshold")) | {"resolvable": False, "negatives": 3000}
    assert rows[1.0]["val"] == rows[1.0]["high"] == 1.0
    # Wilson 1927, 8 of 10: (0.490, 0.943)
    found = verify_pairs([0.1] * 8 + [2.0, 2.0, 1.0, 1.5], [True] * 10 + [False] * 2, [0, 1] * 6, fars=(0.5,))
    few = found.val_at_far[0.5]
    assert (few["val"], few["low"], few["high"]) == (
        0.8,
        pytest.approx(0.490, abs=1e-3),
        pytest.approx(0.943, abs=1e-3),
    )


def test_one_held_fold_is_scored_at_a_threshold_chosen_elsewhere() -> None:
    distances, same, folds = lfw_like(9)
    whole, held = verify_pairs(distances, same, folds), folds == 4
    score = score_at(distances[held], same[held], whole.thresholds[4])
    assert score["accuracy"] == whole.fold_accuracies[4] == score["correct"] / 600
    assert (score["pairs"], score["same"], score["different"]) == (600, 300, 300)
    assert score["auc"] == pytest.approx(roc_auc_score(same[held], -distances[held]), abs=1e-12)
    assert score["eer"] == pytest.approx(eer_by_loops(distances[held], same[held]), abs=1e-12)
    assert json.loads(json.dumps(score)) == score
    on_it = score_at(np.float32([1.0, 1.0, 1.5]), [True, False, False], 1.0)  # D <= d accepts
    assert (on_it["correct"], on_it["accuracy"]) == (2, 2 / 3)
    with pytest.raises(DataError, match="finite threshold"):
        score_at(distances, same, float("nan"))
    with pytest.raises(DataError, match="same ones only"):
        score_at(distances[:5], same[:5], 1.0)


def test_the_middle_of_several_best_thresholds_and_pairs_right_on_a_threshold() -> None:
    distances, same = np.arange(1, 7) / 10, np.tile([True, False], 3)  # best after 1, 3 or 5 pairs
    assert best_threshold(distances, same) == pytest.approx(0.35)
    on_it = verify_pairs([0.5, 1.5, 1.0, 1.25], [True, False, True, False], [0, 0, 1, 1])
    assert on_it.thresholds[1] == 1.0
    assert on_it.fold_accuracies[1] == 1.0  # D <= d accepts


def test_neighbouring_floats_keep_the_threshold_between_them() -> None:
    for dtype in (np.float32, np.float64):
        low = dtype(1.3)
        high = np.nextafter(low, dtype(4))
        threshold = best_threshold(np.asarray([low, high, low, high]), np.asarray([True, False] * 2))
        assert low <= dtype(threshold) < high
    assert best_threshold([0.0, 0.0, 0.0], [True, False, False]) < 0  # accepts nothing
    assert best_threshold([0.0, 4.0, 4.0], [False, True, True]) >= 4  # accepts everything
    assert best_threshold([-2.0, -1.0], [True, False]) == -1.5  # distances of another range


def test_defined_values_for_constant_distances_and_perfect_separation() -> None:
    same, folds = np.tile([True, False], 10), np.arange(20) // 2 % 5
    flat = verify_pairs(np.ones(20), same, folds)
    assert (flat.accuracy, flat.auc, flat.eer, flat.std) == (0.5, 0.5, 0.5, 0.0)
    clear = verify_pairs(np.where(same, 0.5, 1.5), same, folds)
    assert (clear.accuracy, clear.auc, clear.eer, clear.threshold) == (1.0, 1.0, 0.0, 1.0)


def test_float32_and_float64_agree() -> None:
    one, two = (verify_pairs(*lfw_like(6, dtype=dtype)) for dtype in (np.float32, np.float64))
    assert one.accuracy == two.accuracy
    assert one.auc == pytest.approx(two.auc, abs=1e-6)


@pytest.mark.parametrize(
    ("distances", "same", "folds", "message"),
    [
        ([], [], [], "no pairs"),
        ([1, 2], [True, False, True], [0, 1], r"shape \(P,\), got \(2,\) and \(3,\)"),
        ([1, 2, 3, 4], [True, False] * 2, [0, 1], "one fold for each of 4 pairs"),
        ([1, 2, 3, 4], [True, False] * 2, [0] * 4, "at least two folds"),
        ([1, 2, 3, 4], [True] * 4, [0, 0, 1, 1], "4 same ones only"),
        ([1, 2, 3, 4], [False] * 4, [0, 0, 1, 1], "4 different ones only"),
        ([1, 2, 3, 4], [True, True, False, False], [0, 0, 1, 1], "outside fold 0"),
        ([1, float("nan"), 3, 4], [True, False] * 2, [0, 0, 1, 1], "1 of 4 distances are NaN"),
        ([1, float("inf"), 3, 4], [True, False] * 2, [0, 0, 1, 1], "infinite"),
    ],
)
def test_what_can_not_be_scored_raises(distances: list[Any], same: list[Any], folds: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        verify_pairs(np.asarray(distances, float), np.asarray(same, bool), np.asarray(folds))


@pytest.mark.parametrize("far", [0, -0.1, 1.5, float("nan")])
def test_a_far_outside_0_1_raises(far: float) -> None:
    with pytest.raises(ConfigError, match="false accept rate"):
        verify_pairs(*lfw_like(), fars=(far,))


def test_six_rates_are_reported_as_far_as_the_pairs_allow() -> None:
    rows = verify_pairs(*lfw_like(5)).metrics()["val_at_far"]
    assert {far: row["resolvable"] for far, row in rows.items()} == {
        **dict.fromkeys(("1e-1", "1e-2", "1e-3"), True),
        **dict.fromkeys(("1e-4", "1e-5", "1e-6"), False),  # 3,000 different pairs
    }


def test_metrics_are_plain_json() -> None:
    metrics = verify_pairs(*lfw_like(7, dtype=np.float32), fars=(1e-1, 1e-3, 1e-6)).metrics()
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics
    assert {"accuracy", "sem", "std", "auc", "eer", "folds", "thresholds", "threshold", "pairs", "skipped"} < set(
        metrics
    )
    assert list(metrics["val_at_far"]) == ["1e-1", "1e-3", "1e-6"]
    assert metrics["val_at_far"]["1e-6"]["resolvable"] is False
    assert len(metrics["folds"]) == len(metrics["thresholds"]) == 10
    for far in (0.1, 1e-6, 0.0025, 1.0, 0.3, 1 / 3):
        assert float(far_name(far)) == far


def test_ten_folds_of_six_thousand_pairs_take_milliseconds() -> None:
    data = lfw_like(8)
    times = []
    for _ in range(20):
        start = time.thread_time()
        verify_pairs(*data)
        times.append(time.thread_time() - start)
    assert min(times) < 0.015


def test_embeddings_are_matched_by_key_and_missing_ones_stop_it() -> None:
    labels = np.arange(40) // 4
    paths = [f"p{n}/p{n}_{i:04d}.jpg" for i, n in enumerate(labels)]
    embeddings = EmbeddingSet(unit(40, 16, labels, 6), paths, [f"p{n}" for n in labels], "f")
    one, two = np.triu_indices(40, 1)
    keys = embeddings.keys
    pairs = Pairs(
        tuple(keys[i] for i in one), tuple(keys[i] for i in two), labels[one] == labels[two], np.arange(len(one)) % 5
    )
    distances = ((embeddings.vectors[one] - embeddings.vectors[two]) ** 2).sum(1)
    assert verify_embeddings(embeddings, pairs) == verify_pairs(distances, pairs.same, pairs.fold)
    fewer = embeddings.subset(range(1, 40))
    with pytest.raises(
        DataError, match=rf"39 of 780 pairs have no embedding \(first missing: {keys[0]}\).*allow_missing"
    ):
        verify_embeddings(fewer, pairs)
    result = verify_embeddings(fewer, pairs, allow_missing=True)
    assert (result.skipped, result.pairs, result.metrics()["skipped"]) == (39, 741, 39)


def test_pairs_named_twice_are_counted_in_either_order() -> None:
    labels = np.arange(8) // 2
    embeddings = EmbeddingSet(unit(8, 4, labels, 7), [f"{i}.jpg" for i in range(8)], [str(n) for n in labels], "f")
    first, second = ("0", "1", "0", "2", "4", "0", "x"), ("1", "0", "1", "4", "2", "2", "0")
    same = np.asarray([True, True, True, False, False, False, False])
    pairs = Pairs(first, second, same, np.asarray([0, 0, 1, 0, 1, 1, 1]))
    result = verify_embeddings(embeddings, pairs, allow_missing=True)
    assert (result.duplicated, result.skipped, result.pairs) == (3, 1, 6), "1-0 and 0-1 again, 4-2 again"
    assert result.metrics()["duplicated"] == 3
