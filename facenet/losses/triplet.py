"""The triplet loss on (embeddings, Triplets).

Letters: B batch, D width, T triplets.
Source: Schroff et al. 2015, equation 3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from facenet.errors import choose
from facenet.mining.sorting import argsort_stable, pick, search, sort_keys
from facenet.types import Triplets

# From the sum over T triplets and T.
REDUCTIONS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "mean": lambda total, count: total / count,
    "sum": lambda total, count: total,
}


def triplet_loss(embeddings: Tensor, triplets: Triplets, *, margin: float, reduction: str = "mean") -> Tensor:
    """Mean or sum over triplets of max(0, d(a,p) - d(a,n) + margin), d(x, y) = ||x - y||^2.

    `embeddings` are (B, D), `triplets` row numbers (T,) of them, `margin` is in squared L2. The result is a scalar,
    float64 for float64 embeddings and float32 otherwise. T = 0 gives 0 with a graph and a zero gradient. If what
    max takes is 0, so is the gradient. The gradient is a sparse (B, B) weight matrix times the embeddings: memory is
    O(T + B D), without a (T, D) gather.

    Source: Schroff et al. 2015, equation 3 (a sum there).

    Raises:
        ConfigError: an unknown reduction.
    """
    reduce = choose(REDUCTIONS, reduction, "reduction")
    rows = (triplets.anchor, triplets.positive, triplets.negative)
    with torch.autocast(embeddings.device.type, enabled=False):
        if embeddings.dtype != torch.float64:
            embeddings = embeddings.float()
        if len(rows[0]) == 0:
            return embeddings.sum() * 0.0
        loss: Tensor = _TripletLoss.apply(embeddings, *rows, float(margin))
    return reduce(loss, len(rows[0]))


class _TripletLoss(torch.autograd.Function):
    """Sum over triplets; with w = 1 where the loss is positive its gradient is 2 W E, W sparse.

    d/da = 2 (n - p), d/dp = 2 (p - a), d/dn = 2 (a - n).
    """

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, anchor: Tensor, positive: Tensor, negative: Tensor, margin: float) -> Tensor:
        norms = vectors.square().sum(1)
        others = torch.stack([positive, negative], 1)  # (T, 2)
        to_positive, to_negative = (
            _row_dots(vectors, anchor.repeat_interleave(2), others.view(-1)).view(-1, 2).unbind(1)
        )
        excess = pick(norms, positive) - pick(norms, negative) - 2 * (to_positive - to_negative) + margin
        active = excess > 0
        ctx.save_for_backward(vectors, anchor[active], positive[active], negative[active])
        return excess[active].sum()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None]:
        vectors, anchor, positive, negative = ctx.saved_tensors
        grad = _sparse_times(*_entries(anchor, positive, negative, len(vectors)), vectors)
        own = torch.bincount(positive, minlength=len(vectors)) - torch.bincount(negative, minlength=len(vectors))
        return (grad + own[:, None] * vectors) * (2 * grads[0]), None, None, None, None


def _entries(anchor: Tensor, positive: Tensor, negative: Tensor, B: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the entries of W besides its diagonal: where each row begins (B + 1,), columns and signs (4 T,).

    W has +1 at (a, n) and (n, a), -1 at (a, p) and (p, a). Each entry is one integer (row, column, sign): one sort, and
    the sum does not depend on the order of the triplets.
    """
    plus, minus = anchor * B, positive * B
    near, far = torch.cat([plus + negative, negative * B + anchor]), torch.cat([plus + positive, minus + anchor])
    keys = sort_keys(torch.cat([near * 2 + 1, far * 2]))
    begin = search(keys, torch.arange(B + 1, device=keys.device) * (2 * B))
    return begin, (keys >> 1).remainder_(B), (keys & 1) * 2 - 1


def _sparse_times(begin: Tensor, columns: Tensor, values: Tensor, vectors: Tensor) -> Tensor:
    """A sparse matrix times `vectors`: row r has `values` at `columns`, both from begin[r] to begin[r + 1]."""
    values = values.to(vectors.dtype)
    return F.embedding_bag(columns, vectors, begin, mode="sum", per_sample_weights=values, include_last_offset=True)


def _begin(rows: Tensor, count: int) -> Tensor:
    """Where each row begins among entries sorted by row, (count + 1,)."""
    return F.pad(torch.bincount(rows, minlength=count).cumsum(0), (1, 0))


def _row_dots(vectors: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The dot products v[rows].v[columns] without gathering (T, D): a sparse product's gradient by its entries."""
    if not bool((rows[1:] >= rows[:-1]).all()):  # what was mined is sorted by anchor
        order = argsort_stable(rows, len(vectors))
        dots = vectors.new_empty(len(rows))
        dots[order] = _row_dots(vectors, rows[order], columns[order])
        return dots
    with torch.inference_mode(False), torch.enable_grad():
        rows, columns, vectors = (x.clone() if x.is_inference() else x for x in (rows, columns, vectors))
        values = vectors.new_zeros(len(rows)).requires_grad_()
        product = _sparse_times(_begin(rows, len(vectors)), columns, values, vectors)
        return torch.autograd.grad(product, values, vectors)[0]
