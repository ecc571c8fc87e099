"""Squared L2 distance on unit vectors: the one definition of distance, for numpy and torch alike.

For unit vectors ||a - b||^2 = 2 - 2 a.b lies in [0, 4]. Names say ``sq_dist``
(FAISS METRIC_L2 is squared too).
Source: Schroff et al. 2015, section 3 (embeddings on the unit hypersphere, thresholds on squared L2).
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np

Array = TypeVar("Array", bound=Any)


def sq_dist(a: Array, b: Array) -> Array:
    """Row-wise squared L2 of `a` (..., D) and `b` (..., D): shape (...), exactly 0 for equal rows.

    >>> sq_dist(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]))
    array([2.])
    """
    return ((a - b) ** 2).sum(-1)


def sq_dist_matrix(a: Array, b: Array) -> Array:
    """All squared L2 distances of unit rows `a` (N, D) and `b` (M, D): shape (N, M), clamped at 0.

    >>> sq_dist_matrix(np.eye(2), np.eye(2))
    array([[0., 2.],
           [2., 0.]])
    """
    return (2 - 2 * (a @ b.T)).clip(min=0)


def normalise(vectors: np.ndarray, eps: float = 1e-6) -> np.ndarray:
    """Scale the rows of `vectors` (N, D) to unit length, float32; rows shorter than `eps` are divided by it."""
    vectors = np.asarray(vectors, np.float32)
    unit: np.ndarray = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), eps)
    return unit
