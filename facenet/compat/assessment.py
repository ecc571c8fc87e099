"""May two encoders share one gallery? Old and new embeddings of the same images, compared in every way that matters.

The new encoder is compatible if its queries find their people among the old encoder's vectors at least as well as the
old encoder's own queries. :mod:`facenet.compat.cells` defines the cells, :mod:`facenet.compat.yardsticks` update gain,
tax, flips and the gate.
Letters: N images in both sets, D embedding width, P pairs, Q probes.
Source: Schroff et al. 2015, appendix (harmonic embeddings); Shen et al., CVPR 2020 (criterion, gain, new*).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from facenet.compat.bootstrap import intervals
from facenet.compat.cells import Cell, rank1_and_map, score_cells
from facenet.compat.display import verdict
from facenet.compat.maps import matched_fit, score_maps
from facenet.compat.matching import SharedImages, SharedPairs, draw_enrolment, draw_pairs, share_images, share_pairs
from facenet.compat.mixed_gallery import mixed_curve, regressions, summary
from facenet.compat.options import GateOptions
from facenet.compat.yardsticks import decide, flips, upgrade_gains
from facenet.errors import DataError
from facenet.evaluation.identification import Enrolment
from facenet.evaluation.roc import roc
from facenet.types import EmbeddingSet, Pairs

WORST = 20  # people with the largest losses that are listed
POINTS = 120  # of a drawn ROC
LISTED = 10  # images named that are not in all sets


def assess_upgrade(
    old: EmbeddingSet,
    new: EmbeddingSet,
    pairs: Pairs | None = None,
    *,
    reference: EmbeddingSet | None = None,
    fit: tuple[EmbeddingSet, EmbeddingSet] | None = None,
    allow_missing: bool = False,
    gallery_faces: int = 1,
    steps: int = 11,
    draws: int = 1000,
    seed: int = 0,
    gate: GateOptions = GateOptions(),  # noqa: B008
) -> dict[str, Any]:
    """Compare old and new embeddings of the same images, matched by image key.

    Args:
        old: Vectors of the gallery's encoder.
        new: Vectors of the encoder that shall join.
        pairs: Verification pairs; None draws them from the shared images by :func:`facenet.data.pairs.make_pairs`.
        reference: new*, the same recipe without a compatibility term: for gain and tax.
        fit: Embeddings (old, independent new) of training faces. Maps between the spaces are fitted on them, as
            baselines. The independent new encoder is that of `reference`, or of `new` if there is no reference.
        allow_missing: Leave out pairs with an image that is not in all sets, instead of refusing.
        gallery_faces: Enrolled faces of each person, drawn by `seed`; all other faces are probes.
        steps: Of the curve of a mixed gallery.
        draws: Of the bootstrap.
        seed: Of drawn pairs, enrolment, the order of the backfill and the bootstrap.
        gate: What the new encoder must reach; see :func:`facenet.compat.yardsticks.decide`.

    Returns:
        Plain nested numbers for ``metrics.json``.

    Raises:
        DataError: embeddings, pairs or fits that can not be compared; each error says why and what to do.
        ConfigError: an option out of range.
    """
    sets = {"old": old, "new": new} | ({} if reference is None else {"reference": reference})
    fitted = None if fit is None else matched_fit(sets, fit)
    shared = share_images(sets)
    matched = share_pairs(shared, draw_pairs(shared, seed) if pairs is None else pairs, allow_missing=allow_missing)
    enrolment: Enrolment | None = None
    reason = None
    try:
        enrolment = draw_enrolment(shared, gallery_faces=gallery_faces, seed=seed)
    except DataError as error:
        reason = str(error)
    cells = score_cells(shared, matched, enrolment)
    gains, flipped = upgrade_gains({name: cell.measures() for name, cell in cells.items()}), flips(cells, matched)
    passed = decide(gains, flipped, gate)
    people = None if enrolment is None else [shared.identities[row] for row in enrolment.probes]
    ranges = intervals(cells, matched, people, draws=draws, seed=seed)
    worse = regressions(shared, cells, enrolment)
    metric = passed["metric"]
    return {
        "verdict": verdict(passed, gains[metric], ranges.get(metric, {}).get("new_old"), flipped),
        "gate": passed,
        "yardsticks": gains,
        "flips": flipped,
        "intervals": ranges,
        "cells": {name: _plain(cell, enrolment) for name, cell in cells.items()},
        "identification_left_out": reason,
        "mixed": mixed_curve(shared, matched, enrolment, steps=steps, seed=seed),
        "regressions": summary(worse, len(set(people or ()))) | {"worst": [row._asdict() for row in worse[:WORST]]},
        "baselines": {} if fitted is None else score_maps(shared, matched, enrolment, fitted),
        "roc": roc_points(cells, matched),
        "images": _images(shared),
        "encoders": {name: embeddings.fingerprint for name, embeddings in sets.items()},
    }


def roc_points(cells: Mapping[str, Cell], pairs: SharedPairs) -> dict[str, list[float]]:
    """Return VAL of each cell at `POINTS` rates for a drawing: a logarithmic grid of FAR from 1 / (2 |P_diff|) to 1."""
    far = np.geomspace(0.5 / max(1, int((~pairs.same).sum())), 1, POINTS)
    found = {"far": far.tolist()}
    for name, cell in cells.items():
        line = roc(cell.sq_dist.ravel(), pairs.same.repeat(cell.sq_dist.shape[1]))
        found[name] = line.val[np.searchsorted(line.far, far, side="right") - 1].tolist()
    return found


def _plain(cell: Cell, enrolment: Enrolment | None) -> dict[str, Any]:
    found: dict[str, Any] = {"verification": cell.verification.metrics(), "identification": None}
    if enrolment is not None and cell.answers is not None:
        counts = {"gallery": len(enrolment.gallery), "probes": len(enrolment.probes)}
        found["identification"] = {**rank1_and_map(cell.answers), **counts}
    return found


def _images(shared: SharedImages) -> dict[str, Any]:
    counts = {f"only_{name}": len(keys) for name, keys in shared.left_out.items()}
    return {"shared": len(shared.keys), **counts, "left_out": {k: v[:LISTED] for k, v in shared.left_out.items()}}
