"""cluster: both methods, new faces among known clusters, scores against enumeration, one order of labels."""

from __future__ import annotations

import math
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from sklearn.cluster import AgglomerativeClustering

from facenet.clustering import whispers
from facenet.clustering.clusters import METHODS, assign, cluster, method_for, read_clusters, scores, write_clusters
from facenet.errors import ConfigError, DataError
from facenet.neighbours import knn_graph
from tests.helpers.clusters import people

LARGE = 3001  # one more than "auto" gives to average linkage


def same_groups(one: np.ndarray, two: np.ndarray) -> bool:
    return len(set(zip(one.tolist(), two.tolist(), strict=True))) == len(set(one.tolist())) == len(set(two.tolist()))


def average_linkage_loops(vectors: np.ndarray, threshold: float) -> np.ndarray:
    """Merge the pair of clusters with the least mean squared distance, while it is at most the threshold."""
    matrix = ((vectors[:, None].astype(float) - vectors[None]) ** 2).sum(-1)
    groups = [[i] for i in range(len(vectors))]
    while len(groups) > 1:
        least, a, b = min(
            (matrix[np.ix_(groups[a], groups[b])].mean(), a, b) for a, b in combinations(range(len(groups)), 2)
        )
        if least > threshold:
            break
        groups[a] += groups.pop(b)
    labels = np.empty(len(vectors), int)
    for number, group in enumerate(groups):
        labels[group] = number
    return labels


@pytest.mark.parametrize("threshold", [0.4, 1.0, 1.5])
def test_average_linkage_against_loops(threshold: float) -> None:
    vectors, _ = people(8, 5, 0.9, dim=6)
    labels = cluster(vectors, threshold, method="average_linkage")
    want = average_linkage_loops(vectors, threshold)
    assert 1 < len(set(want.tolist())) < 40
    assert same_groups(labels, want)


def test_average_linkage_against_scikit_learn() -> None:
    vectors, _ = people(40, 10, 1.0)
    matrix = np.maximum(2 - 2 * vectors.astype(float) @ vectors.T, 0)
    model = AgglomerativeClustering(None, metric="precomputed", linkage="average", distance_threshold=1.2)
    assert same_groups(cluster(vectors, 1.2, method="average_linkage"), model.fit_predict(matrix))


@pytest.mark.parametrize("method", METHODS)
def test_clear_groups_are_found(method: str) -> None:
    vectors, truth = people(30, 12, 0.3)
    labels = cluster(vectors, 1.0, method=method)
    assert same_groups(labels, truth)
    assert labels.dtype == np.int64
    assert len(set(cluster(vectors, 0.0, method=method).tolist())) == len(vectors)
    np.testing.assert_array_equal(labels, cluster(vectors, 1.0, method=method))


@pytest.mark.parametrize("method", METHODS)
def test_labels_run_from_the_largest_group_down(method: str) -> None:
    vectors = np.repeat(np.eye(5, dtype=np.float32)[[0, 1, 2, 1, 3, 3, 4, 1]], 1, axis=0)
    assert cluster(vectors, 0.1, method=method).tolist() == [2, 0, 3, 0, 1, 1, 4, 0]


@pytest.mark.parametrize("method", METHODS)
def test_few_faces_and_duplicates(method: str) -> None:
    one = np.eye(3, dtype=np.float32)[:1]
    assert cluster(one, 1.0, method=method).tolist() == [0]
    assert cluster(np.repeat(one, 2, 0), 0.0, method=method).tolist() == [0, 0]
    assert len(set(cluster(np.repeat(one, 50, 0), 0.0, method=method, neighbours=60).tolist())) == 1


def test_chinese_whispers_does_not_chain_as_connected_components_do() -> None:
    vectors, truth = people(100, 20, 0.9, dim=32)
    matrix = np.maximum(2 - 2 * vectors @ vectors.T, 0)
    rows, columns = np.nonzero(matrix <= 1.0)
    graph = coo_matrix((np.ones(len(rows)), (rows, columns)), shape=matrix.shape)
    chained = scores(connected_components(graph, directed=False)[1], truth)
    found = scores(cluster(vectors, 1.0, method="chinese_whispers"), truth)
    assert found["pairwise_f1"] > 0.85 > 0.1 > chained["pairwise_f1"]
    assert found["bcubed_f1"] > chained["bcubed_f1"] + 0.5


def test_auto_takes_the_method_by_size() -> None:
    assert (method_for(LARGE - 1), method_for(LARGE)) == ("average_linkage", "chinese_whispers")
    assert method_for(LARGE, "average_linkage") == "average_linkage"
    with pytest.raises(ConfigError, match="chinese_whispers"):
        method_for(1, "chinese")


def test_threads_do_not_change_the_clusters() -> None:
    vectors, _ = people(150, 20, 1.2, dim=32)
    one, two = (cluster(vectors, 1.0, method="chinese_whispers", threads=threads) for threads in (1, 2))
    np.testing.assert_array_equal(one, two)
    assert len(set(one.tolist())) > 1
    other = cluster(vectors, 1.0, method="chinese_whispers", seed=1)
    assert not same_groups(one, other), "hard enough for the seed to matter"


