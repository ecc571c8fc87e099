"""People who answer by the mean of their faces: the answers of plain loops, and a threshold under the same rule."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from facenet.errors import ConfigError
from facenet.evaluation.thresholds import SearchThreshold
from facenet.gallery.answers import ask
from facenet.gallery.gallery import Gallery
from facenet.gallery.queries import Queries, read_queries
from facenet.gallery.strangers import NAMES
from facenet.types import EmbeddingSet
from facenet.vectors import normalise
from tests.helpers.galleries import OURS, THEIRS, as_queries, brute, clustered, joining, numbered, unit


def by_loops(faces: list[tuple[str, str, np.ndarray]], query: np.ndarray) -> list[tuple[str, float]]:
    """Who answers, nearest first, and at which sq_dist, from (name or "", encoder, vector); the nearest mean counts."""
    groups: dict[tuple[str, str], list[np.ndarray]] = {}
    for place, (name, encoder, vector) in enumerate(faces):
        groups.setdefault((name or f"face {place}", encoder), []).append(vector)
    best: dict[str, float] = {}
    for (name, _), vectors in groups.items():
        mean = np.sum(vectors, 0, np.float64)
        distance = float(((mean / np.linalg.norm(mean) - query) ** 2).sum())
        best[name] = min(best.get(name, 4.0), distance)
    return sorted(best.items(), key=lambda pair: pair[1])


@pytest.mark.parametrize("k", [1, 3, 40])
def test_the_nearest_means_are_those_of_loops(k: int, tmp_path: Path) -> None:
    vectors, names = clustered(12, 4, dim=16)
    names = ["" if i % 7 == 0 else name for i, name in enumerate(names)]
    new = joining(EmbeddingSet(unit(6), [f"n{i}" for i in range(6)], ["p1"] * 3 + ["later"] * 3, THEIRS), [OURS])
    faces = [(name, OURS, vector) for name, vector in zip(names, vectors, strict=True)]
    faces += [(name, THEIRS, vector) for name, vector in zip(new.identities, new.vectors, strict=True)]
    queries = np.concatenate([unit(5, 3), clustered(12, 1, noise=1, dim=16)[0]])
    asked = as_queries(queries, THEIRS, [OURS])
    with Gallery.open(tmp_path, create=True) as gallery:
        gallery.add(numbered(vectors, names))
        gallery.hits(as_queries(queries), k, by_identity=True, identity_by="mean")
        gallery.add(new)  # what was kept of the means is old now
        found = gallery.hits(asked, k, by_identity=True, identity_by="mean")
        rows = gallery.search(asked, k, by_identity=True, identity_by="mean")
    for query, hits, sq_dist in zip(queries, found, rows.sq_dist, strict=True):
        expected = by_loops(faces, query)[:k]
        told = [(hit.identity or f"face {hit.id.removeprefix('f')}", hit.sq_dist) for hit in hits]
        assert [name for name, _ in told] == [name for name, _ in expected]
        np.testing.assert_allclose([at for _, at in told], [at for _, at in expected], atol=1e-5)
        assert np.isinf(sq_dist[len(expected) :]).all()


def test_a_filter_and_opposed_faces(tmp_path: Path) -> None:
    first = unit(1)
    vectors = np.concatenate([first, -first, unit(3, 5)])
    with Gallery.open(tmp_path, create=True) as gallery:
        gallery.add(numbered(vectors, ["both", "both", "a", "a", "b"]), metadata=[{"hall": i % 2} for i in range(5)])
        (found,) = gallery.hits(as_queries(first), 3, by_identity=True, identity_by="mean")
        assert (found[0].identity, found[0].id) == ("both", "f0")
        assert found[0].sq_dist < 1e-5, "two opposed faces have no mean, and the first answers"
        (found,) = gallery.hits(as_queries(first), 3, by_identity=True, identity_by="mean", where={"hall": 0})
        at = {hit.identity: hit.sq_dist for hit in found}
        np.testing.assert_allclose(at["a"], brute(vectors[2:3], first)[0, 0], atol=1e-5)
        for mistake in ({"identity_by": "mean"}, {"by_identity": True, "identity_by": "median"}):
            with pytest.raises(ConfigError, match="identity_by: "):
                gallery.search(as_queries(first), 1, **mistake)


@pytest.mark.parametrize("rule", ["nearest", "mean"])
def test_a_face_that_asks_for_itself_leaves_its_person_in(rule: str, tmp_path: Path) -> None:
    vectors, names = clustered(6, 3, dim=16)
    with Gallery.open(tmp_path, create=True) as gallery:
        gallery.add(numbered(vectors, names))
        query = read_queries("f4", gallery, None)
        (answer,) = ask(gallery, query, k=6, threshold=4.0, by_identity=True, identity_by=rule)
    rest = [3, 5]
    own = normalise(vectors[rest].sum(0)[None]) if rule == "mean" else vectors[rest]
    at = {hit.identity: hit.sq_dist for hit in answer.hits}
    assert len(answer.hits) == 6
    np.testing.assert_allclose(at["p1"], brute(own, vectors[4:5]).min(), atol=1e-5)


def test_a_mean_of_old_vectors_matches_beyond_the_nearest(tmp_path: Path) -> None:
    """Each mean is judged by the threshold of the encoder that made its vectors."""
    first, second = unit(2)
    query = normalise(first[None] * 3 + second)
    near, far = brute(np.stack([first, second]), query)[0]
    old = EmbeddingSet(np.stack([second, second]), ["o1", "o2"], ["old"] * 2, OURS)
    new = joining(EmbeddingSet(np.stack([first, first]), ["n1", "n2"], ["new"] * 2, THEIRS), [OURS])
    with Gallery.open(tmp_path, create=True) as gallery:
        gallery.add(old)
        gallery.add(new)
        asked = Queries(as_queries(query, THEIRS, [OURS]), [None])
        at = SearchThreshold(near - 0.01, {OURS: far + 0.01})
        (answer,) = ask(gallery, asked, k=1, threshold=at, by_identity=True, identity_by="mean")
    assert ([hit.identity for hit in answer.hits], answer.name) == (["new", "old"], "old")


def test_the_threshold_of_means_keeps_the_rate_of_strangers(tmp_path: Path) -> None:
    """The people ask the means without themselves. The threshold of faces would refuse too many of their own."""
    shares, right, others = [], [], []
    for seed in range(4):
        vectors, names = clustered(60, 5, seed=seed, dim=16)
        strangers, asking = (
            clustered(800, 1, seed=50 + seed, dim=16)[0],
            clustered(60, 1, seed=seed, noise=1, dim=16)[0],
        )
        with Gallery.open(tmp_path / str(seed), create=True) as gallery:
            gallery.add(numbered(vectors, names))
            found = gallery.threshold(fpir=0.1, identity_by="mean")
            of_faces = gallery.threshold(fpir=0.1)
            assert {(tmp_path / str(seed) / f"{name}.json").is_file() for name in NAMES.values()} == {True}
            assert gallery.threshold(fpir=0.1, identity_by="mean") == found, "from the cache of the means"
            (near, own) = (
                gallery.hits(as_queries(rows), 1, by_identity=True, identity_by="mean") for rows in (strangers, asking)
            )
        assert (found.faces, of_faces.faces) == (60, 300)
        shares.append(np.mean([hits[0].accepted(found.sq_dist) for hits in near]))
        others.append(np.mean([hits[0].accepted(of_faces.sq_dist) for hits in near]))
        named = [hits[0].accepted(found.sq_dist) and hits[0].identity == f"p{i}" for i, hits in enumerate(own)]
        right.append(np.mean(named) - found.right)
    assert 0.05 <= np.mean(shares) <= 0.125
    assert abs(np.mean(right)) < 0.05, "what the threshold says it keeps"
    assert abs(np.mean(others) - 0.1) > 0.03, "faces have another threshold"
