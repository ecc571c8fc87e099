"""Online triplet mining: unit embeddings and labels in, row numbers of triplets out, never a (B, B, B) cube.

One pass over blocks of rows, see :mod:`.blocks`; what a valid negative is stands in :mod:`.rules`.

Letters: B batch, D width, R rows of a block, P anchor-positive pairs of a block, C candidates, T triplets.
Source: Schroff et al. 2015, section 3.2 (all anchor-positive pairs, semi-hard negatives); the paper leaves
open which negative is taken and what happens to a pair without one: `select` and `fallback` here.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from facenet.errors import ConfigError, choose
from facenet.mining.blocks import Batch, Blocks, Pairs, number_bits, sort_by_label
from facenet.mining.rules import FALLBACKS, MINERS, SELECTS
from facenet.mining.sorting import argsort_stable, nonzero, pick
from facenet.types import MiningStats, Triplets


class NotFiniteEmbeddings(ConfigError):
    """Embeddings to be mined hold NaN or infinity; on several ranks all of them see it."""


Rows = tuple[Tensor, Tensor, Tensor]


def mine(
    embeddings: Tensor,
    labels: Tensor,
    *,
    margin: float,
    miner: str = "semi_hard",
    select: str = "nearest",
    fallback: str = "none",
    seed: int = 0,
    max_triplets: int = 2_000_000,
    anchors: Tensor | Sequence[int] | None = None,
    block_rows: int | None = None,
) -> Triplets:
    """Find triplets (a, p, n) among the rows of unit `embeddings` (B, D) with integer `labels` (B,).

    d(x, y) = max(0, 2 - 2 x.y) is squared L2 in [0, 4], computed once in float32 whatever the dtype. Rows that were
    rounded to half precision are not quite unit, and d differs from their distance by as much. Every ordered pair of
    rows a != p with one label is a pair; a negative of `a` is any row with another label. No label value is special: an
    identity seen once serves as a negative only.

    `miner` states which negatives n of a pair are valid; :func:`~facenet.mining.rules.register_miner` adds others:
      semi_hard  d(a,p) < d(a,n) < d(a,p) + margin
      hard       d(a,n) <= d(a,p)
      all_valid  d(a,n) < d(a,p) + margin
      random     every negative
    `select` states which of the valid ones are taken:
      nearest    the one of smallest d(a,n), the lowest row number among equals (so `hard` and `all_valid`
                 give the hardest negative); with `random` the same as select random
      random     one, uniformly; a function of (seed, a, p) and the candidates alone
      all        each of them
    `fallback` states what a pair without a valid negative gets:
      none            nothing, the pair is dropped
      nearest_beyond  the nearest n with d(a,n) >= d(a,p) + margin, if any: it is counted, its loss is 0
      hardest         the nearest negative of all, if any

    Above `max_triplets` a uniform sample of that size, a function of the seed, is kept;
    `stats.triplets` is the exact number before. `anchors` restricts `a` to the given distinct rows (a rank's
    share) and the statistics with it: the parts of a partition add up to the whole. `block_rows` bounds memory
    (default 2^21 / B, at most 512; on a GPU 2^26 / B) and changes no result, apart from rounding in the product.

    Returns int64 row numbers (T,) on the embeddings' device, sorted by (a, p, d(a,n), n); T = 0 when there are no
    pairs or no negatives. Needs O(B^2) time and a few (block_rows, B) buffers for each of up to 8 threads. No
    gradient flows through.
    Raises ConfigError for unknown names, wrong shapes, types or ranges, and embeddings that are not finite.
    """
    rule = choose(MINERS, miner, "miner")
    choose(SELECTS, select, "select")
    spare = choose(FALLBACKS, fallback, "fallback")
    select = "random" if (miner, select) == ("random", "nearest") else select
    _check(embeddings, labels, margin, max_triplets, block_rows)
    take = functools.partial(_take, select=select, seed=seed)
    with torch.no_grad(), torch.autocast(embeddings.device.type, enabled=False), _float32_products():
        batch = sort_by_label(embeddings, labels)
        blocks = Blocks(batch, _anchor_rows(batch, anchors), margin, rule, spare, block_rows)
        tally, total = [0.0] * 5, 0
        found: list[Rows] = []
        for taken in blocks.map(take):
            tally = [a + b for a, b in zip(tally, taken.counts, strict=True)]
            past, total = total, int(tally[3])
            if total <= max_triplets:
                found.append(_emit_all(taken, total - past))
        if total > max_triplets:  # a second pass takes the sampled ones
            ranks = torch.from_numpy(_sample(total, max_triplets, seed)).to(embeddings.device)
            found, past = [], 0
            for taken in blocks.map(take):
                upto = past + int(taken.counts[3])
                inside = ranks[torch.searchsorted(ranks, past) : torch.searchsorted(ranks, upto)] - past
                found.append(_emit(taken, inside))
                past = upto
        return Triplets(*_join(found, batch), _statistics(tally, batch, blocks.rows))


def thin(triplets: Triplets, size: int, seed: int = 0) -> Triplets:
    """Keep a uniform sample of `size` of the triplets, a function of the seed, in their order; all if they fit."""
    if len(triplets.anchor) <= size:
        return triplets
    kept = torch.from_numpy(_sample(len(triplets.anchor), size, seed)).to(triplets.anchor.device)
    anchor, positive, negative = (pick(rows, kept) for rows in triplets[:3])
    return Triplets(anchor, positive, negative, triplets.stats)


@contextlib.contextmanager
def _float32_products() -> Iterator[None]:
    """Multiply in float32 whatever was set for the network: TF32 is off by a thousand times the slack at a bound."""
    backends: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)  # type: ignore[attr-defined]
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision


def _check(embeddings: Tensor, labels: Tensor, margin: float, max_triplets: int, block_rows: int | None) -> None:
    if embeddings.ndim != 2 or not embeddings.is_floating_point():
        raise ConfigError(f"embeddings: expected floats (B, D), got {embeddings.dtype} {tuple(embeddings.shape)}")
    if labels.shape != embeddings.shape[:1] or labels.is_floating_point() or labels.is_complex():
        raise ConfigError(f"labels: expected integers ({len(embeddings)},), got {labels.dtype} {tuple(labels.shape)}")
    if not (math.isfinite(margin) and margin >= 0):
        raise ConfigError(f"margin: expected a finite number >= 0 (on squared L2), got {margin}")
    if max_triplets < 1:
        raise ConfigError(f"max_triplets: expected at least 1, got {max_triplets}")
    if block_rows is not None and block_rows < 1:
        raise ConfigError(f"block_rows: expected at least 1, got {block_rows}")
    total = embeddings.detach().sum(dtype=torch.float64)  # NaN or inf in any place reaches it
    if not torch.isfinite(total):
        raise NotFiniteEmbeddings(
            "embeddings: not finite (NaN or inf); the net diverged: lower the learning rate or clip"
        )


def _anchor_rows(batch: Batch, anchors: Tensor | Sequence[int] | None) -> Tensor:
    """Return the rows to mine for, in sorted numbering: those of `anchors` that have a positive."""
    wanted = torch.ones_like(batch.order, dtype=torch.bool)
    if anchors is not None:
        chosen = torch.as_tensor(anchors, device=batch.order.device)
        chosen = chosen.to(torch.int64) if chosen.numel() == 0 else chosen
        if chosen.ndim != 1 or chosen.dtype not in (torch.int64, torch.int32) or len(chosen.unique()) != len(chosen):
            raise ConfigError("anchors: expected distinct row numbers, one-dimensional and integer")
        if len(chosen) and not (int(chosen.min()) >= 0 and int(chosen.max()) < len(wanted)):
            raise ConfigError(f"anchors: expected row numbers from 0 to {len(wanted) - 1}")
        member = torch.zeros_like(wanted)
        member[chosen.long()] = True
        wanted = member[batch.order]
    return (wanted & (batch.size > 1)).nonzero().squeeze(1)


class _Taken(NamedTuple):
    """What the pairs of a block take."""

    pairs: Pairs
    first: Tensor  # (P,) place of each pair's first negative in the keys
    size: Tensor  # (P,) how many it takes
    counts: list[float]  # pairs, semi-hard ones, hard ones, triplets, sum of d(a,p)


def _take(pairs: Pairs, *, select: str, seed: int) -> _Taken:
    """Take valid negatives as `select` says, or the fallback's."""
    valid = (pairs.stop - pairs.first).clamp(min=0)
    count, skip = SELECTS[select](valid, lambda: _draw(seed, pairs.anchor, pairs.positive))
    first = pairs.first + skip
    if pairs.spare is not None:
        without = pairs.stop <= pairs.first
        first = torch.where(without, pairs.spare, first)
        count = torch.where(without, (pairs.end - pairs.spare).clamp(max=1), count)
    counted: list[float] = torch.stack([pairs.semi_hard, pairs.hard, count.sum(), pairs.sum_positive]).tolist()
    return _Taken(pairs, first, count, [len(count), *counted])


