"""Old and new embeddings of the same images in four cells: which model asks, and which one made the gallery.

M(q, g) is a metric for query model q and gallery model g. A verification pair has no direction. In a mixed cell a pair
is therefore scored both ways, d(q_i, g_j) and d(q_j, g_i), and both scores are pooled. The order of the images in a
pair file changes no number, and the verification of (new, old) equals that of (old, new). Identification has a
direction and tells the two apart. Intervals count pairs, not scores.
Letters: N images in all sets, D embedding width, P pairs, C scores of a pair (1, in mixed cells 2), Q probes.
Source: Shen et al., CVPR 2020 (the cells); Schroff et al. 2015, appendix (harmonic embeddings).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from facenet.compat.matching import SharedImages, SharedPairs
from facenet.evaluation.identification import Answers, Enrolment, look_up
from facenet.evaluation.roc import allowed_accepts, far_name, wilson
from facenet.evaluation.verification import Verification, verify_pairs
from facenet.vectors import sq_dist

MODES = {name: tuple(name.split("_")) for name in ("old_old", "new_old", "old_new", "new_new")}  # query, gallery
FARS = (1e-1, 1e-2, 1e-3)
METRICS = ("accuracy", "auc", *(f"val_{far_name(far)}" for far in FARS), "rank1", "map")  # more is better


class Cell(NamedTuple):
    """One cell M(q, g): the scores of the pairs, what they come to, and what each probe found."""

    sq_dist: np.ndarray  # (P, C) float32
    verification: Verification
    right: np.ndarray  # (P, C) bool, at the threshold of the pair's fold, chosen on the other folds
    answers: Answers | None  # None if nobody can be enrolled

    def measures(self) -> dict[str, float | None]:
        """Return the value of each of `METRICS`; None if it can not be measured."""
        found = self.verification
        vals = {f"val_{far_name(far)}": row["val"] for far, row in found.val_at_far.items()}
        return {"accuracy": found.accuracy, "auc": found.auc, **vals, **rank1_and_map(self.answers)}


def rank1_and_map(answers: Answers | None) -> dict[str, float | None]:
    """Return rank-1 and mean average precision of the answers; None each without answers."""
    if answers is None:
        return {"rank1": None, "map": None}
    return {"rank1": float(np.mean(answers.rank == 1)), "map": float(np.mean(answers.precision))}


def pair_distances(query: np.ndarray, gallery: np.ndarray, pairs: SharedPairs, *, mixed: bool) -> np.ndarray:
    """Return the squared distances (P, C) of pairs, from query and gallery (N, D) each; both ways if `mixed`."""
    forward = sq_dist(query[pairs.first], gallery[pairs.second])
    if not mixed:
        return np.asarray(forward)[:, None]
    return np.stack([forward, sq_dist(query[pairs.second], gallery[pairs.first])], axis=1)


def verify_scores(distances: np.ndarray, pairs: SharedPairs, *, fars: Sequence[float] = FARS) -> Verification:
    """Verify pairs by their scores (P, C) with :func:`verify_pairs`; the scores of a pair share its fold.

    The two scores of a pair are not two observations. The Wilson intervals are therefore those of P pairs, and a FAR is
    resolvable only if far |P_diff| >= 1, whatever C is.
    """
    count, sides = distances.shape
    labels, folds = pairs.same.repeat(sides), pairs.fold.repeat(sides)
    found = verify_pairs(distances.ravel(), labels, folds, fars=fars)
    counts = {"pairs": count, "skipped": pairs.skipped, "duplicated": pairs.duplicated}
    if sides == 1:
        return replace(found, **counts)
    positives = int(pairs.same.sum())
    counts |= {"same": positives, "different": count - positives}
    rows = {far: _by_pairs(row, far, positives, count - positives) for far, row in found.val_at_far.items()}
    return replace(found, val_at_far=rows, **counts)


def _by_pairs(row: Mapping[str, Any], far: float, positives: int, negatives: int) -> dict[str, Any]:
    if not allowed_accepts(far, negatives):
        nothing = dict.fromkeys(("val", "low", "high", "threshold"))
        return {**nothing, "resolvable": False, "negatives": negatives}
    _, low, high = wilson(round(row["val"] * positives), positives)
    return {**row, "low": low, "high": high, "negatives": negatives}


def decisions(distances: np.ndarray, pairs: SharedPairs, thresholds: Sequence[float]) -> np.ndarray:
    """Return whether scores (P, C) are right at the threshold of the pair's fold; thresholds by ascending fold."""
    place = np.unique(pairs.fold, return_inverse=True)[1]
    accepted = distances <= np.asarray(thresholds, np.float64)[place][:, None]
    return np.asarray(accepted == pairs.same[:, None])


def ask(query: np.ndarray, gallery: np.ndarray, names: np.ndarray, enrolment: Enrolment) -> Answers:
    """Look up the probes of `query` (N, D) among the enrolled faces of `gallery` (N, D); names (N,)."""
    return look_up(
        gallery[enrolment.gallery], names[enrolment.gallery], query[enrolment.probes], names[enrolment.probes]
    )


def score_cell(
    shared: SharedImages,
    query: np.ndarray,
    gallery: np.ndarray,
    pairs: SharedPairs,
    enrolment: Enrolment | None,
    *,
    mixed: bool,
) -> Cell:
    """Score one cell, query and gallery (N, D) each."""
    distances = pair_distances(query, gallery, pairs, mixed=mixed)
    found = verify_scores(distances, pairs)
    answers = None if enrolment is None else ask(query, gallery, np.asarray(shared.identities, str), enrolment)
    return Cell(distances, found, decisions(distances, pairs, found.thresholds), answers)


def score_cells(shared: SharedImages, pairs: SharedPairs, enrolment: Enrolment | None) -> dict[str, Cell]:
    """Score the four cells and, if `shared` has a reference, the cell ``reference``: M(new*, new*)."""
    found = {
        name: score_cell(shared, shared.vectors[q], shared.vectors[g], pairs, enrolment, mixed=q != g)
        for name, (q, g) in MODES.items()
    }
    if "reference" in shared.vectors:
        alone = shared.vectors["reference"]
        found["reference"] = score_cell(shared, alone, alone, pairs, enrolment, mixed=False)
    return found
