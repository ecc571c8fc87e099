"""The people of a gallery: whose face each item is, and the mean face of each person.

Letters: N items, P people, M means, D embedding width.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from facenet.gallery.engines.engine import Engine
from facenet.vectors import normalise

NEAREST, MEAN = "nearest", "mean"  # by which face a person answers
SHORTEST = 1e-3  # norm of a mean of unit vectors; a person whose faces are opposed answers by the first


class People(NamedTuple):
    """Whose face each item is; people are numbered from 0, and a face without a name is a person of its own."""

    numbers: np.ndarray  # (N,) int64 item numbers, ascending
    people: np.ndarray  # (N,) int64
    named: np.ndarray  # (N,) bool
    encoders: np.ndarray  # (N,) int64, the numbers of the encoders that made the vectors

    def part(self, chosen: np.ndarray) -> People:
        """Return some of the items."""
        return People(*(column[chosen] for column in self))


class Means(NamedTuple):
    """The mean face of each person, one for each encoder that made vectors of them."""

    rows: np.ndarray  # (M,) int64, the number of the person's first item by that encoder
    people: np.ndarray  # (M,) int64
    counts: np.ndarray  # (M,) int64, how many faces they have
    sums: np.ndarray  # (M, D), of these faces
    vectors: np.ndarray  # (M, D), the sums at unit length


def read_people(engine: Engine, admitted: Any = None) -> People:
    """Return whose face each item is, of all or of the `admitted`."""
    numbers, names, encoders = engine.labels(admitted)
    codes: dict[str | int, int] = {}
    people = [codes.setdefault(name or number, len(codes)) for number, name in zip(numbers, names, strict=True)]
    return People(
        np.array(numbers, np.int64),
        np.array(people, np.int64),
        np.array([bool(name) for name in names], bool),
        np.array(encoders, np.int64),
    )


def vectors_of(engine: Engine, who: People) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield places (n,) in `who` and vectors (n, D) of its items, block by block."""
    start = 0
    for numbers, vectors in engine.vector_blocks():
        end = start + int(np.searchsorted(who.numbers[start:], numbers[-1], side="right"))
        at = np.searchsorted(numbers, who.numbers[start:end])
        there = numbers[at] == who.numbers[start:end]  # others went meanwhile, where there are no transactions
        yield np.arange(start, end)[there], vectors[at[there]]
        start = end


def mean_faces(engine: Engine, who: People) -> Means:
    """Return the mean face v / ||v|| of each person and encoder, v the sum of the unit vectors. M = 0 without items."""
    first, group, counts = groups(who)
    sums = np.zeros((len(first), engine.dim() or 0), np.float32)
    for places, vectors in vectors_of(engine, who):
        order = np.argsort(group[places], kind="stable")
        here, starts = np.unique(group[places][order], return_index=True)
        if len(here):
            sums[here] += np.add.reduceat(vectors[order], starts, axis=0)
    rows = who.numbers[first]
    opposed = np.flatnonzero(np.linalg.norm(sums, axis=1) < SHORTEST)
    opposed = opposed[np.argsort(rows[opposed])]
    sums[opposed] = engine.vectors(rows[opposed])
    return Means(rows, who.people[first], counts, sums, normalise(sums))


def groups(who: People) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Group N items by person and encoder: the place of the first (M,), the group of each item (N,), and sizes (M,)."""
    keys = who.people * (int(who.encoders.max(initial=0)) + 1) + who.encoders
    _, first, group, counts = np.unique(keys, return_index=True, return_inverse=True, return_counts=True)
    return first, group, counts
