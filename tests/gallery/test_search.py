"""Searches: the answers of a double precision loop, whatever the kind of index, the filter or the radius."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facenet.errors import ConfigError, DataError
from facenet.gallery.faiss.layers import Layers
from facenet.gallery.gallery import Gallery, Hit, Limits
from facenet.types import EmbeddingSet, Neighbours
from facenet.vectors import normalise
from tests.helpers.galleries import (
    OURS,
    THEIRS,
    D,
    as_queries,
    assert_answers,
    brute,
    clustered,
    faces,
    filled,
    numbered,
    people,
    unit,
)


def test_search_equals_brute_force(folder: Path) -> None:
    with Gallery.open(folder) as gallery:
        assert_answers(gallery, people(10))
        assert_answers(gallery, people(10), k=100, queries=30)
        found = gallery.search(as_queries(unit(3, 5)), 50)
        assert (found.rows[:, 40:] == -1).all()
        assert np.isinf(found.sq_dist[:, 40:]).all()
        items = gallery.items(found.rows[0, :40])
        assert sorted(item.id for item in items) == sorted(people(10))
        assert items[0].fingerprint == OURS
        assert [item.number for item in items] == found.rows[0, :40].tolist()
        with pytest.raises(DataError, match="no item number -1"):
            gallery.items(found.rows[0])


def test_by_identity_answers_once_for_each(tmp_path: Path) -> None:
    """Crowded: one person has 60 of the 100 images and lies nearest to the query."""
    vectors = unit(100, 3)
    vectors[:60] = normalise(vectors[:1] + 0.05 * vectors[:60])
    identities = ["crowd"] * 60 + [f"p{i // 4}" for i in range(30)] + [""] * 10
    with Gallery.open(tmp_path, create=True) as gallery:
        gallery.add(EmbeddingSet(vectors, [str(i) for i in range(100)], identities, OURS))
        queries = np.concatenate([vectors[:1], unit(4, 8)])
        for k in (1, 5, 18, 25):
            found = gallery.hits(as_queries(queries), k, by_identity=True)
            for hits, row in zip(found, brute(vectors, queries), strict=True):
                groups: dict[str, int] = {}
                for i in np.argsort(row, kind="stable"):
                    groups.setdefault(identities[i] or f"#{i}", int(i))
                assert [hit.id for hit in hits] == [str(i) for i in groups.values()][:k]


def test_within_a_radius(folder: Path) -> None:
    vectors, queries = faces(people(10)).vectors, np.concatenate([faces(people(1)).vectors, unit(30, 4)])
    exact = brute(vectors, queries)
    with Gallery.open(folder) as gallery:
        for radius in (0.0, 1.0, 1.7, 4.0):
            for found, row in zip(gallery.within(as_queries(queries), radius), exact, strict=True):
                want = np.flatnonzero(row <= radius + 1e-5)
                assert abs(len(found.rows) - len(want)) <= (radius == 0)  # 0 itself is a matter of rounding
                assert (np.diff(found.sq_dist) >= 0).all()
                if radius:
                    assert sorted(found.rows - 1) == want.tolist()
        with pytest.raises(DataError, match="max_sq_dist"):
            gallery.within(as_queries(queries), float("nan"))


def test_unknown_faces_are_no_match() -> None:
    hit = Hit(1, "a", "A", "a.jpg", 1.1, "", {})
    assert hit.accepted(1.1)
    assert not hit.accepted(1.0999)


def test_empty_gallery_answers_nobody(tmp_path: Path) -> None:
    with Gallery.open(tmp_path, create=True, fingerprint=OURS, dim=D) as gallery:
        assert (gallery.dim, gallery.fingerprint, len(gallery)) == (D, OURS, 0)
        assert gallery.hits(as_queries(unit(2)), 3) == [[], []]
        assert gallery.hits(as_queries(unit(2)), 3, by_identity=True) == [[], []]
        assert (gallery.search(as_queries(unit(2)), 3).rows == -1).all()
        assert [len(found.rows) for found in gallery.within(as_queries(unit(2)), 4.0)] == [0, 0]
        assert gallery.check() == []
    with Gallery.open(tmp_path) as gallery:
        assert (gallery.dim, gallery.fingerprint) == (D, OURS)


@pytest.mark.parametrize(
    ("queries", "k", "fingerprint", "said"),
    [
        (unit(2), 0, OURS, "k: expected at least 1"),
        (unit(2), -1, OURS, "k: expected at least 1"),
        (unit(2, dim=8), 1, OURS, "expected width 16, got 8"),
        (2 * unit(2), 1, OURS, "queries: .*not of unit length"),
        (0 * unit(2), 1, OURS, "queries: .*zero"),
        (np.nan * unit(2), 1, OURS, "queries: .*NaN"),
        (unit(2)[:0], 1, OURS, "shape"),
        (unit(2), 1, THEIRS, f"{OURS[:12]}.*{THEIRS[:12]}"),
        (unit(2), 1, "", "no encoder fingerprint"),
    ],
)
def test_search_refuses(folder: Path, queries: np.ndarray, k: int, fingerprint: str, said: str) -> None:
    with Gallery.open(folder) as gallery:
        for search in (gallery.search, gallery.hits):
            with pytest.raises(DataError, match=said):
                search(as_queries(queries, fingerprint), k)
        assert_answers(gallery, people(10))


def test_hits_and_their_names_are_of_one_state(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A removal between the search and the look-up of names has to wait."""
    search = Layers.search

    def interrupted(*args: Any, **options: Any) -> Neighbours:
        with pytest.raises(DataError, match="another process"):
            writer.remove("p0")
        return search(*args, **options)

    with Gallery.open(folder) as reader, Gallery.open(folder, timeout=0.05) as writer:
        monkeypatch.setattr(Layers, "search", interrupted)
        assert_answers(reader, people(10), k=40)
        monkeypatch.undo()
        assert writer.remove("p0") == 4
        assert_answers(reader, people(9, start=1))


