from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facenet.data.degradations import KINDS
from facenet.evaluation.degradation import level_name
from facenet.evaluation.degradation_plot import CLEAN, curves, order, write_plot


def scores(accuracy: float, unchanged: float = 0.0) -> dict[str, Any]:
    val = {"val": accuracy - 0.2, "low": accuracy - 0.3, "high": accuracy - 0.1, "resolvable": True}
    return {"accuracy": accuracy, "val_at_far": {"1e-2": val, "1e-3": {"resolvable": False}}, "unchanged": unchanged}


def measured(*kinds: str) -> dict[str, Any]:
    rows = {
        kind: {level_name(level): scores(0.9 - 0.05 * place) for place, level in enumerate(KINDS[kind].levels)}
        for kind in kinds
    }
    return {"clean": scores(0.95), "degrade": rows}


def lines(panel: Any) -> dict[str, Any]:
    return {line.get_label(): line for line in panel.get_lines()}


def test_a_panel_for_each_kind_and_the_paper_where_it_measured() -> None:
    figure = curves(measured(*KINDS))
    assert [panel.get_title() for panel in figure.axes] == list(KINDS)
    for panel, kind in zip(figure.axes, KINDS, strict=True):
        assert any("paper" in label for label in lines(panel)) == bool(KINDS[kind].paper)


def test_points_are_the_numbers_of_the_metrics() -> None:
    metrics = measured("jpeg", "noise")
    panel = curves(metrics).axes[0]
    drawn = lines(panel)
    rows = [metrics["clean"], *metrics["degrade"]["jpeg"].values()]
    np.testing.assert_allclose(drawn["accuracy"].get_ydata(), [row["accuracy"] for row in rows])
    val = drawn["VAL at FAR 1e-2, 95 % interval"]
    np.testing.assert_allclose(val.get_ydata(), [row["val_at_far"]["1e-2"]["val"] for row in rows])
    paper = next(line for label, line in drawn.items() if "paper" in label)
    np.testing.assert_allclose(paper.get_ydata(), [KINDS["jpeg"].paper[level] for level in KINDS["jpeg"].levels])
    assert [tick.get_text() for tick in panel.get_xticklabels()] == [CLEAN, "90", "70", "50", "30", "20", "10"]
    np.testing.assert_array_equal(paper.get_xdata(), range(1, 7))


def test_untouched_images_stand_at_zero_stops() -> None:
    rows = {name: scores(0.5) for name in ("1", "-2", "-1")}
    assert list(order(rows, scores(1.0))) == ["-2", "-1", CLEAN, "1"]
    assert list(order({"90": scores(0.5), "10": scores(0.4)}, scores(1.0))) == [CLEAN, "90", "10"]


def test_a_level_that_left_every_image_as_it_was_has_no_point() -> None:
    metrics = measured("pixels")
    metrics["degrade"]["pixels"]["65536"]["unchanged"] = 1.0
    panel = curves(metrics).axes[0]
    np.testing.assert_array_equal(lines(panel)["accuracy"].get_xdata(), [0, 2, 3, 4, 5])


def test_without_a_resolvable_rate_accuracy_is_drawn_alone() -> None:
    metrics = measured("noise")
    for row in (metrics["clean"], *metrics["degrade"]["noise"].values()):
        row["val_at_far"]["1e-2"]["resolvable"] = False
    assert list(lines(curves(metrics).axes[0])) == ["accuracy"]


@pytest.mark.parametrize("kinds", [["jpeg"], pytest.param(list(KINDS), marks=pytest.mark.slow)])  # five plots
def test_the_same_metrics_give_the_same_self_contained_file(kinds: list[str], tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        write_plot(measured(*kinds), tmp_path / name)
    text = (tmp_path / "a.svg").read_text()
    assert text == (tmp_path / "b.svg").read_text()
    assert all(f">{kind}<" in text for kind in kinds), "words stay words"
    assert "<image" not in text
    assert len(text) < 200_000