def test_hubs_do_not_join_clusters() -> None:
    """Three faces as near to everybody as their own mates are: in everybody's lists, but with few in their own."""
    rng = np.random.default_rng(0)
    truth = np.repeat(np.arange(8), 5)
    vectors = np.zeros((43, 60))
    vectors[:, 0] = 1
    vectors[np.arange(40), 1 + truth] = 1
    vectors[:40, 10:] = rng.normal(size=(40, 50)) * (2 / 50) ** 0.5  # mates and hubs at 1.0, strangers at 1.5
    vectors[40:, 10:] = rng.normal(size=(3, 50)) * 0.03
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    found = scores(cluster(vectors, 1.3, method="chinese_whispers", neighbours=7)[:40], truth.astype(str))
    weights = whispers.edges(knn_graph(vectors, 7), 1.3)  # as they are, none weakened
    joined = scores(whispers.whisper(weights, np.arange(43))[:40], truth.astype(str))
    assert found["pairwise_f1"] > 0.85 > 0.6 > joined["pairwise_f1"]


def test_new_faces_join_their_clusters_or_found_new_ones() -> None:
    vectors, truth = people(40, 12, 0.5)
    known = truth < 30
    known[np.flatnonzero(known)[::4]] = False  # a quarter of the faces of 30 people, and all of ten, are new
    labels = 7 * truth[known] + 5  # numbers need not be dense
    found = assign(vectors[~known], vectors[known], labels, 1.0)
    assert found.dtype == np.int64
    old = truth[~known] < 30
    np.testing.assert_array_equal(found[old], 7 * truth[~known][old] + 5)
    strangers = found[~old]
    assert same_groups(strangers, truth[~known][~old])
    assert sorted(set(strangers.tolist())) == list(range(labels.max() + 1, labels.max() + 11))
    one, two = (assign(vectors[~known], vectors[known], labels, 1.0, threads=threads) for threads in (1, 2))
    np.testing.assert_array_equal(one, two)


def test_new_clusters_are_numbered_the_largest_first() -> None:
    axes = np.eye(5, dtype=np.float32)
    found = assign(axes[[2, 1, 3, 1, 0, 3, 3, 4]], axes[[0, 4]], np.array([9, 2]), 0.1)
    assert found.tolist() == [12, 11, 10, 11, 9, 10, 10, 2]


def test_faces_of_somebody_new_outvote_a_stranger_who_looks_alike() -> None:
    """Each of six new faces is within the threshold of one known face, and nearer to each other."""
    rng = np.random.default_rng(0)
    new = np.eye(8, dtype=np.float32)[0] + 0.1 * rng.normal(size=(6, 8)).astype(np.float32)
    known = np.eye(8, dtype=np.float32)[:1] + np.float32(0.9) * np.eye(8, dtype=np.float32)[1:2]
    new, known = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (new, known))
    assert ((new - known) ** 2).sum(1).max() < 1.0, "or nothing would be outvoted"
    assert assign(new[:1], known, np.array([0]), 1.0).tolist() == [0], "alone it joins"
    assert assign(new, known, np.array([0]), 1.0).tolist() == [1] * 6


