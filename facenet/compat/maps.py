"""Maps from the new space to the old one, fitted after training: what a net that knows nothing of the old one reaches.

Letters: M training faces, N images, D embedding width.
Source: Schoenemann 1966 (orthogonal Procrustes); Shen et al., CVPR 2020 (maps as a baseline).
"""

from __future__ import annotations

import numpy as np

from facenet.errors import DataError
from facenet.types import EmbeddingSet
from facenet.vectors import normalise


def procrustes(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the orthogonal W (D, D) of least sum |x W - y|^2 over rows x of `source`, y of `target` (M, D): U V^T."""
    left, _, right = np.linalg.svd(source.astype(np.float64).T @ target.astype(np.float64))
    return np.asarray(left @ right)


def linear(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the W (D, D) of least squares, and of those with equal squares the shortest, over rows (M, D)."""
    return np.linalg.lstsq(source.astype(np.float64), target.astype(np.float64), rcond=None)[0]


MAPS = {"procrustes": procrustes, "linear": linear}


def matched(old: EmbeddingSet, new: EmbeddingSet) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return the vectors (M, D) of the training faces in both sets, new and old, and their keys.

    Raises:
        DataError: fewer than two faces in both.
    """
    rows = {key: row for row, key in enumerate(old.keys)}
    pairs = [(row, rows[key], key) for row, key in enumerate(new.keys) if key in rows]
    if len(pairs) < 2:
        raise DataError(
            f"compat, fit_old and fit_new: {len(pairs)} faces in both, expected at least 2; embed the same training "
            "faces with both encoders"
        )
    at_new, at_old, keys = zip(*pairs, strict=True)
    return new.vectors[list(at_new)], old.vectors[list(at_old)], list(keys)


def apply(weights: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Map vectors (N, D) by weights (D, D) and bring them to unit length, float32."""
    return normalise(vectors.astype(np.float64) @ weights)
