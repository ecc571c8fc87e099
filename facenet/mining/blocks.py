"""The packed search: blocks of anchors, each with its candidate negatives in one sorted array of integers.

With the rows sorted by label, the positives of a row are a run of columns. Of its negatives only those nearer than its
farthest positive plus the margin can matter (or farther, if the rule says so). A threshold on the dot products finds
them, and each becomes one integer (row, bits of sq_dist, row number). After one sort of those integers every question
is an interval between two binary searches.

Letters: B batch, D width, R rows of a block, K columns of the largest identity, P anchor-positive pairs of a block,
C candidates.
"""

from __future__ import annotations

import functools
import math
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from facenet.errors import ConfigError
from facenet.mining.rules import Bound, Rule, just_above
from facenet.mining.sorting import exceeds, nonzero, pick, search, sort_keys

Found = TypeVar("Found")
THREADS = 8  # at most: each has its buffers, and memory is what they wait for


class Batch(NamedTuple):
    """The batch with its rows sorted by label."""

    vectors: Tensor  # (B, D) float32
    order: Tensor  # (B,) original row numbers
    start: Tensor  # (B,) first row with the same label
    size: Tensor  # (B,) rows with the same label


def sort_by_label(embeddings: Tensor, labels: Tensor) -> Batch:
    """Sort embeddings (B, D) by their labels (B,)."""
    labels, order = labels.detach().to(embeddings.device).sort(stable=True)
    _, group, counts = torch.unique_consecutive(labels, return_inverse=True, return_counts=True)
    start = counts.cumsum(0) - counts
    return Batch(pick(embeddings.detach(), order).float(), order, pick(start, group), pick(counts, group))


class Pairs(NamedTuple):
    """The P pairs of a block, and the places of bounds among the sorted candidates of their anchor."""

    keys: Tensor  # (C,) int64, sorted: row in block, bits of sq_dist, original row number of the negative
    anchor: Tensor  # (P,) original row numbers
    positive: Tensor  # (P,)
    first: Tensor  # (P,) first valid negative
    stop: Tensor  # (P,) one past the last valid negative; at or before `first` if there is none
    spare: Tensor | None  # (P,) what the fallback gives a pair without a valid negative
    end: Tensor  # (P,) one past the anchor's last candidate
    semi_hard: Tensor  # () pairs with a negative with d(a,p) < d(a,n) < d(a,p) + margin
    hard: Tensor  # () pairs with a negative with d(a,n) <= d(a,p)
    sum_positive: Tensor  # () sum of d(a,p)


