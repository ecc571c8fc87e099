"""Neighbours beside brute force, exact and by cells, with duplicates, and equal on any number of threads."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facenet.errors import ConfigError, DataError
from facenet.neighbours import cells_for, knn_graph, knn_search
from facenet.types import Neighbours
from tests.helpers import ROOT
from tests.helpers.clusters import people


def brute(vectors: np.ndarray, k: int) -> list[list[float]]:
    """The sorted squared distances of the k nearest others of each vector."""
    matrix = ((vectors[:, None].astype(float) - vectors[None]) ** 2).sum(-1)
    return [sorted(np.delete(row, i).tolist())[:k] for i, row in enumerate(matrix)]


def check(found: Neighbours, vectors: np.ndarray, k: int, tolerance: float = 1e-5) -> None:
    """Everything that must hold of the k nearest others, by distance, since equal distances come in any order."""
    count = len(vectors)
    present = min(k, count - 1)
    assert found.rows.shape == found.sq_dist.shape == (count, k)
    assert (found.rows[:, present:] == -1).all()
    assert np.isinf(found.sq_dist[:, present:]).all()
    for i, (rows, sq_dist) in enumerate(zip(found.rows[:, :present], found.sq_dist[:, :present], strict=True)):
        assert i not in rows, "a face is no neighbour of itself"
        assert len(set(rows.tolist())) == present
        assert rows.min(initial=0) >= 0
        np.testing.assert_allclose(((vectors[rows] - vectors[i]) ** 2).sum(1), sq_dist, atol=tolerance)
        assert (np.diff(sq_dist) >= 0).all()
    np.testing.assert_allclose(found.sq_dist[:, :present], brute(vectors, k), atol=tolerance)


@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 6), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_the_exact_graph_is_brute_force_even_with_duplicates(count: int, k: int, distinct: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(distinct, 4)).astype(np.float32)[rng.integers(0, distinct, count)]
    check(knn_graph(vectors, k), vectors, k)


def test_blocks_do_not_change_the_graph() -> None:
    vectors, _ = people(25, 8, 0.8)
    whole = knn_graph(vectors, 5)
    parts = knn_graph(vectors, 5, block=32)
    np.testing.assert_array_equal(parts.rows, whole.rows)
    check(parts, vectors, 5)


def test_every_cell_looked_into_is_brute_force() -> None:
    vectors, _ = people(50, 10, 0.8)
    found = knn_graph(vectors, 6, exact_to=10, recall=1.01)  # which no number of cells reaches
    check(found, vectors, 6, tolerance=4e-3)  # of vectors rounded to 16 bits


def test_cells_find_the_share_asked_for_and_no_more_than_they_need() -> None:
    vectors, _ = people(400, 10, 1.2, dim=24)
    exact = knn_graph(vectors, 10)
    for recall, most in ((0.5, 0.8), (0.8, 0.93), (0.9, 0.995)):
        found = knn_graph(vectors, 10, exact_to=10, recall=recall)
        share = (exact.rows[:, :, None] == found.rows[:, None]).any(2).mean()
        assert recall - 0.05 < share < most, "half as many cells would not have been enough"


@pytest.mark.parametrize("exact_to", [5000, 10])
def test_the_same_to_the_last_bit_on_any_number_of_threads(exact_to: int) -> None:
    vectors, _ = people(300, 10, 1.0, dim=48)
    one, two, three = (knn_graph(vectors, 8, exact_to=exact_to, threads=threads) for threads in (1, 2, 3))
    for other in (two, three):
        np.testing.assert_array_equal(one.rows, other.rows)
        np.testing.assert_array_equal(one.sq_dist, other.sq_dist)
    if exact_to == 10:
        again = knn_graph(vectors, 8, exact_to=exact_to, seed=1)
        assert (again.rows != one.rows).any(), "cells depend on the seed"


def test_a_worker_computes_on_one_thread_whatever_the_environment_says() -> None:
    code = """if True:
        import faiss, numpy
        from facenet import neighbours as knn
        seen = []
        knn._share_out(lambda start: seen.append(faiss.omp_get_max_threads()), 3 * knn.BLOCK, 2)
        print(faiss.omp_get_max_threads(), sorted(seen))"""
    environment = {**os.environ, "OMP_NUM_THREADS": "3", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
    assert done.stdout == "3 [1, 1, 1]\n"


def test_places_that_the_cells_looked_into_do_not_fill_are_absent() -> None:
    found = knn_graph(people(100, 10, 0.8)[0], 200, exact_to=10, recall=0.0, least_cells=1)
    absent = found.rows < 0
    assert 0 < absent.sum() < absent.size
    assert np.isinf(found.sq_dist[absent]).all()
    assert found.sq_dist[~absent].max() < 4.1


def test_the_number_of_threads_is_left_as_it_was() -> None:
    import faiss

    before = faiss.omp_get_max_threads()
    knn_graph(np.eye(4, dtype=np.float32), 2, threads=3)
    assert faiss.omp_get_max_threads() == before


def test_duplicates_in_cells() -> None:
    vectors = np.repeat(people(20, 5, 0.8)[0], 4, axis=0)
    found = knn_graph(vectors, 3, exact_to=10)
    assert (found.sq_dist < 1e-2).all()
    assert (found.rows // 4 == np.arange(400)[:, None] // 4).all()
    assert (found.rows != np.arange(400)[:, None]).all()


def test_nearest_against_brute_force() -> None:
    vectors, queries = people(20, 4, 0.8)[0], people(5, 3, 0.8, seed=1)[0]
    matrix = ((queries[:, None].astype(float) - vectors[None]) ** 2).sum(-1)
    found = knn_search(vectors, queries, 7)
    np.testing.assert_allclose(found.sq_dist, np.sort(matrix, 1)[:, :7], atol=1e-5)
    np.testing.assert_allclose(np.take_along_axis(matrix, found.rows, 1), found.sq_dist, atol=1e-5)
    few = knn_search(vectors[:2], queries, 3)
    assert (few.rows[:, 2] == -1).all()
    assert np.isinf(few.sq_dist[:, 2]).all()


@pytest.mark.parametrize("count", [1, 39, 200, 1000, 50_001, 200_000, 1_000_000])
def test_cells_are_a_power_of_two_with_forty_faces_each(count: int) -> None:
    cells = cells_for(count)
    assert cells & (cells - 1) == 0
    assert cells == 1 or cells * 40 <= count
    if count >= 50_001:
        assert 2 * count**0.5 < cells < 8 * count**0.5


@pytest.mark.parametrize(
    ("vectors", "options", "error", "message"),
    [
        (np.zeros((0, 3)), {}, DataError, "N, D >= 1"),
        (np.zeros(3), {}, DataError, r"\(N, D\)"),
        (np.full((2, 2), np.inf), {}, DataError, "2 of 2 vectors, row 0, row 1: are NaN, infinite"),
        (np.eye(2), {"k": 0}, DataError, "k >= 1"),
        (np.eye(2), {"threads": 0}, ConfigError, "threads"),
    ],
)
def test_bad_input_raises(vectors: np.ndarray, options: dict, error: type, message: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(error, match=message):
        knn_graph(vectors, **{"k": 1, **options})
    if error is DataError:
        with pytest.raises(error, match=message):
            knn_search(vectors, np.eye(2), **{"k": 1, **options})


def test_queries_of_another_width_raise() -> None:
    with pytest.raises(DataError, match="width 3 for vectors of width 2"):
        knn_search(np.eye(2), np.eye(3), 1)
