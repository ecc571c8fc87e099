"""The parameter of an approximate index, tuned to a recall on faces of the gallery itself.

Faces of the gallery ask for their nearest other face. The exact answer comes from all vectors, read once. Faces whose
nearest other face is a near copy are easy, and left out where there are enough others.

Letters: S queries, m candidates, D embedding width.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from facenet.errors import ConfigError, choose
from facenet.gallery.engines.exact import distances
from facenet.gallery.faiss.scan import nearest, sampled
from facenet.gallery.faiss.tune import FEW, NEAR_COPY, QUERIES, TIE, enough, interval
from facenet.gallery.items import Block, Recipe

EXACT = 20_000  # items up to which "auto" compares all of them
LEAST = 10_000  # items below which every kind does
GROWN = 2.0  # times as many items as when it was tuned, and an index is tuned again
log = logging.getLogger(__name__)


class Tuned(NamedTuple):
    """What was measured of an index."""

    parameter: int  # how much of the index a search looks at; 0: every face is compared
    recall: float = 0.0  # of the nearest other face of `queries` faces
    queries: int = 0
    faces: int = 0  # when it was tuned
    target: float = 1.0

    def fits(self, recipe: Recipe) -> bool:
        """Tell whether it was tuned for such a recipe."""
        return bool(self.faces) and recipe.kind != "flat" and recipe.recall_target <= self.target


NEVER = Tuned(0)


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


def wants_index(recipe: Recipe, count: int) -> bool:
    """Tell whether `count` items get an approximate index."""
    least = EXACT if recipe.kind == "auto" else LEAST
    return recipe.kind != "flat" and count >= least and enough(min(QUERIES, count // 2), recipe.recall_target)


def tune(
    blocks: Callable[[], Iterable[Block]],
    count: int,
    dim: int,
    candidates: Callable[[np.ndarray, int], Sequence[Block]],
    parameters: Sequence[int],
    recipe: Recipe,
    place: object,
) -> Tuned:
    """Return the least parameter with which faces surely find their nearest other face; 0 and a warning without one.

    Args:
        blocks: All items, the same each time.
        count: How many they are.
        dim: D.
        candidates: The m candidates of each of S queries (S, D), two or more, for a value of the parameter.
        parameters: The values to try, from little work to much.
        recipe: Its `recall_target` is to be reached.
        place: Begins the warning.
    """
    rows = np.sort(np.random.default_rng(0).permutation(count)[:QUERIES])
    numbers, queries = sampled(blocks(), rows, dim)
    exact = nearest(blocks(), queries, 2)
    true = np.where(exact.rows[:, 0] == numbers, exact.sq_dist[:, 1], exact.sq_dist[:, 0])
    fresh = true > NEAR_COPY
    told = fresh if fresh.sum() >= FEW else np.ones(len(true), bool)
    tuned = NEVER
    for parameter in parameters:
        found = candidates(queries[told], parameter)
        best = [_nearest_other(*one) for one in zip(found, numbers[told], queries[told], strict=True)]
        recall = float((np.array(best) <= true[told] + TIE).mean())
        tuned = Tuned(parameter, recall, int(told.sum()), count, recipe.recall_target)
        if interval(recall, tuned.queries)[0] >= recipe.recall_target:
            return tuned
    log.warning(
        "%s: the index finds %.4f of the nearest faces, not surely the recall_target of %g; every face is compared "
        "instead (flat)", place, tuned.recall, recipe.recall_target,
    )  # fmt: skip
    return tuned._replace(parameter=0)


def _nearest_other(found: Block, itself: int, query: np.ndarray) -> float:
    """Return the least sq_dist of a query's candidates, without the query itself; inf without any."""
    numbers, vectors = found
    return float(distances(query, vectors[numbers != itself]).min(initial=np.inf))