class Blocks:
    """Walks over the pairs of some anchors block by block, in order, several at a time if there are threads.

    Args:
        batch: The sorted batch.
        rows: The anchors, row numbers in the sorted batch; each has a positive.
        margin: In squared L2.
        rule: Which negatives are valid.
        fallback: The bound from which a pair without a valid negative gets the nearest one; None gives it nothing.
        block_rows: R; None is what a cache or a device holds.
    """

    def __init__(
        self,
        batch: Batch,
        rows: Tensor,
        margin: float,
        rule: Rule,
        fallback: Callable[[Tensor, float], Bound] | None,
        block_rows: int | None,
    ) -> None:
        self.batch, self.rows, self.margin, self.rule, self.fallback = batch, rows, margin, rule, fallback
        B = len(batch.order)
        self.bits = number_bits(B)
        entries, most = (2**21, 512) if batch.vectors.device.type == "cpu" else (2**26, 2**16)
        step = block_rows or min(most, max(32, entries // max(1, B)))
        self.step = min(step, 2 ** (32 - self.bits) - 1, max(1, len(rows)))
        self.buffers = threading.local()  # dots (R, B) and a mask of them, for each thread

    def map(self, work: Callable[[Pairs], Found]) -> Iterator[Found]:
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

    def _pairs(self, rows: Tensor) -> Pairs:
        batch, R = self.batch, len(rows)
        if not hasattr(self.buffers, "dots"):
            self.buffers.dots = batch.vectors.new_empty(self.step, len(batch.order))
            self.buffers.near = torch.empty_like(self.buffers.dots, dtype=torch.bool)
        dots = torch.mm(pick(batch.vectors, rows), batch.vectors.T, out=self.buffers.dots[:R])  # (R, B)
        pair_keys, farthest = self._take_positives(dots, rows)
        row, sq_pos, low_bits = pair_keys >> (31 + self.bits), self._key_sq_dist(pair_keys), 2**self.bits - 1
        beyond = sq_pos + self.margin
        low, high = (_checked(bound, sq_pos) for bound in self.rule(sq_pos, self.margin))
        limit = _reach(farthest + self.margin, row, beyond, high)
        keys = self._candidates(dots, limit)
        edges = search(keys, torch.arange(R + 1, device=rows.device) << (31 + self.bits))
        begin, end = pick(edges, row), pick(edges, row + 1)
        past_positive = search(keys, (pair_keys | low_bits).add_(1))
        past_margin = search(keys, self._key(row, beyond, 0))
        known = ((0.0, begin), (math.inf, end), (just_above(sq_pos), past_positive), (beyond, past_margin))

        def place(bound: Bound) -> Tensor:
            """Return the place (P,) of the first negative with d(a,n) >= bound; known ones are not searched again."""
            for value, found in known:
                if _same(bound, value):
                    return found
            return search(keys, self._key(row, torch.zeros_like(sq_pos) + bound, 0))

        return Pairs(
            keys,
            anchor=pick(pick(batch.order, rows), row),
            positive=pair_keys & low_bits,
            first=place(low),
            stop=place(high),
            spare=None if self.fallback is None else place(_checked(self.fallback(sq_pos, self.margin), sq_pos)),
            end=end,
            semi_hard=(past_positive < past_margin).sum(),
            hard=(begin < past_positive).sum(),
            sum_positive=sq_pos.sum(dtype=torch.float64),
        )

    def _take_positives(self, dots: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sorted keys (P,) of all pairs and each row's largest d(a,p) (R,); cross its own out of `dots`."""
        batch = self.batch
        start, size = batch.start[rows, None], batch.size[rows, None]
        column = torch.arange(int(size.max()), device=rows.device) + start  # (R, K)
        own = torch.where(column < start + size, column, rows[:, None])  # (R, K), padded with the row itself
        sq_pos, is_pair = _sq_dist(dots.gather(1, own)), own != rows[:, None]
        dots.scatter_(1, own, -math.inf)
        place = nonzero(is_pair)  # (P,)
        numbers = pick(batch.order, pick(own.view(-1), place))
        keys = self._key(place // own.shape[1], pick(sq_pos.view(-1), place), numbers)
        return sort_keys(keys), sq_pos.mul_(is_pair).amax(1)

    def _candidates(self, dots: Tensor, limit: Tensor) -> Tensor:
        """Return the sorted keys (C,) of all negatives with sq_dist < `limit` (R,), and some beyond."""
        R, B = dots.shape
        slack = 1e-6 * (1 + limit)  # more than the rounding of 2 - 2 x.y
        bound = 1 - limit / 2 - slack
        if self.fallback is not None:  # as far as the first negative that lies beyond the limit
            farther = dots.masked_fill(dots > bound[:, None], -math.inf).amax(1)
            bound = torch.minimum(bound, farther.clamp(min=-1e30) - slack)
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


def _checked(bound: Bound, sq_pos: Tensor) -> Bound:
    """Return a bound of a rule as a number, or float32 (P,), at least 0."""
    if not isinstance(bound, Tensor):
        if math.isnan(bound):
            raise ConfigError("miner: the rule returned NaN as a bound; expected numbers")
        return max(0.0, float(bound))
    if bound.shape != sq_pos.shape or bool(bound.isnan().any()):
        raise ConfigError(
            f"miner: the rule returned a bound {tuple(bound.shape)}; expected {tuple(sq_pos.shape)} without NaN"
        )
    return bound.to(torch.float32).clamp(min=0.0)


def _same(bound: Bound, other: Bound) -> bool:
    if isinstance(bound, Tensor) and isinstance(other, Tensor):
        return torch.equal(bound, other)
    return not isinstance(bound, Tensor) and not isinstance(other, Tensor) and bound == other


def _reach(limit: Tensor, row: Tensor, beyond: Tensor, high: Bound) -> Tensor:
    """Return the distance (R,) up to which negatives are candidates: `limit`, or what the rule asks beyond it."""
    if not isinstance(high, Tensor):
        return limit.clamp(min=high)
    return limit.scatter_reduce(0, row, high, "amax") if bool((high > beyond).any()) else limit


def _sq_dist(dots: Tensor) -> Tensor:
    return (dots * -2).add_(2).clamp_(min=0)


def number_bits(B: int) -> int:
    """Return how many bits a row number takes, the low end of a key."""
    return max(1, (B - 1).bit_length())


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
