from __future__ import annotations

import numpy as np
import pytest
import torch

from facenet.errors import DataError
from facenet.vectors import finite_rows, normalise, sq_dist, sq_dist_matrix, unit_rows


def test_numpy_and_torch_agree_with_the_definition() -> None:
    rng = np.random.default_rng(0)
    a, b = normalise(rng.normal(size=(6, 16))), normalise(rng.normal(size=(5, 16)))
    expected = ((a[:, None] - b[None]) ** 2).sum(-1)
    np.testing.assert_allclose(sq_dist_matrix(a, b), expected, atol=2e-6)
    np.testing.assert_allclose(sq_dist_matrix(torch.from_numpy(a), torch.from_numpy(b)).numpy(), expected, atol=2e-6)
    np.testing.assert_allclose(sq_dist(a[:5], b), np.diag(expected[:5]), atol=1e-6)
    assert expected.max() > 1


def test_range_is_0_to_4() -> None:
    a = normalise(np.random.default_rng(1).normal(size=(50, 3)))
    both = np.concatenate([a, -a])
    distances = sq_dist_matrix(both, both)
    assert distances.min() >= 0
    assert 3.99 < distances.max() < 4.00001
    assert (sq_dist(a, a) == 0).all()


def test_normalise_survives_a_zero_row() -> None:
    assert np.isfinite(normalise(np.zeros((1, 4)))).all()


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (np.eye(2)[:0], r"got float64 \(0, 2\)"),
        (np.ones(2), r"\(N, D\) with N, D >= 1"),
        (np.array([["a"]]), "expected numbers"),
        (np.eye(4), "expected width 3, got 4"),
        (np.full((5, 3), np.nan), r"5 of 5 vectors, row 0 \(a\), row 1 \(b\), row 2 \(c\) and 2 more: are NaN"),
        (np.full((1, 3), 1e30), "is NaN, infinite or too large"),
    ],
)
def test_rows_that_are_no_vectors_are_named(rows: np.ndarray, said: str) -> None:
    for check in (finite_rows, unit_rows):
        with pytest.raises(DataError, match=f"^faces: .*{said}"):
            check(rows, "faces", dim=3, names="abcde")


def test_unit_rows_have_length_one() -> None:
    rows = np.eye(3, dtype=np.float32)
    assert unit_rows(rows, "faces", dim=3) is rows, "no copy"
    for scale, said in ((0, "zero"), (1.002, r"unit length \(norm 1.002\)"), (0.998, "unit length")):
        assert finite_rows(scale * rows, "faces").dtype == np.float32
        with pytest.raises(DataError, match=said):
            unit_rows(scale * rows, "faces")
