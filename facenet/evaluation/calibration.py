"""Thresholds of an encoder: squared distances that accept different people at given rates, found on known people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from facenet.data.pair_files import Validation
from facenet.data.records import Records
from facenet.data.sources.kinds import scan
from facenet.encoders.embedding import embed_records
from facenet.encoders.encoder import Encoder
from facenet.errors import DataError
from facenet.evaluation.all_pairs import all_pairs
from facenet.evaluation.roc import at_far
from facenet.evaluation.verification import score_pairs
from facenet.types import Pairs, Progress
from facenet.vectors import sq_dist_matrix

CALIBRATED_FARS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
CERTAIN = 10  # pairs that a rate below 1e-4 must accept: fewer may be one person


def calibrate(
    encoder: Encoder, faces: Records | str | Path, fars: Sequence[float] = CALIBRATED_FARS
) -> dict[float, float]:
    """Return thresholds {far: sq_dist} over all pairs of the given faces (records, or a folder or table of images).

    A rate is left out if there are too few pairs to resolve it, or if it needs more memory than
    :func:`~facenet.evaluation.all_pairs.all_pairs` allows. The encoder is left as it is.

    Raises:
        DataError: no readable image, or faces of fewer than two people.
    """
    return calibration(encoder, faces, fars)[0]


def calibration(
    encoder: Encoder,
    faces: Records | str | Path,
    fars: Sequence[float] = CALIBRATED_FARS,
    *,
    progress: Progress | None = None,
) -> tuple[dict[float, float], dict[str, Any]]:
    """Return the thresholds of :func:`calibrate`, and what they were calibrated on: folder, people, faces, pairs.

    `progress` is called with (done, total) embedded faces.

    Raises:
        DataError: as :func:`calibrate`.
    """
    records = faces if isinstance(faces, Records) else scan(faces)
    embeddings, kept = embed_records(encoder, records, progress=progress)
    found = all_pairs(embeddings.vectors, list(kept.identities), fars)
    on = {"folder": Path(records.root).name, "people": found.identities, "faces": found.faces}
    return _resolved(found.val_at_far), {**on, "pairs_of_different_people": found.different}


def calibration_on_pairs(
    encoder: Encoder,
    faces: Records,
    pairs: Pairs,
    fars: Sequence[float] = CALIBRATED_FARS,
    *,
    progress: Progress | None = None,
) -> tuple[dict[float, float], dict[str, Any]]:
    """Return the thresholds of :func:`calibrate` over P given pairs of faces whose people need not be known.

    Also returns the numbers of faces and of pairs of different people. `progress` is called with (done, total) embedded
    faces.

    Raises:
        DataError: an image of a pair is missing or can not be read.
    """
    scored = score_pairs(embed_records(encoder, faces, progress=progress)[0], pairs)
    different = np.sort(scored.sq_dist[~scored.pairs.same])
    return _thresholds(different, fars), {"faces": len(faces), "pairs_of_different_people": len(different)}


def held_out_calibration(
    encoder: Encoder, held_out: Records, given: Validation | None = None, *, progress: Progress | None = None
) -> tuple[dict[float, float], dict[str, Any]]:
    """Return thresholds and what they were calibrated on: all pairs of the held-out faces, or those `given` of them.

    Raises:
        DataError: as :func:`calibration` and :func:`calibration_on_pairs`.
    """
    if given is None:
        return calibration(encoder, held_out, progress=progress)
    thresholds, on = calibration_on_pairs(encoder, held_out, given.pairs, progress=progress)
    return thresholds, {"file": given.source.file, **on}


def _thresholds(different: np.ndarray, fars: Sequence[float]) -> dict[float, float]:
    """Return the thresholds that the sorted distances (P,) of pairs of different people tell."""
    rows = {far: at_far(different[:0], different, far) for far in fars}
    for row in rows.values():
        row["accepted_different"] = np.count_nonzero(different <= row["threshold"]) if row["resolvable"] else 0
    return _resolved(rows)


def _resolved(found: Mapping[float, Mapping[str, Any]]) -> dict[float, float]:
    """Return the threshold at each rate that there are enough pairs to resolve."""
    return {
        far: float(row["threshold"])
        for far, row in found.items()
        if row["resolvable"] and (far >= 1e-4 or row["accepted_different"] >= CERTAIN)
    }


def calibrate_with_older(
    new: np.ndarray, old: np.ndarray, identities: Sequence[str], fars: Sequence[float] = CALIBRATED_FARS
) -> dict[float, float]:
    """Return thresholds {far: sq_dist} from vectors of a new encoder to vectors of an older one, of the same N faces.

    Every new vector (N, D) is compared with every old one (N, D) of another person. At most 4,000 faces take part.

    Raises:
        DataError: fewer than two people.
    """
    names = np.unique(np.asarray(identities), return_inverse=True)[1]
    rows = np.sort(np.random.default_rng(0).permutation(len(names))[:4000])
    different = names[rows][:, None] != names[rows][None]
    distances = np.sort(sq_dist_matrix(new[rows], old[rows])[different])
    if not len(distances):
        raise DataError("calibration: expected faces of two people or more, got one; add faces of other people")
    return _thresholds(distances, fars)
