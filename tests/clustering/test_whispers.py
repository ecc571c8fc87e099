"""whispers: votes and rounds against loops, frozen labels, and the same result for the same seed."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from facenet.clustering.whispers import FLOOR, ONE_WAY, PARTS, ROUNDS, edges, vote, weaken_one_way, whisper
from facenet.neighbours import knn_graph
from facenet.types import Neighbours
from tests.helpers.clusters import people


def loops(weights: np.ndarray, labels: list[int], seed: int) -> list[int]:
    """The documented rounds over dense weights (N, M), face by face; a part sees what its predecessors left."""
    labels, rng = list(labels), np.random.default_rng(seed)
    mates = [np.flatnonzero(row).tolist() for row in weights]
    active = [i for i, row in enumerate(mates) if row]
    for _ in range(ROUNDS):
        before = list(labels)
        for part in np.array_split(rng.permutation(np.asarray(active, np.int64)), PARTS):
            seen = list(labels)
            for i in part.tolist():
                votes: dict[int, float] = defaultdict(float)
                for j in mates[i]:
                    votes[seen[j]] += weights[i, j]
                labels[i] = min(votes, key=lambda label, votes=votes: (-votes[label], label))
        if labels == before:
            break
        active = [i for i, row in enumerate(mates) if any(labels[j] != before[j] for j in row)]
    return labels[: len(weights)]


def test_edges_are_those_within_the_threshold_and_weigh_the_squared_margin() -> None:
    found = Neighbours(np.array([[1, 2, -1], [2, 0, -1], [0, -1, -1]]), np.array([[0.2, 1.0, np.inf]] * 3, np.float32))
    dense = edges(found, 1.0).toarray()
    near, at = 0.16 + FLOOR, FLOOR
    np.testing.assert_allclose(dense, [[0, near, at], [at, 0, near], [near, 0, 0]], rtol=1e-5)
    assert edges(found, 0.1).nnz == 0
    assert edges(found, 1.0, 7).shape == (3, 7)
    weak = weaken_one_way(edges(found, 1.0)).toarray()  # only 0 and 2 are each other's neighbours, so are 0 and 1
    share = np.where((dense > 0) & (dense.T > 0), 1, ONE_WAY)
    np.testing.assert_allclose(weak, dense * share, rtol=1e-5)
    assert {float(ONE_WAY), 1.0} <= {float(value) for value in share[dense > 0]}


@given(st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_votes_against_a_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    dense = rng.integers(1, 4, (30, 40)) / 4 * (rng.random((30, 40)) < 0.3)  # exact sums, many ties
    labels = rng.integers(0, 5, 40).astype(np.int32)
    rows = rng.permutation(np.flatnonzero(dense.any(1)))
    found = vote(sparse.csr_array(dense.astype(np.float32)), rows, labels)
    sums = np.stack([dense[:, labels == label].sum(1) for label in range(5)], 1)
    np.testing.assert_array_equal(found, sums[rows].argmax(1))


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("threshold", [0.3, 0.9, 1.3])
def test_rounds_against_loops(threshold: float, seed: int) -> None:
    vectors, _ = people(20, 8, 0.8, dim=8, seed=seed)
    weights = weaken_one_way(edges(knn_graph(vectors, 10), threshold))
    labels = whisper(weights, np.arange(len(vectors)), seed=seed)
    assert 1 < len(set(labels.tolist())) < 160
    assert labels.tolist() == loops(weights.toarray().astype(float), list(range(len(vectors))), seed)


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_labels_beyond_the_faces_stay_and_can_be_voted_for(seed: int) -> None:
    rng = np.random.default_rng(seed)
    dense = rng.random((12, 15)) * (rng.random((12, 15)) < 0.3)
    labels = np.concatenate((np.arange(12) + 3, np.arange(3)))
    given_labels = labels.copy()
    found = whisper(sparse.csr_array(dense.astype(np.float32)), labels, seed=seed)
    assert found.tolist() == loops(dense.astype(np.float32).astype(float), labels.tolist(), seed)
    np.testing.assert_array_equal(labels, given_labels)


def test_the_seed_decides_and_nothing_else() -> None:
    vectors, _ = people(60, 6, 1.3, dim=12)
    weights = edges(knn_graph(vectors, 12), 1.4)
    first = [whisper(weights, np.arange(360), seed=seed).tolist() for seed in range(3)]
    assert first == [whisper(weights, np.arange(360), seed=seed).tolist() for seed in range(3)]
    assert first[0] != first[1], "where it is hard, the order of visits matters"


def test_faces_without_edges_keep_their_labels() -> None:
    found = whisper(sparse.csr_array((4, 4), dtype=np.float32), np.array([3, 1, 2, 0]))
    assert found.tolist() == [3, 1, 2, 0]
