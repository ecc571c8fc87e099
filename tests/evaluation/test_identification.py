"""identify: ranks, average precision and TPIR against plain loops and scikit-learn; who is enrolled."""

from __future__ import annotations

import functools
import json

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, label_ranking_average_precision_score

from facenet.errors import ConfigError, DataError
from facenet.evaluation.identification import enrol, identify
from tests.helpers.verification import unit


def case(seed: int, lattice: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Gallery of 40 people with one to five faces, probes of 60 people; on a lattice distances are tied."""
    rng = np.random.default_rng(seed)
    people = rng.integers(0, 60, 420)
    vectors = unit(420, 6, people, seed)
    if lattice:
        vectors = rng.choice(np.float32([-0.25, 0.25]), (60, 16))[people]
        flip = rng.random((420, 16)) < 0.2
        vectors = np.where(flip, -vectors, vectors)
    ids = np.asarray([f"p{n:02d}" for n in people])
    in_gallery = (np.arange(420) % 3 == 0) & (people < 40)
    return vectors[in_gallery], ids[in_gallery], vectors[~in_gallery], ids[~in_gallery]


def by_loops(
    gallery: np.ndarray, gallery_ids: np.ndarray, probes: np.ndarray, probe_ids: np.ndarray
) -> tuple[list[int], list[float], list[float], list[float]]:
    """Ranks and average precision of mated probes, distances of those found first, nearest distances of strangers."""
    ranks, precisions, right, wrong = [], [], [], []
    for probe, name in zip(probes, probe_ids, strict=True):
        distances = np.maximum(2 - 2 * (gallery @ probe), 0)
        person = {other: min(distances[gallery_ids == other]) for other in set(gallery_ids)}
        if name not in person:
            wrong.append(min(distances))
            continue
        ranks.append(1 + sum(d <= person[name] for other, d in person.items() if other != name))
        precisions.append(average_precision_score(gallery_ids == name, -distances))
        if ranks[-1] == 1:
            right.append(person[name])
    return ranks, precisions, right, wrong


@functools.cache
def loops_of_case(lattice: bool) -> tuple[list[int], list[float], list[float], list[float]]:
    return by_loops(*case(3, lattice))


@pytest.mark.parametrize("lattice", [False, True])
@pytest.mark.parametrize("block_rows", [None, 1, 37])
def test_everything_against_loops(lattice: bool, block_rows: int | None) -> None:
    data = case(3, lattice)
    found = identify(*data, ranks=(1, 3, 10), fpirs=(0.3, 0.1, 1e-3), block_rows=block_rows)
    ranks, precisions, right, wrong = loops_of_case(lattice)
    assert (found.probes, found.strangers, found.gallery) == (len(ranks), len(wrong), len(data[0]))
    assert found.cmc == {k: np.mean(np.asarray(ranks) <= k) for k in (1, 3, 10)}
    assert 0.1 < found.cmc[1] < found.cmc[3] < found.cmc[10] < 1
    assert found.mean_average_precision == pytest.approx(np.mean(precisions), abs=1e-12)
    for fpir, row in found.tpir_at_fpir.items():
        assert row["strangers"] == len(wrong)
        best = [
            np.sum(np.asarray(right) <= t) / len(ranks)
            for t in [-1.0, *right, *wrong]
            if np.mean(np.asarray(wrong) <= t) <= fpir
        ]
        assert row["resolvable"] == (fpir * len(wrong) >= 1)
        if row["resolvable"]:
            assert row["tpir"] == pytest.approx(max(best), abs=1e-12)
            assert row["low"] <= row["tpir"] <= row["high"]
            assert np.mean(np.asarray(wrong) <= row["threshold"] - 1e-6) <= fpir
        else:
            assert row["tpir"] is row["threshold"] is None


@pytest.mark.parametrize("lattice", [False, True])
def test_map_is_the_label_ranking_average_precision_of_scikit_learn(lattice: bool) -> None:
    gallery, gallery_ids, probes, probe_ids = case(4, lattice)
    mated = np.isin(probe_ids, gallery_ids)
    truth = probe_ids[mated][:, None] == gallery_ids[None]
    scores = -np.maximum(2 - 2 * (probes[mated] @ gallery.T), 0)
    want = label_ranking_average_precision_score(truth, scores)
    found = identify(gallery, gallery_ids, probes, probe_ids)
    assert found.mean_average_precision == pytest.approx(want, abs=1e-12)
    assert 0.2 < want < 0.95


def test_a_constant_embedding_finds_nobody() -> None:
    vectors = np.tile(np.float32([1, 0]), (30, 1))
    ids = np.asarray([f"p{i % 10}" for i in range(30)])
    found = identify(vectors[:10], ids[:10], vectors[10:], ids[10:])
    assert found.cmc == {1: 0.0, 5: 0.0, 10: 1.0, 20: 1.0}
    assert found.mean_average_precision == pytest.approx(0.1)


def test_order_does_not_matter_and_metrics_are_plain_json() -> None:
    gallery, gallery_ids, probes, probe_ids = case(5, lattice=True)
    found = identify(gallery, gallery_ids, probes, probe_ids)
    turned = np.random.default_rng(0).permutation(len(gallery))
    again = identify(gallery[turned], gallery_ids[turned], probes[::-1], probe_ids[::-1])
    metrics = found.metrics()
    assert again.metrics() == {**metrics, "map": pytest.approx(metrics["map"], abs=1e-12)}
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics
    assert metrics["rank1"] == metrics["cmc"]["1"]


def test_without_strangers_no_rate_is_resolvable() -> None:
    ids = np.asarray(["a", "b"])
    found = identify(np.eye(2, dtype=np.float32), ids, np.eye(2, dtype=np.float32), ids)
    assert (found.cmc[1], found.strangers) == (1.0, 0)
    assert not any(row["resolvable"] for row in found.tpir_at_fpir.values())


def test_what_can_not_be_compared_raises() -> None:
    vectors, ids = np.eye(2, dtype=np.float32), np.asarray(["a", "b"])
    with pytest.raises(DataError, match="an id for each vector"):
        identify(vectors, ids[:1], vectors, ids)
    with pytest.raises(DataError, match="none of 2 probes shows one of the 2 people enrolled"):
        identify(vectors, ids, vectors, np.asarray(["c", "d"]))
    with pytest.raises(DataError, match="NaN"):
        identify(vectors, ids, vectors * np.nan, ids)
    with pytest.raises(ConfigError, match="ranks"):
        identify(vectors, ids, vectors, ids, ranks=(0,))


def test_who_is_enrolled() -> None:
    names = [f"p{i:02d}" for i in range(20) for _ in range(1 + i % 4)] + ["", ""]
    for faces in (1, 2):
        gallery, probes = enrol(names, gallery_faces=faces, strangers=0.4, seed=1)
        enrolled = [names[i] for i in gallery]
        able = {name for name in names if name and names.count(name) > faces}
        assert set(enrolled) < able
        assert len(set(enrolled)) == len(able) - round(0.4 * len(able))
        assert all(enrolled.count(name) == faces for name in enrolled)
        assert sorted([*gallery, *probes]) == list(range(len(names) - 2)), "all but the unknown, each once"
        again = enrol(names, gallery_faces=faces, strangers=0.4, seed=1)
        assert (again.gallery.tolist(), again.probes.tolist()) == (gallery.tolist(), probes.tolist())
        assert enrol(names, gallery_faces=faces, strangers=0.4, seed=2).gallery.tolist() != gallery.tolist()
    with pytest.raises(DataError, match="none of 3 people has more than 1 faces"):
        enrol(["a", "b", "c", ""])
    with pytest.raises(ConfigError, match="strangers"):
        enrol(names, strangers=1.0)
