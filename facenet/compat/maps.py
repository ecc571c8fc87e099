"""Maps from the new space to the old one, fitted after training, and what they reach: baselines for an upgrade.

An encoder that was trained without regard to the old one can still join its gallery through such a map.
Letters: M training faces, N images, D embedding width.
Source: Schoenemann 1966 (orthogonal Procrustes); Shen et al., CVPR 2020 (maps as a baseline).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from facenet.compat.cells import score_cell
from facenet.compat.matching import SharedImages, SharedPairs
from facenet.errors import DataError
from facenet.evaluation.identification import Enrolment
from facenet.types import EmbeddingSet
from facenet.vectors import normalise


def procrustes(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the orthogonal W (D, D) of least sum |x W - y|^2 over rows x of `source`, y of `target` (M, D): U V^T."""
    from scipy.linalg import orthogonal_procrustes

    return np.asarray(orthogonal_procrustes(source.astype(np.float64), target.astype(np.float64))[0])


def linear(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the W (D, D) of least squares over rows (M, D); of several such W the shortest."""
    return np.linalg.lstsq(source.astype(np.float64), target.astype(np.float64), rcond=None)[0]


MAPS = {"procrustes": procrustes, "linear": linear}


class Fit(NamedTuple):
    """What maps are fitted on: M training faces by both encoders."""

    of: str  # the set of the independent new encoder: "reference" or "new"
    new: np.ndarray  # (M, D)
    old: np.ndarray  # (M, D)
    keys: list[str]


def matched_fit(sets: Mapping[str, EmbeddingSet], fit: tuple[EmbeddingSet, EmbeddingSet]) -> Fit:
    """Match embeddings of training faces: of the old encoder and of the independent new one.

    The independent new encoder is "reference" if `sets` holds it, else "new".

    Raises:
        DataError: `fit` is of other encoders, or has fewer than two faces in both.
    """
    name = "reference" if "reference" in sets else "new"
    for given, of, option in ((fit[0], "old", "fit_old"), (fit[1], name, "fit_new")):
        wanted = sets[of]
        if given.fingerprint != wanted.fingerprint or given.dim != wanted.dim:
            raise DataError(
                f"compat, {option}: made by encoder {given.fingerprint[:12]} (width {given.dim}), not by that of {of}, "
                f"{wanted.fingerprint[:12]} (width {wanted.dim}); embed the training faces with that one"
            )
    return Fit(name, *matched(*fit))


def score_maps(shared: SharedImages, pairs: SharedPairs, enrolment: Enrolment | None, fit: Fit) -> dict[str, Any]:
    """Score queries of the independent new encoder on the old gallery: as they are, and through each of `MAPS`.

    Returns:
        The measures by map ("none" is no map), `of`, `fitted_on` (faces), and `scored_too` (of these, how many are
        among the shared images).
    """
    queries = {"none": shared.vectors[fit.of]}
    queries |= {text: apply(make(fit.new, fit.old), shared.vectors[fit.of]) for text, make in MAPS.items()}
    measures = {
        text: score_cell(shared, vectors, shared.vectors["old"], pairs, enrolment, mixed=True).measures()
        for text, vectors in queries.items()
    }
    both = len(set(fit.keys) & set(shared.keys))
    return {**measures, "of": fit.of, "fitted_on": len(fit.keys), "scored_too": both}


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
