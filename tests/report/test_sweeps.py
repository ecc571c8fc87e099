"""Sweeps: the numbers over seeds and folds against plain arithmetic, and the paper's table."""

from __future__ import annotations

import math
import statistics
from typing import Any

import pytest

from facenet.report.sweeps import group_folds, group_sweeps, sweep_metrics
from tests.helpers.reports import run


def test_a_setting_is_the_mean_and_spread_over_its_seeds() -> None:
    values = {"nn4": [0.91, 0.93, 0.98], "nn2": [0.8]}
    runs = [
        run(f"{model}-{seed}", value, model=model, seed=seed, faces_seen=1000 + seed)
        for model, some in values.items()
        for seed, value in enumerate(some)
    ]
    (found,) = group_sweeps(runs)
    rows = {row.setting: row for row in found.settings}
    assert list(rows) == ["nn1", "nn2", "nn3", "nn4", "nns1", "nns2"], "the paper's order, run or not"
    spread = rows["nn4"].measures["accuracy"]
    assert spread.mean == pytest.approx(statistics.mean(values["nn4"]), abs=1e-15)
    assert spread.std == pytest.approx(statistics.stdev(values["nn4"]), abs=1e-15)
    assert spread.n == 3
    assert rows["nn4"].seeds == [0, 1, 2]
    assert rows["nn4"].measures["faces_seen"].mean == 1001
    assert rows["nn2"].measures["accuracy"] == (0.8, None, 1)
    assert rows["nn1"].measures["accuracy"] == (None, None, 0)
    written = sweep_metrics([found], [])["table3"]["synthetic"]
    assert written["nn4"]["accuracy"]["mean"] == spread.mean
    assert written["nn4"]["paper_val_1e-3"] == 0.82


@pytest.mark.parametrize("broken", [None, float("nan"), float("inf"), "0.9", True, 10**400])
def test_what_is_no_number_does_not_enter_the_mean(broken: Any) -> None:
    (found,) = group_sweeps([run("a", 0.9, seed=0), run("b", broken, seed=1, val=broken)])
    row = next(row for row in found.settings if row.setting == "nn4")
    assert row.measures["accuracy"] == (0.9, None, 1)
    assert row.measures["val_1e-3"].n == 1
    assert row.seeds == [0, 1]


def test_scales_stay_apart_and_a_repeated_seed_counts_once() -> None:
    runs = [run("old", 0.5), run("new", 0.9), run("lfw", 0.7, scale="lfw"), run("none", 0.6, scale=None)]
    found = {sweep.scale: sweep for sweep in group_sweeps(runs)}
    assert sorted(found) == ["lfw", "synthetic", "unknown"]
    row = next(row for row in found["synthetic"].settings if row.setting == "nn4")
    assert row.measures["accuracy"].mean == 0.9, "the run given last counts"
    assert found["synthetic"].repeated == ["old"]


def test_settings_that_are_numbers_stand_in_order_with_ours_among_the_papers() -> None:
    runs = [run(f"{share}", 0.8, table="table6", train_share=share) for share in (0.5, 0.1, 1.0)]
    (found,) = group_sweeps(runs)
    assert [row.setting for row in found.settings] == [0.01, 0.1, 0.2, 0.5, 1.0]
    assert [row.paper is not None for row in found.settings] == [True, True, True, False, True]
    assert [len(row.seeds) for row in found.settings] == [0, 1, 0, 1, 1]


def test_a_setting_of_a_strange_type_has_a_row_of_its_own() -> None:
    (found,) = group_sweeps([run("a", 0.8, table="table5", embedding_dim={"x": 1})])
    assert [row.setting for row in found.settings if row.seeds] == ["{'x': 1}"]


def test_the_folds_of_view_2_make_one_number() -> None:
    accuracies = {1: 0.88, 2: 0.9, 4: 0.91, 10: 0.86}
    runs = [run(f"f{fold}", value, table="lfw_view2", fold=fold) for fold, value in accuracies.items()]
    runs.append(run("other", 0.7, table="lfw_view2", fold=1, seed=1))
    runs.append(run("again", 0.9, table="lfw_view2", fold=4))
    first, second = group_folds(runs)
    values = [0.88, 0.9, 0.9, 0.86]
    assert (first.seed, second.seed) == (0, 1)
    assert first.spread.mean == pytest.approx(statistics.mean(values), abs=1e-15)
    assert first.spread.sem == pytest.approx(statistics.stdev(values) / math.sqrt(4), abs=1e-15)
    assert first.missing == [3, 5, 6, 7, 8, 9]
    assert first.pairs == 4 * 600
    assert first.repeated == ["f4"]
    assert second.spread.sem is None
    assert sweep_metrics([], [first])["lfw_view2"]["nn4 seed 0"]["missing"] == first.missing
