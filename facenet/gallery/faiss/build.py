"""Build an index from a stream of vectors: choose what lies beside it, train, fill, and tune it to a recall.

An index that can not be trained, or does not surely reach the recall that is wanted, is not used: every face is then
compared, and a warning says why.

Letters: N items, D embedding width, S queries.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from facenet.errors import ConfigError
from facenet.gallery.faiss.kinds import LIMITS, Built, Limits, downcast, factory_of, inverted, new_index
from facenet.gallery.faiss.scan import Blocks, chosen_of, nearest, sampled, without
from facenet.gallery.faiss.trial import reason, shown
from facenet.gallery.faiss.tune import COPIES, NEAR_COPY, SEEDS, enough, first_of_copies, tune, wanted
from facenet.gallery.items import Block, Recipe

POINTS = 40  # training vectors for each centroid
ROUNDS = 10  # of k-means
log = logging.getLogger(__name__)


def build(
    blocks: Blocks, count: int, dim: int, recipe: Recipe, *, again: Blocks | None = None, limits: Limits = LIMITS,
    seed: int = 0,
) -> Built:  # fmt: skip
    """Train, fill and tune an index of `count` vectors; the same blocks and seed give the same centroids.

    `blocks` fill it; `again` is a quicker stream of the same items for everything else.
    """
    factory = factory_of(recipe, count, dim, limits)
    if factory == "Flat":
        return flat(blocks, count, dim)
    if not enough(wanted(count), recipe.recall_target):
        return instead(blocks, count, dim, factory, f"{count} faces are too few to be sure of", recipe)
    again = again or blocks
    try:
        index = new_index(dim, factory)
        beside = _beside(again, count, dim, seed)
        others = without(again, beside[0])
        if not index.is_trained:
            _train(index, others, count - len(beside[0]), dim, limits.trained, seed)
    except (ConfigError, MemoryError) as error:
        why = str(error) if isinstance(error, ConfigError) else "it asks for more memory than there is"
        return instead(blocks, count, dim, factory, f"{why}, so that it can not reach", recipe)
    for numbers, vectors in without(blocks, beside[0])():
        index.add_with_ids(vectors, numbers)
    built = Built(index, factory, count, beside=beside[0].tolist())
    if not tune(built, others, beside, recipe.recall_target, np.empty(0, np.int64), count):
        return instead(blocks, count, dim, factory, said(built), recipe)
    return built


def said(built: Built) -> str:
    """Say what an index finds that does not surely reach its target."""
    return f"finds {built.recall['at_1']:.4f} of the nearest faces of {built.recall['queries']} queries, not surely"


def flat(blocks: Blocks, count: int, dim: int) -> Built:
    """Return the exact index of a stream."""
    index = new_index(dim)
    for numbers, vectors in blocks():
        index.add_with_ids(vectors, numbers)
    return Built(index, "Flat", count)


def instead(blocks: Blocks, count: int, dim: int, factory: str, why: str, recipe: Recipe) -> Built:
    """Return the exact index in the place of another, and warn of it."""
    target = f"the recall_target of {recipe.recall_target:g}"
    log.warning("%s: %s %s; every face is compared instead (flat)", shown(factory), why, target)
    built = flat(blocks, count, dim)
    built.instead_of = factory
    return built


def _beside(blocks: Blocks, count: int, dim: int, seed: int) -> Block:
    """Return the items that lie beside an index: `wanted` ones at random, and all near copies of a part of them."""
    most, order = wanted(count), np.random.default_rng(seed + 1).permutation(count)
    chosen = set(sampled(blocks(), np.sort(order[:most]), dim)[0].tolist())
    vectors = sampled(blocks(), np.sort(order[: max(1, most // SEEDS)]), dim)[1]
    room = len(chosen) + min(most, count // 4)
    for row, sq_dist in zip(*nearest(blocks(), vectors, COPIES), strict=True):
        group = chosen.union(row[sq_dist <= NEAR_COPY].tolist())
        chosen = group if len(group) <= room else chosen
    return chosen_of(blocks(), np.array(sorted(chosen), np.int64), dim)


def sample_later(numbers: np.ndarray, vectors: np.ndarray, beside: np.ndarray, count: int, *, seed: int) -> np.ndarray:
    """Choose which of the later items lie beside an index from now on: True for them, (n,).

    Of new items as large a share is drawn as lay there of the others, a part of them with their near copies. So new
    people are among the queries as often as among the items. Near copies of what lies there join it. If these are more
    than twice as many as are `wanted`, some are left out, each with its near copies.

    Args:
        numbers: Item numbers (n,) of what lies beside the index and of new items.
        vectors: Their unit vectors (n, D).
        beside: The numbers of those that lie there already.
        count: N, how many items the gallery has.
        seed: Of the draw.
    """
    rng, most = np.random.default_rng(seed), wanted(count)
    there = np.isin(numbers, beside)
    old, new = np.flatnonzero(there), np.flatnonzero(~there)
    before = count - len(new)
    share = first_of_copies(vectors[old]).sum() / before if len(old) else most / max(count, 1)
    drawn = rng.permutation(new)[: round(share * len(new))]
    whole = np.concatenate([old, drawn[: -(-len(drawn) // SEEDS)]])
    chosen = there.copy()
    chosen[drawn] = True
    if len(new) and len(whole):
        near = nearest([(new, vectors[new])], vectors[whole], COPIES)
        chosen[near.rows[near.sq_dist <= NEAR_COPY]] = True
    return chosen if chosen.sum() <= 2 * most else _thinned(chosen, vectors, 2 * most, rng)


def _thinned(chosen: np.ndarray, vectors: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    """Keep at most so many of the chosen rows (n,), drawn at random, each with its near copies among them."""
    rows = rng.permutation(np.flatnonzero(chosen))
    found = nearest([(rows, vectors[rows])], vectors[rows], COPIES)
    kept = np.zeros(len(chosen), bool)
    for row, near, sq_dist in zip(rows, found.rows, found.sq_dist, strict=True):
        group = np.union1d(near[sq_dist <= NEAR_COPY], row)
        if not kept[row] and kept.sum() + (~kept[group]).sum() <= most:
            kept[group] = True
    return kept


def _train(index: Any, blocks: Blocks, count: int, dim: int, least: int, seed: int) -> None:
    ivf = inverted(index)
    most = count
    if ivf:
        ivf.cp.niter, ivf.cp.max_points_per_centroid, ivf.cp.seed = ROUNDS, POINTS, seed + 1
        ivf.cp.min_points_per_centroid = 1  # no warning of few points: the recall that they give is measured
        most = max(POINTS * ivf.nlist, least)
    codes = downcast(ivf or index)
    if hasattr(codes, "pq"):
        codes.pq.cp.min_points_per_centroid = 1
    rows = np.sort(np.random.default_rng(seed).choice(count, min(most, count, 2_000_000), replace=False))
    try:
        index.train(sampled(blocks(), rows, dim)[1])
    except RuntimeError as error:
        raise ConfigError(f"can not be trained on {len(rows)} vectors ({reason(error)})") from error
