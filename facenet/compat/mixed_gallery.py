"""What happens while a gallery is backfilled: the mixed gallery step by step, and the people who get worse.

Letters: N shared images, D embedding width, P pairs, Q probes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from facenet.compat.cells import Cell, ask, pair_distances, rank1_and_map, verify_scores
from facenet.compat.matching import SharedImages, SharedPairs
from facenet.errors import ConfigError
from facenet.evaluation.identification import Enrolment
from facenet.vectors import sq_dist

CELLS = ("old_old", "new_old", "new_new")


class Regression(NamedTuple):
    """One person whose probes are found less often, or lie farther from their own faces, after the upgrade."""

    person: str
    probes: int
    rank1_old_old: float
    rank1_new_old: float
    rank1_new_new: float
    sq_dist_old_old: float  # mean over the probes and their person's enrolled faces
    sq_dist_new_old: float
    sq_dist_new_new: float
    farther: float  # the larger rise of mean sq_dist / threshold, each cell by its own threshold


def backfilled(count: int, share: float, order: np.ndarray) -> np.ndarray:
    """Return which of `count` faces hold new vectors once a share is done, (count,) bool: the first ones of `order`."""
    done = np.zeros(count, bool)
    done[order[: round(share * count)]] = True
    return done


def mixed_curve(
    shared: SharedImages, pairs: SharedPairs, enrolment: Enrolment | None, *, steps: int = 11, seed: int = 0
) -> list[dict[str, float | None]]:
    """Ask with new queries while 0 to 100 % of the gallery are new: share, accuracy, rank1 and map at each step.

    0 % is the cell (new, old), 100 % the cell (new, new). The order of the backfill is drawn once: over all N images
    for the pairs, and over the enrolled faces for rank-1 and mAP. A pair is scored both ways, so that each of its
    images is the gallery's once.

    Raises:
        ConfigError: `steps` < 2.
    """
    if steps < 2:
        raise ConfigError(f"steps: expected at least 2 (0 and 100 %), got {steps}")
    old, new = shared.vectors["old"], shared.vectors["new"]
    names, rng = np.asarray(shared.identities, str), np.random.default_rng([seed, 29])
    order = rng.permutation(len(old))
    faces = rng.permutation(0 if enrolment is None else len(enrolment.gallery))
    rows: list[dict[str, float | None]] = []
    for share in (step / (steps - 1) for step in range(steps)):
        gallery = np.where(backfilled(len(old), share, order)[:, None], new, old)
        found = verify_scores(pair_distances(new, gallery, pairs, mixed=True), pairs, fars=())
        answers = None
        if enrolment is not None:
            gallery = old.copy()
            done = enrolment.gallery[backfilled(len(faces), share, faces)]
            gallery[done] = new[done]
            answers = ask(new, gallery, names, enrolment)
        rows.append({"share": share, "accuracy": found.accuracy, **rank1_and_map(answers)})
    return rows


def regressions(shared: SharedImages, cells: Mapping[str, Cell], enrolment: Enrolment | None) -> list[Regression]:
    """Return the people who get worse, sorted by the loss of rank-1, then by the rise of their distances.

    A person gets worse if rank-1 of (new, old) or of (new, new) is below that of (old, old), or if the mean distance to
    the own enrolled faces rises in one of the two. Models have distances of different size. Distances are therefore
    divided by the threshold of their cell (mean over the folds) first. Without an enrolment the list is empty.
    """
    if enrolment is None:
        return []
    names = np.asarray(shared.identities, str)
    people, code = np.unique(names[enrolment.probes], return_inverse=True)
    probes = np.bincount(code)
    rank1 = {}
    for name in CELLS:
        answers = cells[name].answers
        rank1[name] = np.bincount(code, answers.rank == 1) / probes if answers is not None else np.zeros(len(people))
    far = {name: _own_distances(shared, enrolment, name, people) for name in CELLS}
    scaled = {name: far[name] / max(cells[name].verification.threshold, 1e-12) for name in CELLS}
    farther = np.maximum(scaled["new_old"], scaled["new_new"]) - scaled["old_old"]
    loss = rank1["old_old"] - np.minimum(rank1["new_old"], rank1["new_new"])
    worse = np.flatnonzero((loss > 0) | (farther > 0))
    ranked = sorted(worse.tolist(), key=lambda at: (-loss[at], -farther[at], people[at]))
    columns = [*(rank1[name] for name in CELLS), *(far[name] for name in CELLS), farther]
    return [Regression(str(people[at]), int(probes[at]), *(float(column[at]) for column in columns)) for at in ranked]


def _own_distances(shared: SharedImages, enrolment: Enrolment, mode: str, people: np.ndarray) -> np.ndarray:
    """Mean squared distance of each person's probes to each of their enrolled faces, (people,)."""
    names = np.asarray(shared.identities, str)
    query, gallery = (shared.vectors[side] for side in mode.split("_"))
    mine, enrolled = (
        [rows[names[rows] == person] for person in people.tolist()] for rows in (enrolment.probes, enrolment.gallery)
    )
    return np.asarray(
        [
            float(np.mean(sq_dist(query[asking][:, None], gallery[there][None])))
            for asking, there in zip(mine, enrolled, strict=True)
        ]
    )


def summary(found: Sequence[Regression], people: int) -> dict[str, int]:
    """Count the people in all, those who are found less often, and those who lie farther from their own faces."""
    less = sum(min(row.rank1_new_old, row.rank1_new_new) < row.rank1_old_old for row in found)
    return {"people": people, "rank1_worse": less, "farther": sum(row.farther > 0 for row in found)}