@pytest.mark.parametrize(
    ("new", "labels", "options", "error", "message"),
    [
        (np.eye(3), np.arange(2), {}, DataError, "each of 3 known"),
        (np.eye(3), np.array([0.0, 1, 2]), {}, DataError, "cluster number"),
        (np.eye(3), np.array([0, 1, -1]), {}, DataError, ">= 0"),
        (np.eye(4), np.arange(3), {}, DataError, "width 4"),
        (np.eye(3), np.arange(3), {"threshold": 5.0}, ConfigError, r"\[0, 4\]"),
        (np.full((1, 3), np.nan), np.arange(3), {}, DataError, "NaN"),
        (np.zeros((0, 3)), np.arange(3), {}, DataError, "N, D >= 1"),
    ],
)
def test_bad_assignments_raise(
    new: np.ndarray,
    labels: np.ndarray,
    options: dict,  # type: ignore[type-arg]
    error: type,
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        assign(new, np.eye(3), labels, **{"threshold": 1.0, **options})


@pytest.mark.parametrize(
    ("vectors", "options", "error", "message"),
    [
        (np.empty((0, 4)), {}, DataError, "N, D >= 1"),
        (np.ones(4), {}, DataError, r"\(N, D\)"),
        (np.full((3, 2), np.nan), {}, DataError, "NaN"),
        (np.eye(3), {"threshold": 4.1}, ConfigError, r"\[0, 4\], got 4.1"),
        (np.eye(3), {"threshold": -0.1}, ConfigError, r"\[0, 4\]"),
        (np.eye(3), {"threshold": float("nan")}, ConfigError, r"\[0, 4\]"),
        (np.eye(3), {"neighbours": 0}, ConfigError, "neighbours >= 1"),
        (np.eye(3), {"method": "chinese_whisper"}, ConfigError, "did you mean 'chinese_whispers'"),
        (np.ones((20_001, 1)), {"method": "average_linkage"}, DataError, "chinese_whispers"),
    ],
)
def test_bad_input_raises(vectors: np.ndarray, options: dict, error: type, message: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(error, match=message):
        cluster(vectors, **{"threshold": 1.0, **options})


def nmi_loops(labels: list[int], names: list[str]) -> float:
    """Mutual information over the mean of the two entropies, cell by cell."""
    share = 1 / len(labels)
    one, other, both = (
        {cell: share * n for cell, n in Counter(cells).items()}
        for cells in (labels, names, zip(labels, names, strict=True))
    )
    information = sum(p * math.log(p / (one[i] * other[j])) for (i, j), p in both.items())
    return -2 * information / sum(p * math.log(p) for part in (one, other) for p in part.values())


def test_scores_against_enumeration() -> None:
    rng = np.random.default_rng(0)
    for case in range(20):
        labels, names = rng.integers(0, 6, 40), rng.integers(0, 7, 40).astype(str)
        if case % 2:
            labels = np.where(rng.random(40) < 0.8, names.astype(int), labels)
        found = scores(labels, names)
        claimed = {(a, b) for a, b in combinations(range(40), 2) if labels[a] == labels[b]}
        true = {(a, b) for a, b in combinations(range(40), 2) if names[a] == names[b]}
        both = len(claimed & true)
        assert found["pairwise_precision"] == pytest.approx(both / len(claimed))
        assert found["pairwise_recall"] == pytest.approx(both / len(true))
        assert found["pairwise_f1"] == pytest.approx(2 * both / (len(claimed) + len(true)))
        precision = np.mean([np.mean(names[labels == labels[i]] == names[i]) for i in range(40)])
        recall = np.mean([np.mean(labels[names == names[i]] == labels[i]) for i in range(40)])
        assert found["bcubed_precision"] == pytest.approx(precision)
        assert found["bcubed_recall"] == pytest.approx(recall)
        assert found["bcubed_f1"] == pytest.approx(2 * precision * recall / (precision + recall))
        assert found["nmi"] == pytest.approx(nmi_loops(labels.tolist(), names.tolist()), abs=1e-12)
        assert (found["clusters"], found["identities"]) == (len(set(labels)), len(set(names)))
        assert found["clusters_per_identity"] == len(set(labels)) / len(set(names))


def test_scores_at_the_edges() -> None:
    perfect = scores(np.asarray([0, 0, 1, 5]), ["a", "a", "b", ""])  # the unknown face is left out
    assert {value for key, value in perfect.items() if key not in ("clusters", "identities")} == {1.0}
    assert (perfect["clusters"], perfect["identities"]) == (2, 2)
    apart = scores(np.arange(4), ["a", "a", "b", "b"])
    assert (apart["pairwise_precision"], apart["pairwise_recall"], apart["pairwise_f1"]) == (1.0, 0.0, 0.0)
    assert (apart["bcubed_precision"], apart["bcubed_recall"]) == (1.0, 0.5)
    assert scores(np.zeros(3, int), ["a"] * 3)["nmi"] == 1.0
    assert scores(np.zeros(4, int), ["a", "a", "b", "b"])["nmi"] == 0.0
    with pytest.raises(DataError, match="none that is known"):
        scores(np.zeros(2, int), ["", ""])
    with pytest.raises(DataError, match="one identity for each label"):
        scores(np.zeros(2, int), ["a"])


def test_what_is_written_is_read_for_any_of_the_paths(tmp_path: Path) -> None:
    paths = ["b/1.jpg", "a,2.jpg", "ü/3.jpg", 'd"4.jpg']
    write_clusters(tmp_path / "clusters.csv", np.array([2, 0, 2, 11]), paths, ["b", "", "u", "d"])
    lines = (tmp_path / "clusters.csv").read_text(encoding="utf-8").splitlines()
    assert lines[:3] == ["cluster,path,identity", '0,"a,2.jpg",', "2,b/1.jpg,b"]
    assert read_clusters(tmp_path / "clusters.csv", paths[::-1]).tolist() == [11, 2, 0, 2]
    assert read_clusters(tmp_path / "clusters.csv", ["b/1.jpg"]).dtype == np.int64


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cluster,image\n0,a\n", "missing: path"),
        ("", "missing: cluster, path"),
        ("cluster,path\nx,a\n", "cluster of a: expected a number of at least 0, got 'x'"),
        ("cluster,path\n-1,a\n", "got '-1'"),
        ("cluster,path\n" + "9" * 5000 + ",a\n", "got '9999"),
        ("cluster,path\n" + "9" * 19 + ",a\n", "got '9999"),
        ("cluster,path\n0,a\n1,a\n", "a is in clusters 0 and 1"),
        ("cluster,path\n0,b\n", "1 of 1 known faces are not in it, the first a"),
        ("\udcff\udcfe", "not readable as CSV"),
    ],
)
def test_files_that_do_not_fit_raise(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "clusters.csv"
    file.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(DataError, match=message):
        read_clusters(file, ["a"])


def test_no_such_file_raises(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere.csv: no such file"):
        read_clusters(tmp_path / "nowhere.csv", ["a"])
