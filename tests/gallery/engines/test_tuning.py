"""Tuning of an engine's index: drawn queries are as hard as new pictures, a target that is not reached is told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import faiss
import numpy as np
import pytest

from facenet.errors import ConfigError
from facenet.gallery.engines.tuning import NEVER, Tuned, checked, kind_for, new_faces, tune
from facenet.gallery.items import Block, Recipe
from tests.helpers.galleries import clustered

PEOPLE, EACH = 1500, 5


@pytest.fixture(scope="module")
def faces() -> np.ndarray:
    return clustered(PEOPLE, EACH)[0]


@pytest.fixture(scope="module")
def graph(faces: np.ndarray) -> faiss.IndexHNSWFlat:
    found = faiss.IndexHNSWFlat(faces.shape[1], 4)
    found.add(faces)
    return found


def blocks(faces: np.ndarray) -> Iterator[Block]:
    for start in range(0, len(faces), 1000):
        part = faces[start : start + 1000]
        yield np.arange(start, start + len(part)), part


def recall(graph: faiss.IndexHNSWFlat, faces: np.ndarray, queries: np.ndarray, ef: int) -> float:
    graph.hnsw.efSearch = ef
    found, true = graph.search(queries, 1)[0], faiss.knn(queries, faces, 1)[0]
    return float((found[:, 0] <= true[:, 0] + 1e-5).mean())


@pytest.mark.parametrize("ef", [8, 16, 32])
def test_drawn_queries_do_not_flatter_an_index(faces: np.ndarray, graph: faiss.IndexHNSWFlat, ef: int) -> None:
    new = clustered(PEOPLE, EACH, noise=1)[0]
    drawn = new_faces(lambda: blocks(faces), len(faces), faces.shape[1])
    ours, theirs, own = (recall(graph, faces, asked, ef) for asked in (drawn, new, faces))
    assert -0.08 < ours - theirs < 0.01
    assert own - theirs > 0.02 or theirs > 0.98  # faces of the gallery would flatter the index
    assert np.allclose(np.linalg.norm(drawn, axis=1), 1, atol=1e-5)


def test_the_least_parameter_that_reaches_the_target_is_taken(
    faces: np.ndarray, graph: faiss.IndexHNSWFlat, caplog: pytest.LogCaptureFixture
) -> None:
    def candidates(queries: np.ndarray, ef: int) -> Sequence[Block]:
        graph.hnsw.efSearch = ef
        return [(rows, faces[rows]) for rows in graph.search(queries, 1)[1]]

    def tuned(target: float, values: Sequence[int]) -> Tuned:
        return tune(lambda: blocks(faces), len(faces), faces.shape[1], candidates, values, "hnsw", target, "somewhere")

    easy, hard = tuned(0.8, (4, 16, 64, 256)), tuned(0.97, (4, 16, 64, 256))
    assert 4 <= easy.parameter < hard.parameter
    assert hard.recall >= 0.97
    assert (hard.queries, hard.faces) == (2000, PEOPLE * EACH)
    assert not caplog.records
    assert tuned(0.99, (1, 2)).parameter == 0
    assert "somewhere: the index finds" in caplog.text
    assert "every face is compared" in caplog.text


def test_a_recipe_is_checked_and_says_when_an_index_is_due() -> None:
    kinds = {"auto": "", "flat": "", "hnsw": ""}
    for recipe, said in (
        (Recipe("ivf_sq8"), "kind: unknown name 'ivf_sq8'"),
        (Recipe(factory="Flat"), "factory: here has no FAISS"),
        (Recipe(recall_target=0.0), "recall_target: expected"),
    ):
        with pytest.raises(ConfigError, match=said):
            checked(recipe, kinds, "here")
    assert [kind_for(Recipe("auto"), count, "hnsw") for count in (19_999, 20_000)] == ["flat", "hnsw"]
    assert [kind_for(Recipe("ivf"), count, "hnsw") for count in (9_999, 10_000)] == ["flat", "ivf"]
    assert kind_for(Recipe("flat"), 10**6, "hnsw") == "flat"
    assert kind_for(Recipe("hnsw", "", 1.0), 10**6, "hnsw") == "flat"  # which no index can be sure of
    known = Tuned("hnsw", 64, 0.99, 2000, 50_000, 0.99)
    assert not known.due("hnsw", Recipe("hnsw", "", 0.95), 100_000)
    assert known.due("hnsw", Recipe("hnsw", "", 0.95), 100_001)
    assert known.due("hnsw", Recipe("hnsw", "", 0.995), 50_000)
    assert known.due("flat", Recipe("flat"), 50_000)
    assert NEVER.due("hnsw", Recipe(), 50_000)
    assert not NEVER.due("flat", Recipe(), 50_000)
    assert not Tuned("hnsw", 0, 0.9, 2000, 50_000, 0.99).due(
        "hnsw", Recipe(), 60_000
    )  # it missed, and is not tried again
