"""The paired bootstrap: each draw against loops over repeated pairs, known variances, and the same seed twice."""

from __future__ import annotations

import time

import numpy as np
import pytest

from facenet.compat.bootstrap import accuracies, aucs, intervals, resample, vals_at_far
from facenet.compat.cells import score_cells
from facenet.compat.matching import draw_enrolment
from facenet.errors import ConfigError
from facenet.evaluation.roc import at_far
from tests.helpers.compat import case


def test_a_draw_keeps_the_size_of_its_strata() -> None:
    strata = np.array([True] * 7 + [False] * 5)
    weights = resample(strata, 400, np.random.default_rng(0))
    assert (weights[:, strata].sum(1) == 7).all()
    assert (weights[:, ~strata].sum(1) == 5).all()
    assert weights.max() > 3
    np.testing.assert_allclose(weights.mean(0), 1, atol=0.2)


@pytest.mark.parametrize("sides", [1, 2])
@pytest.mark.parametrize("far", [0.1, 0.02, 1.0])
def test_each_draw_equals_repeated_pairs(sides: int, far: float) -> None:
    rng = np.random.default_rng(sides)
    same, fold = rng.random(160) < 0.5, rng.integers(0, 4, 160)
    distances = (np.where(same, 0.9, 1.5)[:, None] + rng.normal(0, 0.4, (160, sides))).clip(0, 4).round(1)
    right = rng.random((160, sides)) < 0.8
    weights = resample(same, 25, rng)
    vals, means = vals_at_far(weights, distances, same, far), accuracies(weights, right, fold)
    for draw, val, mean in zip(weights.astype(int), vals, means, strict=True):
        repeated = np.repeat(np.arange(160), draw)
        one, two = (np.sort(distances[repeated[same[repeated] == label]].ravel()) for label in (True, False))
        assert val == pytest.approx(at_far(one, two, far)["val"], abs=1e-6)
        by_fold = [right[repeated[fold[repeated] == name]].mean() for name in range(4)]
        assert mean == pytest.approx(np.mean(by_fold), abs=1e-6)
    assert np.std(vals) > 0 or far == 1


def test_intervals_against_a_loop_of_redrawn_pairs() -> None:
    shared, pairs = case(40)
    enrolment = draw_enrolment(shared)
    cells = score_cells(shared, pairs, enrolment)
    people = np.array([shared.identities[row] for row in enrolment.probes])
    found = intervals(cells, pairs, people.tolist(), draws=2000)
    assert set(found) == {"accuracy", "val_1e-1", "val_1e-2", "rank1", "map"}
    rng = np.random.default_rng(5)
    for name in ("new_old", "new_new"):
        old, new = cells["old_old"], cells[name]
        drawn, ranks = [], []
        for _ in range(500):
            rows = np.concatenate(
                [rng.choice(np.flatnonzero(pairs.same == kind), np.sum(pairs.same == kind)) for kind in (True, False)]
            )
            folds = [rows[pairs.fold[rows] == fold] for fold in np.unique(pairs.fold)]
            drawn.append(np.mean([new.right[part].mean() - old.right[part].mean() for part in folds]))
            chosen = np.concatenate([np.flatnonzero(people == one) for one in rng.choice(np.unique(people), 40)])
            ranks.append(np.mean(new.answers.rank[chosen] == 1) - np.mean(old.answers.rank[chosen] == 1))
        for metric, values in (("accuracy", drawn), ("rank1", ranks)):
            low, high = np.percentile(values, (2.5, 97.5))
            row, width = found[metric][name], high - low
            assert row["low"] == pytest.approx(low, abs=0.1 * width)
            assert row["high"] == pytest.approx(high, abs=0.1 * width)
            assert row["low"] < row["difference"] < row["high"]
        gap = new.verification.accuracy - old.verification.accuracy
        assert found["accuracy"][name]["difference"] == pytest.approx(gap)


def test_pairing_narrows_the_interval_and_equal_cells_differ_by_nothing() -> None:
    shared, pairs = case()
    cells = score_cells(shared, pairs, None)
    found = intervals({**cells, "new_old": cells["old_old"]}, pairs, None, draws=50)
    assert all(row["new_old"] == {"difference": 0, "low": 0, "high": 0} for row in found.values())
    assert found["accuracy"]["new_new"]["high"] > found["accuracy"]["new_new"]["low"]


def test_the_seed_decides_and_blocks_do_not() -> None:
    shared, pairs = case()
    cells = score_cells(shared, pairs, None)
    first = intervals(cells, pairs, None, draws=60)
    assert first == intervals(cells, pairs, None, draws=60)
    assert first != intervals(cells, pairs, None, draws=60, seed=1)
    blocks = intervals(cells, pairs, None, draws=60, block=7 * len(pairs.same))["accuracy"]["new_old"]
    assert blocks["low"] == pytest.approx(first["accuracy"]["new_old"]["low"], abs=0.03)
    with pytest.raises(ConfigError, match="draws"):
        intervals(cells, pairs, None, draws=1)


def test_a_thousand_draws_of_lfw_are_fast() -> None:
    rng = np.random.default_rng(0)
    same = np.arange(6000) % 2 == 0
    started = time.perf_counter()
    weights = resample(same, 500, rng)
    vals_at_far(weights, rng.random((6000, 2), np.float32), same, 0.01)
    assert time.perf_counter() - started < 5


def test_auc_of_draws_is_that_of_repeated_pairs() -> None:
    rng = np.random.default_rng(0)
    same, sq_dist = rng.random(40) < 0.4, rng.integers(0, 12, 40) / 4
    weights = resample(same, 5, rng)
    for drawn, found in zip(weights, aucs(weights, sq_dist, same), strict=True):
        rows = np.repeat(np.arange(40), drawn.astype(int))
        near, far = sq_dist[rows][same[rows]], sq_dist[rows][~same[rows]]
        nearer = (near[:, None] < far).mean() + (near[:, None] == far).mean() / 2
        assert found == pytest.approx(nearer, abs=1e-6)