def _draw(seed: int, anchor: Tensor, positive: Tensor) -> Tensor:
    """Hash (seed, anchor, positive) to [0, 2^32) by splitmix64, so that a draw depends on nothing else."""
    x = anchor * 0x2545F4914F6CDD1D + positive + (seed * 0x9E3779B97F4A7C15 & (2**62 - 1))
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        x = (x ^ ((x >> shift) & (2 ** (64 - shift) - 1))) * (factor - 2**64 if factor >= 2**63 else factor)
    return (x >> 32) & (2**32 - 1)


def _emit_all(taken: _Taken, total: int) -> Rows:
    """Write out all `total` triplets of a block."""
    pairs, first, count, _ = taken
    served = nonzero(count > 0)  # (P',) pairs that take any
    first, count = pick(first, served), pick(count, served)
    if total > len(served):
        pair = torch.repeat_interleave(count, output_size=total)  # (T,)
        place = torch.arange(total, device=count.device) - (count.cumsum(0) - count)[pair]
        served, first = served[pair], first[pair] + place
    return pick(pairs.anchor, served), pick(pairs.positive, served), pick(pairs.keys, first)


def _emit(taken: _Taken, ranks: Tensor) -> Rows:
    """Write out the triplets with the given `ranks` (T,), sorted, among those of a block."""
    pairs, first, count, _ = taken
    upto = count.cumsum(0)
    pair = torch.searchsorted(upto, ranks, right=True)
    return pairs.anchor[pair], pairs.positive[pair], pairs.keys[first[pair] + ranks - (upto - count)[pair]]


