"""cluster: both methods against loops or scikit-learn, scores against enumeration, one order of labels."""

from __future__ import annotations

from collections import defaultdict
from itertools import combinations

import numpy as np
import pytest
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from sklearn.cluster import AgglomerativeClustering
from sklearn.metrics import normalized_mutual_info_score

from facenet.cluster import METHODS, PARTS, ROUNDS, _vote, cluster, scores
from facenet.errors import ConfigError, DataError

LARGE = 3001  # one more than "auto" gives to average linkage


def people(count: int, each: int, noise: float, dim: int = 32, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors (count * each, dim) around a centre per person, in random order, and the person of each."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(count), each))
    vectors = rng.normal(size=(count, dim))[labels] + noise * rng.normal(size=(len(labels), dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), labels


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


def chinese_whispers_loops(vectors: np.ndarray, threshold: float, k: int, seed: int) -> np.ndarray:
    """The documented rounds, face by face; the labels that a part sees are those its predecessors left."""
    matrix = np.maximum(2 - 2 * vectors @ vectors.T, 0)
    mates = [[j for j in np.argsort(row, kind="stable") if j != i][:k] for i, row in enumerate(matrix)]
    mates = [[j for j in row if matrix[i, j] <= threshold] for i, row in enumerate(mates)]
    labels, rng = list(range(len(vectors))), np.random.default_rng(seed)
    active = [i for i, row in enumerate(mates) if row]
    for _ in range(ROUNDS):
        before = list(labels)
        for part in np.array_split(rng.permutation(np.asarray(active, np.int64)), PARTS):
            seen = list(labels)
            for i in part:
                votes: dict[int, float] = defaultdict(float)
                for j in mates[i]:
                    votes[seen[j]] += (threshold - matrix[i, j]) / 2 + 1e-6
                labels[i] = min(votes, key=lambda label, votes=votes: (-votes[label], label))
        if labels == before:
            break
        active = [i for i, row in enumerate(mates) if any(labels[j] != before[j] for j in row)]
    return np.asarray(labels)


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


@pytest.mark.parametrize("threshold", [0.3, 0.9, 1.3])
@pytest.mark.parametrize("seed", [0, 1])
def test_chinese_whispers_against_loops(threshold: float, seed: int) -> None:
    vectors, _ = people(20, 8, 0.8, dim=8, seed=seed)
    labels = cluster(vectors, threshold, method="chinese_whispers", neighbours=10, seed=seed)
    want = chinese_whispers_loops(vectors, threshold, 10, seed)
    assert 1 < len(set(want.tolist())) < 160
    assert same_groups(labels, want)


def test_votes_against_a_loop() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, (300, 7)).astype(np.int32)
    weights = rng.integers(1, 4, (300, 7)).astype(np.float32) / 4  # exact sums, many ties
    for row, found in enumerate(_vote(labels, weights)):
        sums = [weights[row][labels[row] == label].sum() for label in range(5)]
        assert found == np.argmax(sums)


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
    rows, columns = np.nonzero(matrix <= 0.9)
    graph = coo_matrix((np.ones(len(rows)), (rows, columns)), shape=matrix.shape)
    chained = scores(connected_components(graph, directed=False)[1], truth)
    found = scores(cluster(vectors, 0.9, method="chinese_whispers"), truth)
    assert found["pairwise_f1"] > 0.85 > 0.1 > chained["pairwise_f1"]
    assert found["bcubed_f1"] > chained["bcubed_f1"] + 0.5


def test_auto_takes_the_method_by_size(monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    for name in list(METHODS):
        monkeypatch.setitem(METHODS, name, lambda v, t, name=name, **_: called.append(name) or np.zeros(len(v), int))
    for count in (LARGE - 1, LARGE):
        cluster(np.ones((count, 1), np.float32), 1.0)
    assert called == ["average_linkage", "chinese_whispers"]


@pytest.mark.parametrize(
    ("vectors", "options", "error", "message"),
    [
        (np.empty((0, 4)), {}, DataError, "N >= 1"),
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
        assert found["nmi"] == pytest.approx(normalized_mutual_info_score(names, labels), abs=1e-12)
        assert (found["clusters"], found["identities"]) == (len(set(labels)), len(set(names)))


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
