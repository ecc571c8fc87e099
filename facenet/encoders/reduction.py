"""Linear maps of vectors to fewer numbers, fitted on faces of known people: W x + b, before scaling to unit length.

Letters: N vectors, D their width, d the width they are mapped to.
"""

from __future__ import annotations

import numpy as np

from facenet.errors import ConfigError, DataError

KINDS = ("pca", "whiten", "lda")
FLOOR = 1e-6  # share of the largest variance below which a direction is not stretched further


def fit_reduction(vectors: np.ndarray, labels: np.ndarray, kind: str, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Return W (d, D) and b (d,) float64 that map the mean of `vectors` (N, D) to 0.

    Args:
        vectors: Of faces of the training people.
        labels: Person of each face (N,).
        kind: "pca" (directions of largest variance), "whiten" (the same, each scaled to variance 1) or "lda"
            (directions that tell people apart best, with a shrunk covariance; people with one face do not count).
        dim: d.

    Raises:
        ConfigError: an unknown kind, or more directions than there are.
        DataError: too few faces or people for so many directions.
    """
    if kind not in KINDS:
        raise ConfigError(f"reduce: expected one of {', '.join(KINDS)}, got {kind!r}")
    if not 1 <= dim <= vectors.shape[1]:
        raise ConfigError(f"dim: expected 1 to {vectors.shape[1]} (the width of the vectors), got {dim}")
    given = np.asarray(vectors, np.float64)
    weight = _discriminants(given, labels, dim) if kind == "lda" else _components(given, dim, whiten=kind == "whiten")
    return weight, -weight @ given.mean(0)


def _components(vectors: np.ndarray, dim: int, *, whiten: bool) -> np.ndarray:
    """Return the directions of largest variance (d, D)."""
    if len(vectors) <= dim:
        raise DataError(f"reduce: {len(vectors)} faces do not tell {dim} directions; give more faces or a smaller dim")
    values, directions = np.linalg.eigh(np.cov(vectors, rowvar=False))
    values, directions = values[::-1][:dim], directions[:, ::-1][:, :dim].T
    scale = 1 / np.sqrt(np.maximum(values, FLOOR * values[0])) if whiten else np.ones(dim)
    weight: np.ndarray = scale[:, None] * directions
    return weight


def _discriminants(vectors: np.ndarray, labels: np.ndarray, dim: int) -> np.ndarray:
    """Return the directions (d, D) in which people lie furthest apart, measured by how far their own faces do."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    _, number, counts = np.unique(labels, return_inverse=True, return_counts=True)
    several = counts[number] > 1
    people = int((counts > 1).sum())
    if people <= dim:
        raise DataError(
            f"reduce: {people} people with two faces or more do not tell {dim} directions apart; give more people or a"
            " smaller dim"
        )
    found = LinearDiscriminantAnalysis(solver="eigen", shrinkage="auto").fit(vectors[several], number[several])
    weight: np.ndarray = found.scalings_[:, :dim].T
    return weight
