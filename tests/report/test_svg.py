"""The drawings as files: plain SVG that needs nothing, and the same bytes each time."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from facenet.report.page import Figure
from facenet.report.plots import (
    comparison,
    distance_histogram,
    face_map,
    level_curves,
    operating_curves,
    training_curves,
)
from tests.helpers.reports import faces, scored_pairs

HOSTILE = "<script>alert(1)</script> \"'& $\\frac{1}{0$ -->"


def all_figures(name: str, text: str = HOSTILE) -> list[Figure]:
    distances, same = scored_pairs()
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


@pytest.fixture(scope="module")
def drawn() -> list[Figure]:
    return all_figures("r0")


def test_drawings_are_svg_that_needs_nothing(drawn: list[Figure]) -> None:
    assert len(drawn) == 9
    for figure in drawn:
        root = ElementTree.fromstring(figure.svg)
        assert root.attrib.keys() == {"viewBox", "role", "aria-label"}
        assert root.attrib["aria-label"]
        assert not re.search(r"https?:|<script|<style|<metadata|<!|xmlns|xlink|@import", figure.svg)
        tags = {element.tag for element in root.iter()}
        assert tags <= {"svg", "g", "path", "text", "defs", "use", "clipPath", "rect", "tspan"}, tags
    assert sum("<script>alert(1)</script>" in "".join(ElementTree.fromstring(f.svg).itertext()) for f in drawn) >= 2


def test_ids_are_unique_on_a_page_and_each_is_used(drawn: list[Figure]) -> None:
    other = [
        *operating_curves("r1", *scored_pairs(), {}),
        comparison("r1-c", "x", [("b", 0.8, None)], label="accuracy"),
    ]
    text = "".join(figure.svg for figure in (*drawn, *other))
    ids = re.findall(r'\sid="([^"]*)"', text)
    assert len(ids) == len(set(ids)) > 10
    assert set(ids) == set(re.findall(r'(?:url\(#|href="#)([^")]+)', text))


@pytest.mark.slow  # draws every plot twice
def test_the_same_input_gives_the_same_bytes(drawn: list[Figure]) -> None:
    embeddings = faces(4, 5)
    assert face_map("r0", embeddings.vectors, embeddings.identities) == drawn[-1]
    assert operating_curves("r0", *scored_pairs(), {"1e-1": {"val": 0.9}, "1e-9": {"val": None}}) == drawn[:2]
