"""Virtual people: composites of two people's faces, which are people of their own while a batch is learned.

A composite is the face of a person A with a region, with soft edges, of a person B. All composites of one (A, B,
region) are one virtual person. They are compared only with composites of the same region: the seam tells them from real
faces, and from composites of other regions.

Letters: B faces of a batch, V composites, R regions, S S' stored height and width.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor

# top, bottom, left, right of each region as shares of a face's sides: eyes, mouth and chin, the middle of the face
REGIONS = ((0.28, 0.54, 0.08, 0.92), (0.6, 0.92, 0.18, 0.82), (0.28, 0.85, 0.32, 0.68))
EDGE = 0.08  # share of the side over which a region fades
FACES = 4  # composites of a virtual person, at most
LEAST = 2  # faces of a person of whom composites are made


def count_composites(share: float, faces: int) -> int:
    """Return how many composites a batch of so many faces gets: a share of them, as many of each region."""
    return round(share * faces) // len(REGIONS) * len(REGIONS)


class Composites:
    """Adds V composites to a batch: places of the two faces (V,), and which virtual person of its region each shows.

    The composites of each region follow one another, as many for each. So all ranks have the same layout.
    """

    def __init__(self, labels: np.ndarray, count: int, seed: np.random.SeedSequence) -> None:
        """Draw from a batch; without two people of several faces each face stands for a person.

        Args:
            labels: Person of each face (B,).
            count: V, a multiple of R.
            seed: Of the draws.
        """
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(labels))
        people = [rows for rows in _by_person(labels, order) if len(rows) >= LEAST]
        if len(people) < 2:
            people = list(order[:, None])
        each, pairs = count // len(REGIONS), len(people) * (len(people) - 1)
        first, second, person = [], [], []
        for _ in REGIONS if pairs else ():
            filled = 0
            for pair in itertools.cycle(rng.choice(pairs, min(each, pairs), replace=False).tolist()):
                if filled == each:
                    break
                a, b = divmod(pair, len(people) - 1)
                b += b >= a  # another person
                size = min(len(people[a]), len(people[b]), FACES, each - filled)
                first += people[a][:size].tolist()
                second += rng.permutation(people[b])[:size].tolist()
                person += [pair] * size
                filled += size
        self.first, self.second, self.person = (np.array(side, np.int64) for side in (first, second, person))
        self.pairs = max(1, len(labels) ** 2)  # more than there are of two people
        self.region = np.repeat(np.arange(len(REGIONS)), len(first) // len(REGIONS))

    def __len__(self) -> int:
        """Return V."""
        return len(self.first)

    def images(self, faces: Tensor) -> Tensor:
        """Return the composites (V, 3, S, S') of stored faces (B, 3, S, S') uint8."""
        masks = torch.from_numpy(region_masks(*faces.shape[-2:])[self.region, None]).to(faces.device)  # (V, 1, S, S')
        a, b = faces[self.first].float(), faces[self.second].float()
        return (a + masks * (b - a)).round().to(torch.uint8)

    def labels(self, people: int, rank: int = 0) -> np.ndarray:
        """Return a label (V,) for each, from `people` on: label - people is region + R * (a number of its own)."""
        number = self.person + rank * self.pairs
        found: np.ndarray = people + self.region + len(REGIONS) * number
        return found


def group_of(labels: Tensor, people: int) -> Tensor:
    """Return 0 for real faces, 1 + region for composites (B,); faces of one group may be compared."""
    return torch.where(labels < people, 0, 1 + (labels - people) % len(REGIONS))


def region_masks(height: int, width: int) -> np.ndarray:
    """Return the share (R, S, S') float32 that the second face has of each pixel."""
    down, across = ((np.arange(side) + 0.5) / side for side in (height, width))
    return np.stack(
        [_fade(down, top, bottom)[:, None] * _fade(across, left, right)[None] for top, bottom, left, right in REGIONS]
    ).astype(np.float32)


def _fade(places: np.ndarray, start: float, end: float) -> np.ndarray:
    """Return 1 between start and end, 0 outside, and half a cosine across each edge."""
    inside = np.minimum(places - start, end - places) / EDGE + 0.5
    found: np.ndarray = 0.5 - 0.5 * np.cos(np.pi * inside.clip(0, 1))
    return found


def _by_person(labels: np.ndarray, order: np.ndarray) -> list[np.ndarray]:
    """Return the places of each person's faces, in the order given."""
    sort = order[np.argsort(labels[order], kind="stable")]
    return np.split(sort, np.flatnonzero(np.diff(labels[sort])) + 1)
