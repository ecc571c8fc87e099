"""The tables of an upgrade: cells hold the numbers of the metrics, and dashes where there are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from facenet.report.chapters.upgrade_tables import (
    METRICS,
    baseline_table,
    cell_table,
    fact_table,
    flip_table,
    gain_table,
    mixed_table,
    worse_table,
)
from facenet.report.runs import Run

ROW = {"old_old": 0.7, "new_old": 0.76, "old_new": 0.76, "new_new": 0.85, "criterion": True, "gain": 0.4, "tax": None}
SURE = {"difference": 0.06, "low": 0.041, "high": 0.079}


@pytest.fixture
def metrics() -> dict[str, Any]:
    verification = {"sem": 0.012, "eer": 0.21, "pairs": 1200}
    none = {**dict.fromkeys(ROW), "reason": "x"}
    return {
        "cells": {name: {"verification": verification} for name in ("old_old", "new_old", "old_new", "new_new")},
        "yardsticks": {**dict.fromkeys(METRICS, none), "accuracy": ROW},
        "intervals": {"accuracy": {"new_old": SURE}},
        "flips": {"new_old": {"negative": 0.02, "positive": 0.08}},
        "mixed": [{"share": 0.0, "accuracy": 0.76, "rank1": None, "map": None}],
        "baselines": {"none": {"accuracy": 0.5}, "linear": {"accuracy": 0.6}, "of": "reference", "fitted_on": 900},
        "regressions": {
            "people": 60,
            "rank1_worse": 3,
            "farther": 9,
            "worst": [{"person": "Ada", "probes": 4, "rank1_old_old": 1.0}],
        },
        "encoders": {"old": "ab" * 32},
        "images": {"shared": 300},
        "gate": {"metric": "accuracy", "min_gain": 0.0, "max_negative_flips": 0.05},
    }


def test_cells(metrics: dict[str, Any]) -> None:
    table = cell_table(metrics)
    assert table is not None
    assert table.header == ("", "old-old", "new-old", "old-new", "new-new")
    assert table.rows[0] == ("accuracy", "70.0 % ± 1.2", "76.0 % ± 1.2", "76.0 % ± 1.2", "85.0 % ± 1.2")
    assert table.rows[1] == ("area under the ROC", "-", "-", "-", "-")
    assert table.rows[-1] == ("equal error rate", *["21.00 %"] * 4)
    assert "1,200 pairs" in table.caption


def test_gain_tax_and_flips(metrics: dict[str, Any]) -> None:
    table = gain_table(metrics)
    assert table is not None
    assert table.rows == [("accuracy", "yes", "+6.0 (+4.1 to +7.9)", "-", "0.40", "-")]
    assert "no new*" in table.caption
    metrics["yardsticks"]["accuracy"] = {**ROW, "criterion": False, "gain": None, "tax": -0.013}
    metrics["cells"]["reference"] = metrics["cells"]["old_old"]
    table = gain_table(metrics)
    assert table is not None
    assert table.rows[0][1:] == ("no", "+6.0 (+4.1 to +7.9)", "-", "-", "-1.3")
    assert "no new*" not in table.caption
    flips = flip_table(metrics)
    assert flips is not None
    assert flips.rows == [("new-old", "2.0 %", "8.0 %")]


def test_backfill_people_and_maps(metrics: dict[str, Any]) -> None:
    mixed, worse, maps = mixed_table(metrics), worse_table(metrics), baseline_table(metrics)
    assert mixed is not None
    assert worse is not None
    assert maps is not None
    assert mixed.rows == [("0 %", "76.0 %", "-", "-")]
    assert worse.rows == [("Ada", "4", "100 %", "-", "-", "-", "-", "-")]
    assert "3 of 60 people are found less often, 9 lie farther" in worse.caption
    assert [row[:2] for row in maps.rows] == [
        ("this encoder", "76.0 %"),
        ("new*, as it is", "50.0 %"),
        ("new*, linear map", "60.0 %"),
    ]
    assert "fitted on 900 training faces" in maps.caption


def test_facts_and_nothing_at_all(metrics: dict[str, Any]) -> None:
    run = Run(Path("runs/x"), "x", "compat", metrics)
    rows = dict(fact_table(run).rows)
    assert rows["gate"] == "accuracy: gain 0 or more, negative flips 0.05 or fewer"
    assert rows["images in all embeddings"] == "300"
    for make in (cell_table, gain_table, flip_table, mixed_table, worse_table, baseline_table):
        assert make({}) is None
    assert fact_table(Run(run.folder, run.name, run.kind, {})).rows
