"""The drawings: right in what they draw, and never more than there is."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes

from facenet.report import plots as report_plots
from facenet.report.page import Figure
from facenet.report.plots import comparison, distance_histogram, face_map, operating_curves, training_curves
from facenet.report.svg import draw
from tests.helpers.reports import faces, scored_pairs


def painted(monkeypatch: pytest.MonkeyPatch, make: Any) -> list[Axes]:
    """Let a function draw, and return the panels it painted."""
    seen: list[Axes] = []

    def keep(name: str, alt: str, paint: Any, **options: Any) -> Figure:
        return draw(name, alt, lambda axes: (paint(axes), seen.append(axes))[0], **options)

    monkeypatch.setattr(report_plots, "draw", keep)
    make()
    return seen


def test_roc_and_det_show_the_curve_and_its_wilson_band(monkeypatch: pytest.MonkeyPatch) -> None:
    distances, same = scored_pairs()
    roc, det = painted(monkeypatch, lambda: operating_curves("a", distances, same, {"1e-1": {"val": 0.9}}))
    far, val = roc.lines[0].get_data()
    positives = int(same.sum())
    z = 1.959963984540054
    for i in range(0, len(far), 17):
        allowed = np.sort(distances[~same])
        k = int(np.floor(far[i] * (~same).sum() + 1e-9))
        bound = allowed[k] if k < len(allowed) else np.inf
        hits = int((distances[same] < bound).sum())
        assert val[i] == pytest.approx(hits / positives)
        share, extra = hits / positives, z * z / positives
        half = z * np.sqrt(share * (1 - share) / positives + extra / (4 * positives)) / (1 + extra)
        centre = (share + extra / 2) / (1 + extra)
        band = roc.collections[0].get_paths()[0].vertices
        at = band[np.isclose(band[:, 0], far[i])][:, 1]
        assert at.min() == pytest.approx(max(0, centre - half), abs=1e-9)
        assert at.max() == pytest.approx(min(1, centre + half), abs=1e-9)
    np.testing.assert_allclose(det.lines[0].get_ydata(), np.maximum(1 - val, 0.5 / positives))
    assert (roc.get_xscale(), det.get_xscale(), det.get_yscale()) == ("log", "log", "log")
    assert roc.lines[1].get_xydata().tolist() == [[0.1, 0.9]]


def test_the_histogram_counts_every_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    distances, same = scored_pairs()
    (axes,) = painted(monkeypatch, lambda: distance_histogram("a", distances, same, [("t", 1.1)]))
    bars = [patch.get_height() for patch in axes.patches[:48]]
    assert sum(bars) == same.sum()
    assert axes.lines[0].get_xdata()[0] == 1.1


def test_curves_that_were_not_logged_are_left_out() -> None:
    steps = np.arange(3.0)
    assert training_curves("a", {}) == []
    assert len(training_curves("a", {"loss": (steps, steps), "lr": (steps, steps)})) == 1


def test_a_map_of_few_faces_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings = faces(5, 2)
    (axes,) = painted(monkeypatch, lambda: face_map("a", embeddings.vectors, embeddings.identities))
    assert len(axes.lines) == 5
    assert sum(len(line.get_xdata()) for line in axes.lines) == 10


def test_a_narrow_range_has_few_labels() -> None:
    """0.9395 to 0.9575, as of the widths of an embedding: at steps of a quarter of a percent labels ran together."""
    rows = [(str(i), value, 0.006) for i, value in enumerate((0.946, 0.950, 0.948, 0.951))]
    svg = comparison("c", "Ours", rows, label="accuracy").svg
    assert 3 <= len(set(re.findall(r"9\d(?:\.\d+)? %", svg))) <= 6, svg[:300]
