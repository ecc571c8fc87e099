"""Online triplet mining: unit embeddings and labels in, row numbers of triplets out, never a (B, B, B) cube.

One pass over blocks of rows. With the rows sorted by label, the positives of a row are a run of columns.
Of its negatives only those nearer than its farthest positive plus the margin can matter; a threshold on the
dot products finds them, and each becomes one integer (row, bits of sq_dist, row number). After one sort of
those integers every question is an interval between two binary searches.

Letters: B batch, D width, R rows of a block, P anchor-positive pairs of a block, C candidates, T triplets.
Source: Schroff et al. 2015, section 3.2 (all anchor-positive pairs, semi-hard negatives); the paper leaves
open which negative is taken and what happens to a pair without one: `select` and `fallback` here.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from facenet.errors import ConfigError, choose
from facenet.mining.sorting import argsort_stable, exceeds, nonzero, pick, search, sort_keys
from facenet.types import MiningStats, Triplets


class NotFiniteEmbeddings(ConfigError):
    """Embeddings to be mined hold NaN or infinity; on several ranks all of them see it."""


class _Pairs(NamedTuple):
    """The P pairs of a block, and where in the sorted candidates of their anchor the bounds lie."""

    keys: Tensor  # (C,) int64, sorted: row in block, bits of sq_dist, original row number of the negative
    edges: Tensor  # (R + 1,) first negative of each row in `keys`
    row: Tensor  # (P,) row in block
    anchor: Tensor  # (P,) original row numbers
    positive: Tensor  # (P,)
    above: Tensor  # (P,) first negative with d(a,n) > d(a,p)
    beyond: Tensor  # (P,) first with d(a,n) >= d(a,p) + margin
    sum_positive: Tensor  # () sum of d(a,p)

    @property
    def begin(self) -> Tensor:
        """(P,) first negative of the anchor."""
        return pick(self.edges, self.row)

    @property
    def end(self) -> Tensor:
        """(P,) one past the anchor's last candidate."""
        return pick(self.edges, self.row + 1)


Span = tuple[Tensor, Tensor]
Rows = tuple[Tensor, Tensor, Tensor]
Found = TypeVar("Found")
THREADS = 8  # at most: each has its buffers, and memory is what they wait for

