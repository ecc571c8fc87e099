"""Embeddings of an old, a new and an unrelated encoder, and what cells of them hold, by plain loops."""

from __future__ import annotations

import numpy as np

from facenet.compat.matching import Enrolment, SharedImages, SharedPairs, draw_pairs, share_images, share_pairs
from facenet.types import EmbeddingSet
from facenet.vectors import normalise

OLD, NEW, ALONE = "ab" * 32, "cd" * 32, "ef" * 32
D = 12


def sets(people: int = 20, images: int = 5, *, seed: int = 0, dim: int = D) -> dict[str, EmbeddingSet]:
    """Old, noisy vectors; new, better ones in the same space; and a reference, better still in a space of its own."""
    rng = np.random.default_rng(seed)
    centres = np.repeat(rng.normal(size=(people, dim)), images, 0)
    turned = np.linalg.qr(rng.normal(size=(dim, dim)))[0]
    paths = [f"p{i:02d}/p{i:02d}_{j + 1:04d}.jpg" for i in range(people) for j in range(images)]
    names = [path.split("/")[0] for path in paths]
    found = {}
    for name, noise, turn in (("old", 1.3, None), ("new", 0.9, None), ("reference", 0.8, turned)):
        vectors = centres + noise * rng.normal(size=centres.shape)
        vectors = normalise(vectors if turn is None else vectors @ turn)
        found[name] = EmbeddingSet(vectors, paths, names, {"old": OLD, "new": NEW, "reference": ALONE}[name])
    return found


def case(people: int = 20, images: int = 5, *, seed: int = 0) -> tuple[SharedImages, SharedPairs]:
    shared = share_images(sets(people, images, seed=seed))
    return shared, share_pairs(shared, draw_pairs(shared, seed))


def right_by_loops(distances: np.ndarray, pairs: SharedPairs, thresholds: tuple[float, ...]) -> list[list[bool]]:
    folds = sorted(set(pairs.fold.tolist()))
    return [
        [(score <= thresholds[folds.index(fold)]) == same for score in row]
        for row, same, fold in zip(distances, pairs.same, pairs.fold.tolist(), strict=True)
    ]


def answers_by_loops(
    shared: SharedImages, enrolment: Enrolment, query: str, gallery: str
) -> tuple[list[int], list[float]]:
    """Rank of the own person and average precision of each probe."""
    ranks, precisions = [], []
    names = shared.identities
    for probe in enrolment.probes.tolist():
        asked = shared.vectors[query][probe]
        far = {
            face: float(max(0, 2 - 2 * (shared.vectors[gallery][face] @ asked))) for face in enrolment.gallery.tolist()
        }
        own = {face: value for face, value in far.items() if names[face] == names[probe]}
        people = {names[face] for face, value in far.items() if value <= min(own.values())}
        ranks.append(1 + len(people - {names[probe]}))
        shares = [sum(v <= d for v in own.values()) / sum(v <= d for v in far.values()) for d in own.values()]
        precisions.append(sum(shares) / len(shares))
    return ranks, precisions
