"""The words, rows and drawings of an assessment: nothing invented, nothing left out, the same bytes each time."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from facenet.compat.display import (
    baseline_rows,
    flip_rows,
    paint_mixed,
    paint_roc,
    table_rows,
    verdict,
    write_plot,
    write_tables,
)
from facenet.compat.mixed_gallery import Regression

PASSED = {"passed": True, "metric": "accuracy", "failed": []}
FLIPS = {"new_old": {"negative": 0.021, "positive": 0.1}, "new_new": {"negative": 0.01, "positive": 0.2}}
SURE = {"difference": 0.06, "low": 0.041, "high": 0.079}
FAR = np.geomspace(0.01, 1, 20).tolist()
ROC: dict[str, Any] = {"far": FAR} | {
    name: [far**power for far in FAR] for name, power in (("old_old", 0.6), ("new_old", 0.4), ("new_new", 0.2))
}
ROWS = [{"share": share, "accuracy": 0.8 + share / 10, "rank1": 0.5 + share / 5, "map": None} for share in (0, 0.5, 1)]


def lines(paint: Any, *content: Any) -> dict[str, Any]:
    axes = Figure().add_subplot()
    paint(axes, *content)
    return {line.get_label(): line for line in axes.get_lines()}


def test_the_three_modes_are_drawn_as_measured() -> None:
    drawn = lines(paint_roc, {**ROC, "old_new": ROC["new_old"]})
    assert set(drawn) == {"old-old", "new-old", "new-new"}
    for name, line in drawn.items():
        np.testing.assert_allclose(line.get_xdata(), FAR)
        np.testing.assert_allclose(line.get_ydata(), ROC[name.replace("-", "_")])
    assert len({line.get_linestyle() for line in drawn.values()}) == 3, "told apart without colour"
    assert "new*-new*" in lines(paint_roc, {**ROC, "reference": ROC["new_new"]})


def test_the_mixed_gallery_is_drawn_with_the_old_one_as_floor() -> None:
    drawn = lines(paint_mixed, ROWS, {"accuracy": 0.75, "rank1": None})
    assert {name for name in drawn if not name.startswith("_")} == {"accuracy", "rank-1"}
    np.testing.assert_allclose(drawn["accuracy"].get_ydata(), [0.8, 0.85, 0.9])
    floors = [line for name, line in drawn.items() if name.startswith("_")]
    assert [set(line.get_ydata()) for line in floors] == [{0.75}]


def test_the_same_metrics_give_the_same_self_contained_file(tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        write_plot({"roc": ROC}, tmp_path / name)
    text = (tmp_path / "a.svg").read_text()
    assert text == (tmp_path / "b.svg").read_text()
    assert all(f">{name}<" in text for name in ("old-old", "new-old", "new-new")), "words stay words"
    assert "<image" not in text
    assert len(text) < 100_000


def test_tables_are_csv_with_the_words_as_they_are(tmp_path: Path) -> None:
    row = Regression('Žofie, "Z"', 3, 1.0, 0.5, 1.0, 0.1, 0.2, 0.3, 0.05)
    worst = [row._asdict(), row._replace(person="b")._asdict()]
    write_tables({"regressions": {"worst": worst}, "mixed": ROWS}, tmp_path)
    with (tmp_path / "regressions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [one["person"] for one in rows] == ['Žofie, "Z"', "b"]
    assert float(rows[0]["rank1_new_old"]) == 0.5
    assert (tmp_path / "mixed.csv").read_text().splitlines()[:2] == ["share,accuracy,rank1,map", "0,0.8,0.5,"]


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
    assert flip_rows(metrics) == [["new-old", 0.021, 0.1], ["new-new", 0.01, 0.2]]
    header, rows = baseline_rows(metrics)
    assert header == ["map", "accuracy", "auc"]
    assert rows == [["ours", 0.76, 0.76], ["none", 0.5, 0.51], ["linear", 0.6, None]]


@pytest.mark.parametrize("flips", [{"new_old": {"negative": 0.0}}])
def test_no_flips_are_said_too(flips: Any) -> None:
    assert "negative flips 0.0 %" in verdict(PASSED, row(), SURE, flips)