MINERS: dict[str, Callable[[_Pairs], Span]] = {
    "semi_hard": lambda pairs: (pairs.above, pairs.beyond),
    "hard": lambda pairs: (pairs.begin, pairs.above),
    "all_valid": lambda pairs: (pairs.begin, pairs.beyond),
    "random": lambda pairs: (pairs.begin, pairs.end),
}
# From the number of candidates (P,) and a source of draws (P,) in [0, 2^32): how many to take, how many to skip.
SELECTS: dict[str, Callable[[Tensor, Callable[[], Tensor]], tuple[Tensor, Tensor | int]]] = {
    "nearest": lambda length, draw: (length.clamp(max=1), 0),
    "random": lambda length, draw: (length.clamp(max=1), (draw() * length) >> 32),
    "all": lambda length, draw: (length, 0),
}
FALLBACKS: dict[str, Callable[[_Pairs], Span]] = {
    "none": lambda pairs: (pairs.above, pairs.above),
    "nearest_beyond": lambda pairs: (pairs.beyond, torch.minimum(pairs.beyond + 1, pairs.end)),
    "hardest": lambda pairs: (pairs.begin, torch.minimum(pairs.begin + 1, pairs.end)),
}


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

    d(x, y) = max(0, 2 - 2 x.y), squared L2 in [0, 4], computed once in float32 whatever the dtype (rows rounded to half
    precision are not quite unit, and d is by so much not their distance). Every ordered
    pair of rows a != p with one label is a pair; a negative of `a` is any row with another label. No label
    value is special: an identity seen once serves as a negative only.

    `miner` states the candidates n of a pair:
      semi_hard  d(a,p) < d(a,n) < d(a,p) + margin
      hard       d(a,n) <= d(a,p)
      all_valid  d(a,n) < d(a,p) + margin
      random     every negative
    `select` states which of them are taken:
      nearest    the one of smallest d(a,n), the lowest row number among equals (so `hard` and `all_valid`
                 give the hardest negative); with `random` the same as select random
      random     one, uniformly; a function of (seed, a, p) and the candidates alone
      all        each of them
    `fallback` states what a pair without candidates gets:
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
    rule = _Rule(
        choose(MINERS, miner, "miner"),
        choose(SELECTS, "random" if (miner, select) == ("random", "nearest") else select, "select"),
        choose(FALLBACKS, fallback, "fallback"),
        seed,
    )
    _check(embeddings, labels, margin, max_triplets, block_rows)
    reach = "all" if miner == "random" else "margin" if fallback == "none" else "beyond"
    with torch.no_grad(), torch.autocast(embeddings.device.type, enabled=False), _float32_products():
        batch = _sort_by_label(embeddings, labels)
        blocks = _Blocks(batch, _anchor_rows(batch, anchors), margin, reach, block_rows)
        tally, total = [0.0] * 5, 0
        found: list[Rows] = []
        for pairs, first, count, counted in blocks.map(rule.apply):
            tally = [a + b for a, b in zip(tally, counted, strict=True)]
            past, total = total, int(tally[3])
            if total <= max_triplets:
                found.append(_emit_all(pairs, first, count, total - past))
        if total > max_triplets:  # a second pass takes the sampled ones
            ranks = torch.from_numpy(_sample(total, max_triplets, seed)).to(embeddings.device)
            found, past = [], 0
            for pairs, first, count, counted in blocks.map(rule.apply):
                upto = past + int(counted[3])
                inside = ranks[torch.searchsorted(ranks, past) : torch.searchsorted(ranks, upto)] - past
                found.append(_emit(pairs, first, count, inside))
                past = upto
        return Triplets(*_join(found, batch), _statistics(tally, batch, blocks.rows))


def thin(triplets: Triplets, size: int, seed: int = 0) -> Triplets:
    """Keep a uniform sample of `size` of the triplets, a function of the seed, in their order; all where they fit."""
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


class _Batch(NamedTuple):
    """The batch with its rows sorted by label."""

    vectors: Tensor  # (B, D) float32
    order: Tensor  # (B,) original row numbers
    start: Tensor  # (B,) first row with the same label
    size: Tensor  # (B,) rows with the same label


def _sort_by_label(embeddings: Tensor, labels: Tensor) -> _Batch:
    labels, order = labels.detach().to(embeddings.device).sort(stable=True)
    _, group, counts = torch.unique_consecutive(labels, return_inverse=True, return_counts=True)
    start = counts.cumsum(0) - counts
    return _Batch(pick(embeddings.detach(), order).float(), order, pick(start, group), pick(counts, group))


def _anchor_rows(batch: _Batch, anchors: Tensor | Sequence[int] | None) -> Tensor:
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


