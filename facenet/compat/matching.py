"""The images, pairs and people on which two or three sets of embeddings can be compared.

Letters: N images in all sets, D embedding width, P pairs, G enrolled faces, Q probes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from facenet.data.pair_folds import make_pairs_in_folds
from facenet.data.pairs import pair_rows
from facenet.errors import DataError
from facenet.evaluation.identification import Enrolment, enrol
from facenet.types import EmbeddingSet, Pairs
from facenet.vectors import unit_rows


class SharedImages(NamedTuple):
    """The N images that every set holds, in the order of the old one."""

    keys: list[str]
    identities: list[str]  # "" where no set knows
    vectors: dict[str, np.ndarray]  # "old", "new" and, if given, "reference" -> (N, D) float32
    left_out: dict[str, list[str]]  # images of a set that another one lacks


class SharedPairs(NamedTuple):
    """The P pairs whose two images are shared, by rows of :class:`SharedImages`."""

    first: np.ndarray  # (P,) int64
    second: np.ndarray  # (P,) int64
    same: np.ndarray  # (P,) bool
    fold: np.ndarray  # (P,) int64
    skipped: int  # pairs left out because an image is missing
    duplicated: int  # pairs of two images that an earlier pair has too, in either order


def share_images(sets: Mapping[str, EmbeddingSet]) -> SharedImages:
    """Match the images of "old", "new" and perhaps "reference" by :func:`~facenet.types.image_key`.

    Raises:
        DataError: no image in all sets, two images of one key, different widths, vectors that are broken or not of
            unit length, or an image with different identities in two sets.
    """
    rows = {name: embeddings.rows_by_key(f"compat, {name}") for name, embeddings in sets.items()}
    old = sets["old"]
    for name, embeddings in sets.items():
        if embeddings.dim != old.dim:
            raise DataError(
                f"compat: {name} has width {embeddings.dim}, old {old.dim}, so they have no distance; train the "
                f"new net with embedding_dim={old.dim}, or with a learned projection to that width"
            )
    keys = [key for key in rows["old"] if all(key in there for there in rows.values())]
    if not keys:
        raise DataError(
            f"compat: no image is in all of {', '.join(sets)} (first of each: "
            f"{', '.join(next(iter(there), 'none') for there in rows.values())}); embed the same images with both"
        )
    kept = set(keys)
    left_out = {name: [key for key in there if key not in kept] for name, there in rows.items()}
    vectors = {}
    for name, embeddings in sets.items():
        at = [rows[name][key] for key in keys]
        vectors[name] = unit_rows(embeddings.vectors[at], f"compat, {name}", names=keys)
    return SharedImages(keys, _identities(sets, rows, keys), vectors, left_out)


def _identities(
    sets: Mapping[str, EmbeddingSet], rows: Mapping[str, Mapping[str, int]], keys: Sequence[str]
) -> list[str]:
    found = []
    for key in keys:
        names = {name: embeddings.identities[rows[name][key]] for name, embeddings in sets.items()}
        known = {identity for identity in names.values() if identity}
        if len(known) > 1:
            shown = ", ".join(f"{identity!r} in {name}" for name, identity in names.items())
            raise DataError(f"compat: {key} shows {shown}; embed the same labelled images with both encoders")
        found.append(next(iter(known), ""))
    return found


def share_pairs(shared: SharedImages, pairs: Pairs, *, allow_missing: bool = False) -> SharedPairs:
    """Look up the pairs among the shared images.

    Raises:
        DataError: pairs with an image that is not in all sets, unless `allow_missing`.
    """
    first, second, missing = pair_rows(pairs, shared.keys)
    found = np.flatnonzero((first >= 0) & (second >= 0))
    if len(found) < len(pairs) and not allow_missing:
        raise DataError(
            f"compat: {len(pairs) - len(found)} of {len(pairs)} pairs have an image that is not in all embeddings "
            f"(first missing: {missing[0]}); embed these images or pass allow_missing=true"
        )
    first, second = first[found], second[found]
    unordered = np.minimum(first, second) * len(shared.keys) + np.maximum(first, second)
    counts = len(pairs) - len(found), len(found) - len(np.unique(unordered))
    return SharedPairs(first, second, np.asarray(pairs.same, bool)[found], np.asarray(pairs.fold)[found], *counts)


def draw_enrolment(shared: SharedImages, *, gallery_faces: int = 1, seed: int = 0) -> Enrolment:
    """Draw the gallery and the probes by rows of the shared images; probes without a mate are dropped.

    The draw is that of :func:`facenet.evaluation.identification.enrol` without strangers.

    Raises:
        DataError: nobody has enough faces of known identity.
    """
    names = np.asarray(shared.identities, str)
    drawn = enrol(shared.identities, gallery_faces=gallery_faces, strangers=0.0, seed=seed)
    return Enrolment(drawn.gallery, drawn.probes[np.isin(names[drawn.probes], names[drawn.gallery])])


def draw_pairs(shared: SharedImages, seed: int = 0) -> Pairs:
    """Draw balanced verification pairs from the shared images of known identity.

    Raises:
        DataError: too few people.
    """
    rows = [row for row, name in enumerate(shared.identities) if name]
    keys, names = ([column[row] for row in rows] for column in (shared.keys, shared.identities))
    return make_pairs_in_folds(keys, names, of="compat: pairs", remedy="pairs=FILE, or more images", seed=seed)
