"""The words and rows of a comparison: nothing invented, nothing left out."""

from __future__ import annotations

from typing import Any

import pytest

from facenet.compat.table import baseline_rows, counts_rows, table_rows, verdict

PASSED = {"passed": True, "metric": "accuracy", "failed": []}
FLIPS = {"new_old": {"negative": 0.021, "positive": 0.1}, "new_new": {"negative": 0.01, "positive": 0.2}}
SURE = {"difference": 0.06, "low": 0.041, "high": 0.079}


def row(**more: Any) -> dict[str, Any]:
    cells = {"old_old": 0.7, "new_old": 0.76, "old_new": 0.76, "new_new": 0.85}
    return {**cells, "gain": 0.4, "against": "new_new", "tax": None, **more}


def test_the_verdict_is_one_line() -> None:
    assert verdict(PASSED, row(), SURE, FLIPS) == (
        "compatible: new queries on the old gallery reach accuracy 0.7600 (old 0.7000, +6.0 points, 95 % +4.1 to +7.9)"
        ", update gain 0.40 against new, negative flips 2.1 %"
    )
    told = verdict(PASSED, row(against="reference", gain=0.3, tax=0.05), None, FLIPS)
    assert told.endswith("(old 0.7000), update gain 0.30, negative flips 2.1 %, tax +5.0 points")
    failed = {"passed": False, "metric": "accuracy", "failed": ["a", "b"]}
    assert verdict(failed, row(gain=None), SURE, FLIPS).startswith("not compatible (a; b): new queries")
    assert "update gain not defined" in verdict(failed, row(gain=None), SURE, FLIPS)
    assert verdict({**failed, "metric": "map"}, row(new_old=None), None, FLIPS).endswith(
        "map can not be measured on these pairs"
    )


def test_rows_hold_each_metric_and_cell() -> None:
    names = ["old_old", "new_old", "old_new", "new_new"]
    metrics: dict[str, Any] = {
        "cells": dict.fromkeys(names),
        "yardsticks": {"accuracy": row(), "auc": row(old_old=None)},
        "intervals": {"accuracy": {"new_old": SURE}},
        "flips": FLIPS,
        "baselines": {"none": {"accuracy": 0.5, "auc": 0.51}, "linear": {"accuracy": 0.6, "auc": None}, "fitted_on": 9},
    }
    header, rows = table_rows(metrics)
    assert header[1:5] == ["old-old", "new-old", "old-new", "new-new"]
    assert rows == [
        ["accuracy", 0.7, 0.76, 0.76, 0.85, 0.4, None, "+0.0410 to +0.0790"],
        ["auc", None, 0.76, 0.76, 0.85, 0.4, None, "-"],
    ]
    assert counts_rows(metrics) == [["new-old", 0.021, 0.1], ["new-new", 0.01, 0.2]]
    header, rows = baseline_rows(metrics)
    assert header == ["map", "accuracy", "auc"]
    assert rows == [["ours", 0.76, 0.76], ["none", 0.5, 0.51], ["linear", 0.6, None]]


@pytest.mark.parametrize("flips", [{"new_old": {"negative": 0.0}}])
def test_no_flips_are_said_too(flips: Any) -> None:
    assert "negative flips 0.0 %" in verdict(PASSED, row(), SURE, flips)
