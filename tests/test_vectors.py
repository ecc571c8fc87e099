from __future__ import annotations

import numpy as np
import torch

from facenet.vectors import normalise, sq_dist, sq_dist_matrix


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
