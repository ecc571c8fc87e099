"""Indexes that are not exact: tuned to a recall that holds for queries that the tuning did not see."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from facenet.errors import ConfigError
from facenet.gallery.faiss import build as index_build
from facenet.gallery.gallery import Gallery
from tests.helpers.galleries import (
    FACTORIES,
    as_queries,
    brute,
    clustered,
    filled,
    numbered,
)


@pytest.mark.parametrize("factory", FACTORIES)
def test_recall_holds_for_queries_that_the_tuning_did_not_see(tmp_path: Path, factory: str) -> None:
    vectors, identities = clustered(150)
    filled(tmp_path, factory, vectors, identities, recall_target=0.95)
    queries, _ = clustered(150, noise=1)
    with Gallery.open(tmp_path) as gallery:
        index = gallery.info()["index"]
        found = gallery.search(as_queries(queries), 1)
        hits = gallery.hits(as_queries(queries[:200]), 5)
    assert index["factory"] == factory
    right = found.rows[:, 0] - 1 == brute(vectors, queries).argmin(1)
    assert right.mean() >= 0.95 - 0.02  # 900 queries: a standard error of 0.007
    if factory == "Flat":
        assert index["recall"] == {}
        assert right.all()
    else:
        assert index["recall"]["at_1"] >= 0.95
        assert index["recall"]["queries"] == (450 if factory.startswith("HNSW") else 900)
        assert abs(right.mean() - index["recall"]["at_1"]) < 0.03, "what it says of itself"
    exact = brute(vectors, queries[:200])
    for row, answer in zip(exact, hits, strict=True):
        assert [hit.sq_dist for hit in answer] == sorted(hit.sq_dist for hit in answer)
        np.testing.assert_allclose([hit.sq_dist for hit in answer], [row[int(hit.id[1:])] for hit in answer], atol=1e-5)


def test_a_graph_is_tuned_on_faces_that_it_does_not_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A face is linked to its neighbours: asked for itself, a graph finds them too easily."""
    vectors, identities = clustered()
    seen = []
    error = index_build._error

    def look(truth: np.ndarray, *rest: np.ndarray) -> float:
        seen.append(truth)
        return error(truth, *rest)

    monkeypatch.setattr(index_build, "_error", look)
    filled(tmp_path, "HNSW16", vectors, identities)
    with Gallery.open(tmp_path) as gallery:
        assert gallery.check() == []
        assert len(gallery.search(as_queries(vectors[:1]), 600).rows[0]) == 600
    own = np.sort(np.random.default_rng(1).choice(600, 300, replace=False)) + 1
    assert len(seen[0]) == 300
    assert not np.isin(seen[0], own).any(), "an answer is one of the faces held back"
    assert np.unique(seen[0]).size > 150


def test_a_factory_that_can_not_be_trained_is_told_and_can_be_mended(tmp_path: Path) -> None:
    vectors, identities = clustered(5)
    with Gallery.open(tmp_path, create=True) as gallery:
        gallery.add(numbered(vectors, identities))
        gallery.configure(factory="IVF1000,SQ8")
        with pytest.raises(ConfigError, match="can not be trained on 30 vectors"):
            gallery.search(as_queries(vectors), 1)
        gallery.configure("flat")
        assert (gallery.search(as_queries(vectors), 1).rows[:, 0] == np.arange(1, 31)).all()


def test_nothing_is_said_of_recall_below_two_items(tmp_path: Path) -> None:
    for i, factory in enumerate(("HNSW16", "SQ8")):
        vectors, identities = clustered(1, 1)
        filled(tmp_path / str(i), factory, vectors, identities)
        with Gallery.open(tmp_path / str(i)) as gallery:
            assert [hit.id for hit in gallery.hits(as_queries(vectors), 3)[0]] == ["f0"]
            assert gallery.info()["index"]["recall"] == {}
