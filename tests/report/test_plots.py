"""The drawings: plain SVG that needs nothing, deterministic, right in what they draw."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.axes import Axes

from facenet.report import plots as report_plots
from facenet.report.page import Figure
from facenet.report.plots import (
    comparison,
    distance_histogram,
    draw,
    face_map,
    level_curves,
    operating_curves,
    training_curves,
)
from tests.helpers.reports import faces

HOSTILE = "<script>alert(1)</script> \"'& $\\frac{1}{0$ -->"


def pairs(count: int = 400) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    same = np.arange(count) % 2 == 0
    return np.where(same, rng.normal(0.7, 0.25, count), rng.normal(1.3, 0.25, count)).clip(0, 4), same


def all_figures(name: str = "a", text: str = "x") -> list[Figure]:
    distances, same = pairs()
    steps = np.arange(20.0)
    curves = dict.fromkeys(("loss", "active", "hard", "val_accuracy", "val_auc"), (steps, steps / 20))
    embeddings = faces(4, 5)
    return [
        *operating_curves(name, distances, same, {"1e-1": {"val": 0.9}, "1e-9": {"val": None}}),
        distance_histogram(name, distances, same, [(text, 1.0), ("FAR 1e-3", 0.4)]),
        *training_curves(name, curves),
        level_curves(name, text, [("10", 0.7, 0.01), (text, None, None)], 0.9, "accuracy"),
        comparison(f"{name}-c", text, [(text, 0.9, 0.1), ("b", 0.8, None), ("c", None, None)], label="accuracy"),
        face_map(name, embeddings.vectors, embeddings.identities),
    ]


def test_drawings_are_svg_that_needs_nothing() -> None:
    drawn = all_figures(text=HOSTILE)
    assert len(drawn) == 9
    for figure in drawn:
        root = ElementTree.fromstring(figure.svg)
        assert root.attrib.keys() == {"viewBox", "role", "aria-label"}
        assert root.attrib["aria-label"]
        assert not re.search(r"https?:|<script|<style|<metadata|<!|xmlns|xlink|@import", figure.svg)
        tags = {element.tag for element in root.iter()}
        assert tags <= {"svg", "g", "path", "text", "defs", "use", "clipPath", "rect", "tspan"}, tags
    assert sum("<script>alert(1)</script>" in "".join(ElementTree.fromstring(f.svg).itertext()) for f in drawn) >= 2


def test_ids_are_unique_on_a_page_and_each_is_used() -> None:
    text = "".join(figure.svg for name in ("r0", "r1") for figure in all_figures(name))
    ids = re.findall(r'\sid="([^"]*)"', text)
    assert len(ids) == len(set(ids)) > 10
    assert set(ids) == set(re.findall(r'(?:url\(#|href="#)([^")]+)', text))


def test_the_same_input_gives_the_same_bytes() -> None:
    assert all_figures() == all_figures()


def painted(monkeypatch: pytest.MonkeyPatch, make: Any) -> list[Axes]:
    """Let a function draw, and return the panels it painted."""
    seen: list[Axes] = []

    def keep(name: str, alt: str, paint: Any, **options: Any) -> Figure:
        return draw(name, alt, lambda axes: (paint(axes), seen.append(axes))[0], **options)

    monkeypatch.setattr(report_plots, "draw", keep)
    make()
    return seen


def test_roc_and_det_show_the_curve_and_its_wilson_band(monkeypatch: pytest.MonkeyPatch) -> None:
    distances, same = pairs()
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
    distances, same = pairs()
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
