"""May two encoders share one gallery? Old and new embeddings of the same images, compared in every way that matters.

The new encoder is compatible when its queries find their people among the old encoder's vectors at least as well as the
old one's own queries did; see :mod:`facenet.compat.cells` for the cells, and :mod:`facenet.compat.yardsticks` for gain,
tax, flips and the gate.
Letters: N images in both sets, D embedding width, P pairs, Q probes.
Source: Schroff et al. 2015, appendix (harmonic embeddings); Shen et al., CVPR 2020 (criterion, gain, new*).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from facenet.compat import maps
from facenet.compat.bootstrap import intervals
from facenet.compat.cells import Cell, score_cell, score_cells
from facenet.compat.display import verdict
from facenet.compat.matching import Enrolled, Scored, Shared, drawn_pairs, enrolled, scored_pairs, share
from facenet.compat.mixed_gallery import Regression, mixed_curve, regressions, summary
from facenet.compat.yardsticks import flips, gate, yardsticks
from facenet.errors import DataError
from facenet.evaluation.roc import by_distance, curve
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
    gate_options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Compare old and new embeddings of the same images, matched by image key; plain numbers for ``metrics.json``.

    Args:
        old: Vectors of the gallery's encoder.
        new: Vectors of the encoder that shall join.
        pairs: Verification pairs; None draws them from the shared images by :func:`facenet.data.pairs.make_pairs`.
        reference: new*, the same recipe without a compatibility term: for gain and tax.
        fit: Embeddings (old, independent new) of training faces, on which maps between the spaces are fitted as
            baselines. The independent new is the reference or, without one, `new`; the fingerprint tells.
        allow_missing: Leave out pairs with an image that is not in all sets, instead of refusing.
        gallery_faces: Enrolled faces of each person, drawn by `seed`; all other faces are probes.
        steps: Of the curve of a mixed gallery.
        draws: Of the bootstrap.
        seed: Of drawn pairs, enrolment, the order of the backfill and the bootstrap.
        gate_options: metric, min_gain and max_negative_flips of :func:`facenet.compat.gate`.

    Raises:
        DataError: embeddings, pairs or fits that can not be compared; each says why and what to do.
        ConfigError: an option out of range.
    """
    sets = {"old": old, "new": new} | ({} if reference is None else {"reference": reference})
    shared = share(sets)
    pairs = drawn_pairs(shared, seed) if pairs is None else pairs
    scored = scored_pairs(shared, pairs, allow_missing=allow_missing)
    who, reason = _enrolled(shared, gallery_faces, seed)
    cells = score_cells(shared, scored, who)
    found, flipped = yardsticks({name: cell.measures() for name, cell in cells.items()}), flips(cells, scored)
    passed = gate(found, flipped, **(gate_options or {}))
    people = None if who is None else [shared.identities[row] for row in who.probes]
    sure = intervals(cells, scored, people, draws=draws, seed=seed)
    worse = regressions(shared, cells, who)
    metric = passed["metric"]
    return {
        "verdict": verdict(passed, found[metric], sure.get(metric, {}).get("new_old"), flipped),
        "gate": passed,
        "yardsticks": found,
        "flips": flipped,
        "intervals": sure,
        "cells": {name: _plain(cell, who) for name, cell in cells.items()},
        "identification_left_out": reason,
        "mixed": mixed_curve(shared, scored, who, steps=steps, seed=seed),
        "regressions": _regressions(worse, people),
        "baselines": {} if fit is None else _baselines(shared, scored, who, sets, fit),
        "roc": roc_points(cells, scored),
        "images": _images(shared),
        "encoders": {name: embeddings.fingerprint for name, embeddings in sets.items()},
    }


def roc_points(cells: Mapping[str, Cell], scored: Scored) -> dict[str, list[float]]:
    """Return VAL of each cell over a logarithmic grid of FAR, from half a different pair to 1: for the drawing."""
    far = np.geomspace(0.5 / max(1, int((~scored.same).sum())), 1, POINTS)
    found = {"far": far.tolist()}
    for name, cell in cells.items():
        line = curve(*by_distance(cell.sq_dist.ravel(), scored.same.repeat(cell.sq_dist.shape[1])))
        found[name] = line.val[np.searchsorted(line.far, far, side="right") - 1].tolist()
    return found


def _enrolled(shared: Shared, gallery_faces: int, seed: int) -> tuple[Enrolled | None, str | None]:
    try:
        return enrolled(shared, gallery_faces=gallery_faces, seed=seed), None
    except DataError as error:
        return None, str(error)


def _plain(cell: Cell, who: Enrolled | None) -> dict[str, Any]:
    found: dict[str, Any] = {"verification": cell.verification.metrics(), "identification": None}
    if who is not None:
        measures = cell.measures()
        found["identification"] = {"rank1": measures["rank1"], "map": measures["map"]}
        found["identification"] |= {"gallery": len(who.gallery), "probes": len(who.probes)}
    return found


def _regressions(found: list[Regression], people: list[str] | None) -> dict[str, Any]:
    return {**summary(found, len(set(people or ()))), "worst": [row._asdict() for row in found[:WORST]]}


def _images(shared: Shared) -> dict[str, Any]:
    counts = {f"only_{name}": len(keys) for name, keys in shared.left_out.items()}
    return {"shared": len(shared.keys), **counts, "left_out": {k: v[:LISTED] for k, v in shared.left_out.items()}}


def _baselines(
    shared: Shared,
    scored: Scored,
    who: Enrolled | None,
    sets: Mapping[str, EmbeddingSet],
    fit: tuple[EmbeddingSet, EmbeddingSet],
) -> dict[str, Any]:
    """Score (independent new, old) as it is, and mapped by each of :data:`facenet.compat.maps.MAPS`."""
    name = "reference" if "reference" in sets else "new"
    for given, of, option in ((fit[0], "old", "fit_old"), (fit[1], name, "fit_new")):
        wanted = sets[of]
        if given.fingerprint != wanted.fingerprint or given.dim != wanted.dim:
            raise DataError(
                f"compat, {option}: made by encoder {given.fingerprint[:12]} (width {given.dim}), not by that of {of}, "
                f"{wanted.fingerprint[:12]} (width {wanted.dim}); embed the training faces with that one"
            )
    source, target, keys = maps.matched(*fit)
    independent = shared.vectors[name]
    mapped = {"none": independent}
    mapped |= {text: maps.apply(make(source, target), independent) for text, make in maps.MAPS.items()}
    rows = {
        text: score_cell(shared, vectors, shared.vectors["old"], scored, who, mixed=True).measures()
        for text, vectors in mapped.items()
    }
    both = len(set(keys) & set(shared.keys))
    return {**rows, "of": name, "fitted_on": len(keys), "scored_too": both}
