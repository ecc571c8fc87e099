"""The drawings: their points are the numbers, and the same numbers give the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from facenet.compat.plot import paint_mixed, paint_roc, write_plot

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