class _Blocks:
    """Walks over the pairs block by block, in order, several at a time where there are threads, in reused buffers."""

    def __init__(self, batch: _Batch, rows: Tensor, margin: float, reach: str, block_rows: int | None) -> None:
        self.batch, self.rows, self.margin, self.reach = batch, rows, margin, reach
        B = len(batch.order)
        self.bits = _bits(B)
        room, most = (2**21, 512) if batch.vectors.device.type == "cpu" else (2**26, 2**16)  # a cache; a device
        step = block_rows or min(most, max(32, room // max(1, B)))
        self.step = min(step, 2 ** (32 - self.bits) - 1, max(1, len(rows)))
        self.buffers = threading.local()  # dots (R, B) and a mask of them, for each thread

    def map(self, work: Callable[[_Pairs], Found]) -> Iterator[Found]:
        """Yield ``work(pairs)`` of each block."""

        def one(rows: Tensor) -> Found:
            return work(self._pairs(rows))

        parts = self.rows.split(self.step) if len(self.rows) else ()
        threads = min(torch.get_num_threads() if self.batch.vectors.device.type == "cpu" else 1, len(parts), THREADS)
        if threads < 2:
            yield from map(one, parts)
            return
        waiting: deque[Future[Found]] = deque()
        for rows in parts:  # no more than one block ahead of each thread
            waiting.append(_pool(threads, os.getpid()).submit(one, rows))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        yield from (block.result() for block in waiting)

    def _pairs(self, rows: Tensor) -> _Pairs:
        batch, R, low = self.batch, len(rows), 2**self.bits - 1
        if not hasattr(self.buffers, "dots"):
            self.buffers.dots = batch.vectors.new_empty(self.step, len(batch.order))
            self.buffers.near = torch.empty_like(self.buffers.dots, dtype=torch.bool)
        dots = torch.mm(pick(batch.vectors, rows), batch.vectors.T, out=self.buffers.dots[:R])  # (R, B)
        start, size = batch.start[rows, None], batch.size[rows, None]
        column = torch.arange(int(size.max()), device=rows.device) + start  # (R, K)
        own = torch.where(column < start + size, column, rows[:, None])  # (R, K), padded with the row itself
        sq_pos, is_pair = _sq_dist(dots.gather(1, own)), own != rows[:, None]
        dots.scatter_(1, own, -math.inf)
        place = nonzero(is_pair)  # (P,)
        pair_keys = sort_keys(
            self._key(place // own.shape[1], pick(sq_pos.view(-1), place), pick(batch.order, pick(own.view(-1), place)))
        )
        keys = self._candidates(dots, sq_pos.mul_(is_pair).amax(1) + self.margin)
        row, sq_pos = pair_keys >> (31 + self.bits), self._key_sq_dist(pair_keys)
        return _Pairs(
            keys,
            edges=search(keys, torch.arange(R + 1, device=rows.device) << (31 + self.bits)),
            row=row,
            anchor=pick(pick(batch.order, rows), row),
            positive=pair_keys & low,
            above=search(keys, (pair_keys | low).add_(1)),
            beyond=search(keys, self._key(row, sq_pos + self.margin, 0)),
            sum_positive=sq_pos.sum(dtype=torch.float64),
        )

    def _candidates(self, dots: Tensor, limit: Tensor) -> Tensor:
        """Return the sorted keys (C,) of all negatives with sq_dist < `limit` (R,), and some beyond."""
        R, B = dots.shape
        slack = 1e-6 * (1 + limit)  # more than the rounding of 2 - 2 x.y
        bound = 1 - limit / 2 - slack
        if self.reach == "beyond":  # as far as the first negative that lies beyond the limit
            farther = dots.masked_fill(dots > bound[:, None], -math.inf).amax(1)
            bound = torch.minimum(bound, farther.clamp(min=-1e30) - slack)
        elif self.reach == "all":
            bound = torch.full_like(bound, -1e30)
        place = nonzero(exceeds(dots, bound, out=self.buffers.near[:R]))
        sq_dist = _sq_dist(pick(dots.view(-1), place))
        row = place // B
        column = torch.sub(place, row, alpha=B, out=place)
        return sort_keys(self._key(row, sq_dist, pick(self.batch.order, column)))

    def _key(self, row: Tensor, sq_dist: Tensor, number: Tensor | int) -> Tensor:
        """Pack so that the order of keys is the order of (row, sq_dist, number); sq_dist >= 0."""
        key = (row << 31).bitwise_or_(sq_dist.view(torch.int32))
        return key.bitwise_left_shift_(self.bits).bitwise_or_(number)

    def _key_sq_dist(self, keys: Tensor) -> Tensor:
        return ((keys >> self.bits) & (2**31 - 1)).int().view(torch.float32)


@functools.cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Threads that take a block each, one core for each of them; a process that was forked makes its own."""
    elsewhere = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, "mining", initializer=_use_one_core)
    ready = threading.Barrier(threads)
    list(pool.map(lambda _: ready.wait(), range(threads)))  # all of them have started
    torch.set_num_threads(elsewhere)  # what threads that come later begin with
    return pool


def _use_one_core() -> None:
    torch.get_num_threads()  # a thread's first operation takes the number that holds elsewhere; it is taken now
    torch.set_num_threads(1)


def _bits(B: int) -> int:
    """Bits of a row number, the low end of a key."""
    return max(1, (B - 1).bit_length())


def _sq_dist(dots: Tensor) -> Tensor:
    return (dots * -2).add_(2).clamp_(min=0)


class _Rule(NamedTuple):
    """What miner, select and fallback mean, as functions."""

    candidates: Callable[[_Pairs], Span]
    pick: Callable[[Tensor, Callable[[], Tensor]], tuple[Tensor, Tensor | int]]
    spare: Callable[[_Pairs], Span]
    seed: int

    def apply(self, pairs: _Pairs) -> tuple[_Pairs, Tensor, Tensor, list[float]]:
        """Return with the pairs what they take, see :meth:`taken`, and the block's counts."""
        first, count = self.taken(pairs)
        return pairs, first, count, _count(pairs, count)

    def taken(self, pairs: _Pairs) -> Span:
        """Return for each pair the place of its first negative in the keys and how many it takes, (P,) each."""
        first, stop = self.candidates(pairs)
        count, skip = self.pick((stop - first).clamp(min=0), lambda: _draw(self.seed, pairs.anchor, pairs.positive))
        if self.spare is FALLBACKS["none"]:
            return first + skip, count
        spare, spare_stop = self.spare(pairs)
        without = stop <= first
        return torch.where(without, spare, first + skip), torch.where(without, spare_stop - spare, count)


def _draw(seed: int, anchor: Tensor, positive: Tensor) -> Tensor:
    """Hash (seed, anchor, positive) to [0, 2^32) by splitmix64, so that a draw depends on nothing else."""
    x = anchor * 0x2545F4914F6CDD1D + positive + (seed * 0x9E3779B97F4A7C15 & (2**62 - 1))
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        x = (x ^ ((x >> shift) & (2 ** (64 - shift) - 1))) * (factor - 2**64 if factor >= 2**63 else factor)
    return (x >> 32) & (2**32 - 1)


def _count(pairs: _Pairs, count: Tensor) -> list[float]:
    """Pairs, pairs with a semi-hard negative, pairs with a hard one, triplets, sum of d(a,p)."""
    semi_hard, hard = (pairs.above < pairs.beyond).sum(), (pairs.begin < pairs.above).sum()
    counted: list[float] = torch.stack([semi_hard, hard, count.sum(), pairs.sum_positive]).tolist()
    return [len(count), *counted]


def _emit_all(pairs: _Pairs, first: Tensor, count: Tensor, total: int) -> Rows:
    """Write out all `total` triplets of a block."""
    taken = nonzero(count > 0)  # (P',) pairs that take any
    first, count = pick(first, taken), pick(count, taken)
    if total > len(taken):
        pair = torch.repeat_interleave(count, output_size=total)  # (T,)
        place = torch.arange(total, device=count.device) - (count.cumsum(0) - count)[pair]
        taken, first = taken[pair], first[pair] + place
    return pick(pairs.anchor, taken), pick(pairs.positive, taken), pick(pairs.keys, first)


def _emit(pairs: _Pairs, first: Tensor, count: Tensor, ranks: Tensor) -> Rows:
    """Write out the triplets with the given `ranks` (T,), sorted, among those of a block."""
    upto = count.cumsum(0)
    pair = torch.searchsorted(upto, ranks, right=True)
    return pairs.anchor[pair], pairs.positive[pair], pairs.keys[first[pair] + ranks - (upto - count)[pair]]


def _join(found: list[Rows], batch: _Batch) -> Rows:
    """Put the blocks together in the order of (anchor, positive, d(a,n), n)."""
    B = len(batch.order)
    empty = (batch.order[:0],) * 3
    anchor, positive, key = (torch.cat(parts) for parts in zip(empty, *found, strict=True))
    order = argsort_stable(anchor * B + positive, B * B)
    return pick(anchor, order), pick(positive, order), pick(key, order) & (2 ** _bits(B) - 1)


def _statistics(tally: list[float], batch: _Batch, rows: Tensor) -> MiningStats:
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
