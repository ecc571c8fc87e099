"""The parameter of an approximate index, tuned to a recall on new faces that are drawn from those of the gallery.

A face of the gallery finds its neighbours too easily: the index holds it, and links it to them. So a query is a face
plus the difference of another face and its nearest: it lies where another picture of that person could lie. On
100,000 drawn faces an index that was tuned to 0.99 so found 0.992 of new pictures, one tuned on its own faces 0.88.

Letters: S queries, m candidates, D embedding width.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from facenet.errors import ConfigError, choose
from facenet.gallery.engines.exact import distances
from facenet.gallery.faiss.scan import chosen_of, nearest, sampled
from facenet.gallery.faiss.tune import QUERIES, TIE, enough, interval
from facenet.gallery.items import Block, Recipe
from facenet.vectors import normalise

EXACT = 20_000  # items up to which "auto" compares all of them
LEAST = 10_000  # items below which every kind does
GROWN = 2.0  # times as many items as when it was tuned, and an index is tuned again
log = logging.getLogger(__name__)


class Tuned(NamedTuple):
    """What was measured of an index."""

    kind: str  # of the index
    parameter: int  # how much of it a search looks at; 0: it missed the target, and every face is compared
    recall: float = 0.0  # of the nearest face, over so many `queries`
    queries: int = 0
    faces: int = 0  # when it was tuned
    target: float = 1.0

    def due(self, kind: str, recipe: Recipe, count: int) -> bool:
        """Tell whether an index of that kind is to be made and tuned, for `count` items."""
        if kind == self.kind == "flat":
            return False
        return kind != self.kind or recipe.recall_target > self.target or count > GROWN * self.faces


NEVER = Tuned("flat", 0)


def checked(recipe: Recipe, kinds: dict[str, str], place: object) -> Recipe:
    """Return the recipe itself.

    Raises:
        ConfigError: an unknown kind, a factory string, or a target outside (0, 1].
    """
    choose(kinds, recipe.kind, "kind")
    if recipe.factory:
        raise ConfigError(f"factory: {place} has no FAISS; choose a kind: {', '.join(kinds)}")
    if not 0 < recipe.recall_target <= 1:
        raise ConfigError(f"recall_target: expected a share above 0, at most 1, got {recipe.recall_target}")
    return recipe


def kind_for(recipe: Recipe, count: int, usual: str) -> str:
    """Return the kind of index that `count` items get: "flat", the recipe's, or the `usual` one for "auto"."""
    least = EXACT if recipe.kind == "auto" else LEAST
    few = count < least or not enough(min(QUERIES, count // 2), recipe.recall_target)
    return "flat" if few else usual if recipe.kind == "auto" else recipe.kind


def tune(
    blocks: Callable[[], Iterable[Block]],
    count: int,
    dim: int,
    candidates: Callable[[np.ndarray, int], Sequence[Block]],
    parameters: Sequence[int],
    kind: str,
    target: float,
    place: object,
) -> Tuned:
    """Return the least parameter with which new faces surely find their nearest; 0 and a warning without one.

    Args:
        blocks: All items, the same each time. They are read four times.
        count: How many they are.
        dim: D.
        candidates: The m candidates of each of S queries (S, D) for a value of the parameter.
        parameters: The values to try, from little work to much.
        kind: Of the index.
        target: The recall that is to be reached.
        place: Begins the warning.
    """
    queries = new_faces(blocks, count, dim)
    true = nearest(blocks(), queries, 1).sq_dist[:, 0]
    tuned = NEVER
    for parameter in parameters:
        found = candidates(queries, parameter)
        best = [distances(query, one[1]).min(initial=np.inf) for query, one in zip(queries, found, strict=True)]
        recall = float((np.array(best) <= true + TIE).mean())
        tuned = Tuned(kind, parameter, recall, len(queries), count, target)
        if interval(recall, len(queries))[0] >= target:
            return tuned
    log.warning(
        "%s: the index finds %.4f of the nearest faces, not surely the recall_target of %g; every face is compared "
        "instead (flat)", place, tuned.recall, target,
    )  # fmt: skip
    return tuned._replace(parameter=0)


def new_faces(blocks: Callable[[], Iterable[Block]], count: int, dim: int, seed: int = 0) -> np.ndarray:
    """Draw unit vectors (S, D) that lie to the faces as other pictures of their people do; S is at most 2,000."""
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.permutation(count)[:QUERIES])
    numbers, faces = sampled(blocks(), rows, dim)
    near = nearest(blocks(), faces, 2).rows
    others = np.where(near[:, 0] == numbers, near[:, 1], near[:, 0])
    held = dict(zip(*chosen_of(blocks(), others, dim), strict=True))
    difference = faces - np.array([held[number] for number in others])
    return normalise(faces + difference[rng.permutation(len(faces))])