@pytest.mark.parametrize("factory", ["Flat", "IVF32,SQ8", "IVF32,PQ8"])
def test_within_a_radius_has_exact_distances(tmp_path: Path, factory: str) -> None:
    vectors, identities = clustered()
    filled(tmp_path, factory, vectors, identities)
    exact = brute(vectors, vectors[:50])
    with Gallery.open(tmp_path) as gallery:
        found = gallery.within(as_queries(vectors[:50]), 0.7)
        named = gallery.hits_within(as_queries(vectors[:50]), 0.7)
    missed = 0
    for row, answer, hits in zip(exact, found, named, strict=True):
        np.testing.assert_allclose(answer.sq_dist, row[answer.rows - 1], atol=1e-5)
        assert (answer.sq_dist <= 0.7).all()
        assert [hit.id for hit in hits] == [f"f{number - 1}" for number in answer.rows]
        missed += (row < 0.7 - 1e-5).sum() - (answer.sq_dist < 0.7 - 1e-5).sum()
    assert missed == 0


@pytest.mark.parametrize("filtered", [20_000, 0], ids=["stored vectors", "index"])
@pytest.mark.parametrize("factory", ["Flat", "HNSW16", "IVF32,SQ8"])
def test_a_filter_admits_what_it_says(tmp_path: Path, factory: str, filtered: int) -> None:
    vectors, identities = clustered(100)
    metadata = [
        {"camera": i % 3, "door": "a" if i % 2 else "b", "x.y": i % 5 == 0} | ({"note": 1} if i % 7 == 0 else {})
        for i in range(600)
    ]
    with Gallery.open(tmp_path, create=True, limits=Limits(filtered=filtered)) as gallery:
        gallery.configure(factory=factory, recall_target=0.98)
        gallery.add(numbered(vectors, identities), metadata=metadata)
        for where, admits in (
            ({"camera": 1}, lambda i: i % 3 == 1),
            ({"camera": [0, 2], "door": "a"}, lambda i: i % 3 != 1 and i % 2),
            ({"x.y": True}, lambda i: i % 5 == 0),
            ({"note": None}, lambda i: i % 7),
            ({"identity": "p3"}, lambda i: i // 6 == 3),
            ({"id": ["f1", "f2"]}, lambda i: i in (1, 2)),
            ({"camera": "1"}, lambda i: False),
        ):
            allowed = np.array([i for i in range(600) if admits(i)], np.int64)
            found = gallery.search(as_queries(vectors[:20]), 4, where=where)
            near = gallery.within(as_queries(vectors[:20]), 1.0, where=where)
            order = (
                allowed[np.argsort(brute(vectors[allowed], vectors[:20]), 1)[:, :4]]
                if len(allowed)
                else np.empty((20, 0))
            )
            same = found.rows[:, : order.shape[1]] - 1 == order
            assert same.mean() >= 0.97 if order.size else (found.rows == -1).all()
            assert set(found.rows[found.rows >= 0].tolist()) <= set((allowed + 1).tolist())
            assert all(set(one.rows.tolist()) <= set((allowed + 1).tolist()) for one in near)
        by_person = gallery.hits(as_queries(vectors[:1]), 3, where={"camera": 1}, by_identity=True)[0]
        assert len({hit.identity for hit in by_person}) == 3
        for wrong in ({"a": {}}, {"": 1}, {"a": []}, {1: 2}, "camera"):
            with pytest.raises(ConfigError, match="where"):
                gallery.search(as_queries(vectors[:1]), 1, where=wrong)


def test_an_index_that_can_not_be_filtered_says_so(tmp_path: Path) -> None:
    vectors, identities = clustered(60)
    filled(tmp_path, "PCA16,IVF8,SQ8", vectors, identities, recall_target=0.8)
    with (
        Gallery.open(tmp_path, limits=Limits(filtered=0)) as gallery,
        pytest.raises(ConfigError, match="can not be filtered; choose another"),
    ):
        gallery.search(as_queries(vectors[:1]), 1, where={"identity": [f"p{i}" for i in range(40)]})


@pytest.mark.parametrize("factory", ["HNSW16", "IVF32,SQ8", "PQ8x4fs"])
def test_no_answer_is_short_and_within_is_complete(tmp_path: Path, factory: str) -> None:
    """Whatever an index visits: k of N come back, k people, and everything within a radius."""
    vectors, identities = clustered(60, 10)
    filled(tmp_path, factory, vectors, identities, recall_target=0.8)
    with Gallery.open(tmp_path) as gallery:
        assert gallery.info()["index"]["factory"] == factory
        gallery.remove("p3")
        exact, asked = brute(vectors, vectors[:20]), as_queries(vectors[:20])
        exact[:, 30:40] = np.inf
        for k in (40, 300, 560, 590):
            assert (gallery.search(asked, k).rows >= 0).all()
        assert np.isfinite(gallery.search(asked, 590).sq_dist).all()
        for k in (5, 59):
            assert [len({hit.identity for hit in hits}) for hits in gallery.hits(asked, k, by_identity=True)] == [
                k
            ] * 20
        for radius in (0.6, 1.5, 4.0):
            for found, row in zip(gallery.within(asked, radius), exact, strict=True):
                assert sorted(found.rows - 1) == np.flatnonzero(row <= radius).tolist()
                np.testing.assert_allclose(found.sq_dist, np.sort(row)[: len(found.rows)], atol=1e-5)
