"""Squared L2 distance on unit vectors, for numpy and torch; and the checks that make an array usable as vectors.

For unit vectors ||a - b||^2 = 2 - 2 a.b lies in [0, 4]. Names say ``sq_dist`` (FAISS METRIC_L2 is squared too).
FAISS accepts NaN and a wrong width in silence, so the checks stand before it.
Letters: N M rows, D embedding width.
Source: Schroff et al. 2015, section 3 (embeddings on the unit hypersphere, thresholds on squared L2).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

from facenet.errors import DataError

UNIT_TOLERANCE = 1e-3  # how far a norm may be from 1

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


def finite_rows(
    vectors: np.ndarray, what: str, *, dim: int | None = None, names: Sequence[str] | None = None
) -> np.ndarray:
    """Return `vectors` (N, D) as contiguous float32, a copy only if they are not that already.

    `what` begins each message, `names` (N,) are named in it.

    Raises:
        DataError: no rows, no numbers, a width that is not `dim`, or a row that is NaN, infinite or too large.
    """
    rows = np.asarray(vectors)
    if rows.ndim != 2 or 0 in rows.shape or rows.dtype.kind not in "fiu":
        raise DataError(f"{what}: expected numbers of shape (N, D) with N, D >= 1, got {rows.dtype} {rows.shape}")
    if dim is not None and rows.shape[1] != dim:
        raise DataError(f"{what}: expected width {dim}, got {rows.shape[1]}; embed again with the matching encoder")
    rows = np.ascontiguousarray(rows, np.float32)
    bad = ~np.isfinite(square_norms(rows))
    if bad.any():
        raise DataError(f"{what}: {_list_rows(bad, names)} NaN, infinite or too large; embed again or leave out")
    return rows


def unit_rows(
    vectors: np.ndarray, what: str, *, dim: int | None = None, names: Sequence[str] | None = None
) -> np.ndarray:
    """Return as :func:`finite_rows` does, for rows of unit length: | ||v|| - 1 | <= 1e-3.

    Raises:
        DataError: as :func:`finite_rows`, a zero row, or a row of another length.
    """
    rows = finite_rows(vectors, what, dim=dim, names=names)
    norms = np.sqrt(square_norms(rows))
    zero = norms < UNIT_TOLERANCE
    if zero.any():
        raise DataError(f"{what}: {_list_rows(zero, names)} zero; embed again or leave out")
    long = np.abs(norms - 1) > UNIT_TOLERANCE
    if long.any():
        raise DataError(
            f"{what}: {_list_rows(long, names)} not of unit length (norm {norms[long][0]:.4g}); "
            "normalise them (facenet.vectors.normalise)"
        )
    return rows


def square_norms(rows: np.ndarray) -> np.ndarray:
    """Squared norms of `rows` (N, D): shape (N,), without a copy of the rows."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.einsum("nd,nd->n", rows, rows)


def _list_rows(bad: np.ndarray, names: Sequence[str] | None, most: int = 3) -> str:
    rows = np.flatnonzero(bad)
    shown = ", ".join(f"row {i}" + (f" ({names[i]})" if names is not None else "") for i in rows[:most])
    more = f" and {len(rows) - most} more" if len(rows) > most else ""
    return f"{len(rows)} of {len(bad)} vectors, {shown}{more}: {'is' if len(rows) == 1 else 'are'}"
