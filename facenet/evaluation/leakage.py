"""Leakage: people of the reported faces who were trained on, by name, and faces that are nearly one, by embedding.

An encoder carries no names but hashes of them, salted with its own fingerprint. They tell whether a name one has is
among the training people, and nothing else; who has a name can ask for it.
Letters: N reported faces, T training faces, D embedding width.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from facenet.errors import DataError
from facenet.evaluation.all_pairs import BLOCK_ROWS, TILE_COLUMNS, pairs_before, tiles
from facenet.texts import numbered
from facenet.types import EmbeddingSet, Progress
from facenet.vectors import sq_dist_matrix

NEAR_SQ_DIST = 0.01  # nearer faces are one photograph, whatever their names: cut, scaled or saved again
SHOWN = 10
DIGITS = 16  # of each hash: 64 bits; a stranger is taken for one of a million people once in 10^13 times
ROWS = 1024


def world_of(kind: str, seed: int) -> str:
    """Return the `world` of a data set: drawn people bear the same names with every seed, and are others."""
    return f"drawn with seed {seed}" if kind == "synthetic" else ""


def people_record(people: Mapping[str, Iterable[str]], salt: str, *, world: str = "") -> list[dict[str, Any]]:
    """Return what ``encoder.json`` keeps of {role: names}: role, salt, count and the sorted hashes in one string.

    Roles are "train" and "held_out" (checkpoint and thresholds). `world` sets apart names that mean other people, as
    those of faces drawn with another seed do.
    """
    records = []
    for role, names in people.items():
        hashes = sorted({_hash(name, salt, world) for name in names})
        records.append({"role": role, "salt": salt, "count": len(hashes), "hashes": " ".join(hashes)})
    return records


def shared_people(
    names: Iterable[str], records: Sequence[Mapping[str, Any]] | None, *, world: str = ""
) -> dict[str, list[str]] | None:
    """Return the names that the records know, by role; None if the encoder keeps no records."""
    if not records:
        return None
    found: dict[str, set[str]] = {"train": set(), "held_out": set()}
    names = sorted(set(names) - {""})
    for record in records:
        if not isinstance(record, Mapping) or not {"hashes", "salt", "role"} <= set(record):
            raise DataError(
                "leakage: the encoder's record of whom it was trained on is damaged; copy the encoder again"
            )
        known = set(str(record["hashes"]).split())
        hits = {name for name in names if _hash(name, str(record["salt"]), world) in known}
        found.setdefault(str(record["role"]), set()).update(hits)
    return {role: sorted(hits) for role, hits in found.items()}


def trained_people(names: Iterable[str], records: Sequence[Mapping[str, Any]] | None, *, world: str = "") -> list[str]:
    """Return the names on which an encoder was trained; none if it keeps no records."""
    return (shared_people(names, records, world=world) or {}).get("train", [])


def leakage(
    embeddings: EmbeddingSet,
    records: Sequence[Mapping[str, Any]] | None,
    *,
    world: str = "",
    train: EmbeddingSet | None = None,
    near_sq_dist: float = NEAR_SQ_DIST,
    tile: tuple[int, int] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Look for leakage between the reported faces and the training of their encoder.

    `people` are the reported people, `shared_people` those whose name was trained on, `shared_held_out` those whose
    name chose the checkpoint and the thresholds (both None if the encoder kept no `records`, see
    :func:`people_record`); `near_duplicates` the pairs of reported faces of two different people with
    D <= `near_sq_dist`; `train_near_duplicates` the pairs of a reported face and one of `train`, by whatever name, as
    near (None without `train`); `examples` the nearest of both kinds, [first, second, sq_dist]. `tile` is the number of
    rows and columns that are compared at a time. `progress` is called with (done, total) pairs of reported faces.

    Raises:
        DataError: `train` was embedded by another encoder.
    """
    if train is not None and train.fingerprint != embeddings.fingerprint:
        raise DataError("leakage: the training faces were embedded by another encoder; embed them with this one")
    names = set(embeddings.identities) - {""}
    shared = shared_people(names, records, world=world)
    within = _within(embeddings, near_sq_dist, tile or (BLOCK_ROWS, TILE_COLUMNS), progress)
    across = None if train is None else _across(embeddings, train, near_sq_dist, tile or (ROWS, 4 * ROWS))
    nearest = sorted([*within.nearest, *(across.nearest if across else [])])[:SHOWN]
    return {
        "people": len(names),
        "shared_people": None if shared is None else len(shared["train"]),
        "shared_held_out": None if shared is None else len(shared["held_out"]),
        "near_duplicates": within.count,
        "train_near_duplicates": None if across is None else across.count,
        "near_sq_dist": near_sq_dist,
        "examples": [[first, second, sq_dist] for sq_dist, first, second in nearest],
    }


def _hash(name: str, salt: str, world: str) -> str:
    """Hash a name; case, underscores, blanks and marks make no difference."""
    plain = " ".join(re.findall(r"[^\W_]+", name.casefold()))
    return hashlib.sha256(f"{salt}\n{world}\n{plain or name}".encode()).hexdigest()[:DIGITS]


class _Near:
    """How many pairs were near, and the nearest of them; a collapsed encoder makes more than a list could hold."""

    def __init__(self, firsts: Sequence[str], seconds: Sequence[str]) -> None:
        self.firsts, self.seconds, self.count = firsts, seconds, 0
        self.nearest: list[tuple[float, str, str]] = []

    def add(self, one: np.ndarray, two: np.ndarray, sq_dists: np.ndarray) -> None:
        self.count += len(one)
        best = np.argsort(sq_dists, kind="stable")[:SHOWN]
        rows = zip(sq_dists[best].tolist(), one[best].tolist(), two[best].tolist(), strict=True)
        new = [(sq_dist, self.firsts[i], self.seconds[j]) for sq_dist, i, j in rows]
        self.nearest = sorted([*self.nearest, *new])[:SHOWN]


def _within(embeddings: EmbeddingSet, near: float, size: tuple[int, int], progress: Progress | None) -> _Near:
    """Find the pairs of faces of two different known people that are nearer than `near`."""
    people, names = numbered(embeddings.identities)
    known = np.array([bool(name) for name in people], bool)[names]
    vectors, found = np.ascontiguousarray(embeddings.vectors, np.float32), _Near(embeddings.paths, embeddings.paths)
    for top, left, tile in tiles(vectors, *size):
        one, two = np.nonzero(tile >= np.float32(1 - near / 2))  # D = 2 - 2 s
        sq_dists = np.maximum(2 - 2 * tile[one, two], 0)
        one, two = one + top, two + left
        kept = (one < two) & (names[one] != names[two]) & known[one] & known[two]
        found.add(one[kept], two[kept], sq_dists[kept])
        if progress and left == top:
            progress(pairs_before(top, len(vectors)), pairs_before(len(vectors), len(vectors)))
    return found


def _across(embeddings: EmbeddingSet, train: EmbeddingSet, near: float, size: tuple[int, int]) -> _Near:
    """Find the pairs of a reported and a training face that are nearer than `near`."""
    found, (rows, columns) = _Near(embeddings.paths, train.paths), size
    for top in range(0, len(embeddings), rows):
        for left in range(0, len(train), columns):
            tile = sq_dist_matrix(embeddings.vectors[top : top + rows], train.vectors[left : left + columns])
            one, two = np.nonzero(tile <= near)
            found.add(one + top, two + left, tile[one, two])
    return found