def _join(found: list[Rows], batch: Batch) -> Rows:
    """Put the blocks together in the order of (anchor, positive, d(a,n), n)."""
    B = len(batch.order)
    empty = (batch.order[:0],) * 3
    anchor, positive, key = (torch.cat(parts) for parts in zip(empty, *found, strict=True))
    order = argsort_stable(anchor * B + positive, B * B)
    return pick(anchor, order), pick(positive, order), pick(key, order) & (2 ** number_bits(B) - 1)


def _statistics(tally: list[float], batch: Batch, rows: Tensor) -> MiningStats:
    """Name the counts; the mean d(a,n) comes from sums: 2 - 2 (all dots - own dots) / count."""
    pairs, sum_positive = int(tally[0]), tally[4]
    vectors = pick(batch.vectors, rows)
    negatives = len(rows) * (len(batch.order) - 1) - pairs
    every = float(vectors.sum(0).double() @ batch.vectors.sum(0).double())
    own = float(vectors.square().sum()) + pairs - sum_positive / 2
    mean_negative = 2 - 2 * (every - own) / negatives if negatives else 0.0
    mean_positive = sum_positive / pairs if pairs else 0.0
    return MiningStats(pairs, int(tally[1]), int(tally[2]), int(tally[3]), mean_positive, mean_negative, negatives)


def merge(parts: Sequence[MiningStats]) -> MiningStats:
    """Add up the statistics of a partition of the anchors: counts add, means are weighted by what they are over."""
    pairs, negatives = sum(part.pairs for part in parts), sum(part.negatives for part in parts)
    return MiningStats(
        pairs,
        sum(part.semi_hard_pairs for part in parts),
        sum(part.hard_pairs for part in parts),
        sum(part.triplets for part in parts),
        sum(part.mean_positive * part.pairs for part in parts) / max(1, pairs),
        sum(part.mean_negative * part.negatives for part in parts) / max(1, negatives),
        negatives,
    )


def _sample(total: int, size: int, seed: int) -> np.ndarray:
    """Draw `size` distinct ranks below `total`, sorted, uniformly over all such sets."""
    generator = np.random.default_rng(seed & (2**63 - 1))
    if total <= 2 * size:
        return np.sort(generator.permutation(total)[:size])
    ranks = np.empty(0, np.int64)
    while len(ranks) < size:  # the first `size` distinct values of a sequence of draws
        ranks = np.union1d(ranks, generator.integers(total, size=size - len(ranks)))
    return ranks
