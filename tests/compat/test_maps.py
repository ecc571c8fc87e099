"""Maps between two spaces: a known turn is found, and no orthogonal or linear map does better."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from facenet.compat.maps import MAPS, apply, linear, matched, procrustes
from facenet.errors import DataError
from facenet.vectors import normalise, sq_dist
from tests.helpers.compat import sets


def test_a_known_turn_is_found_by_both() -> None:
    rng = np.random.default_rng(0)
    source = normalise(rng.normal(size=(60, 8)))
    turn = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    target = (source @ turn).astype(np.float32)
    for make in MAPS.values():
        np.testing.assert_allclose(make(source, target), turn, atol=1e-5)
        np.testing.assert_allclose(apply(make(source, target), source), target, atol=1e-5)


def test_on_noisy_faces_each_is_the_best_of_its_kind() -> None:
    given = sets(30)
    source, target = given["reference"].vectors, given["old"].vectors
    turn, free = procrustes(source, target), linear(source, target)
    left, _, right = np.linalg.svd(source.astype(float).T @ target.astype(float))
    np.testing.assert_allclose(turn, left @ right, rtol=0, atol=1e-12)
    np.testing.assert_allclose(turn @ turn.T, np.eye(12), atol=1e-10)
    np.testing.assert_allclose(source.T @ (source @ free - target), 0, atol=1e-4)  # normal equations

    def loss(weights: np.ndarray) -> float:
        return float(np.sum((source @ weights - target) ** 2))

    rng = np.random.default_rng(1)
    for _ in range(50):
        step = np.linalg.qr(np.eye(12) + 0.05 * rng.normal(size=(12, 12)))[0]
        step *= np.sign(np.diag(step))
        assert loss(turn @ step) > loss(turn)
    assert loss(free) < loss(turn) < loss(np.eye(12))
    mapped = apply(free, source)
    assert mapped.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(mapped, axis=1), 1, atol=1e-5)
    assert sq_dist(mapped, target).mean() < sq_dist(source, target).mean()


def test_fewer_faces_than_dimensions_still_give_a_map() -> None:
    given = sets(2, 2)
    for make in MAPS.values():
        assert np.isfinite(make(given["reference"].vectors, given["old"].vectors)).all()


def test_training_faces_are_matched_by_key() -> None:
    given = sets(4)
    old, new = given["old"], given["new"].subset([7, 3, 5])
    source, target, keys = matched(old, new)
    np.testing.assert_array_equal(source, new.vectors)
    np.testing.assert_array_equal(target, old.vectors[[7, 3, 5]])
    assert keys == new.keys
    with pytest.raises(DataError, match="fit_old and fit_new: 0 faces in both"):
        matched(old, replace(new, paths=["a", "b", "c"]))
