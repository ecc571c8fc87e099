"""What a mini-batch is asked: the triplet loss on the triplets mined in it, and a classification head, over all ranks.

Every rank holds some rows of the mini-batch and returns its part of the loss; the parts add up to that of the whole.

Letters: b rows of this rank, B rows of all ranks, D width, T triplets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from facenet.large_batch.chunks import add_up, anchor_share, gather, world
from facenet.losses.harmonic import SLOTS, keep, own_distance, pool
from facenet.losses.triplet import triplet_loss
from facenet.mining.online import merge, mine, thin
from facenet.types import MiningStats


def triplet_objective(
    embeddings: Tensor,
    labels: Tensor,
    *,
    margin: float,
    reduction: str = "mean",
    seed: int = 0,
    max_triplets: int = 2_000_000,
    old: Tensor | None = None,
    slots: Sequence[str] = SLOTS,
    own_positive: bool = True,
    **mining: Any,
) -> tuple[Tensor, MiningStats]:
    """Mine the embeddings of all ranks; return this rank's part of the triplet loss, and the statistics of the whole.

    `embeddings` (b, D) and `labels` (b,) are this rank's rows. Each rank mines for its share of the anchors alone,
    against all B rows; the gradient of the added parts with respect to `embeddings` is that of one process on the
    whole batch. `max_triplets` holds for all ranks together: where they find more, each keeps an equal share of its
    own (another sample than one process draws). Other options and errors: as for :func:`facenet.mining.mine`; RankLost.

    With the `old` embeddings (b, D) of the same images both are mined as one pool of 2 B rows, and the triplets of
    `slots` are kept, see :mod:`facenet.losses.harmonic`; the statistics are those of the pool.
    """
    every, names = gather(embeddings), gather(labels)  # (B, D), (B,)
    pooled = None if old is None else pool(every, names, gather(old))
    if pooled is not None:
        every, names = pooled.embeddings, pooled.labels
    share, (_, size) = anchor_share(len(every), every.device), world()
    triplets = mine(every, names, margin=margin, seed=seed, anchors=share, max_triplets=max_triplets, **mining)
    if pooled is not None:
        triplets = keep(triplets, pooled, slots=slots, own_positive=own_positive)
    if size == 1:
        return triplet_loss(every, triplets, margin=margin, reduction=reduction), triplets.stats
    stats = _merged(triplets.stats, every.device)
    if stats.triplets > max_triplets:
        triplets = thin(triplets, max_triplets * triplets.stats.triplets // stats.triplets, seed)
    part = triplet_loss(every, triplets, margin=margin, reduction="sum")
    if reduction == "mean":
        count = add_up(torch.tensor(len(triplets.anchor), device=every.device))
        part = part / count.clamp(min=1)
    return part, stats


def _merged(own: MiningStats, device: torch.device) -> MiningStats:
    """Add up the statistics of all ranks."""
    rows = gather(torch.tensor([own], dtype=torch.float64, device=device)).tolist()
    return merge([MiningStats._make(type(x)(y) for x, y in zip(own, row, strict=True)) for row in rows])


def own_objective(embeddings: Tensor, old: Tensor) -> Tensor:
    """Return this rank's part of the mean squared distance between new and old embeddings (b, D) of all ranks."""
    total, count = own_distance(embeddings, old)
    return total / add_up(torch.tensor(count, device=embeddings.device)).clamp(min=1)


def head_objective(head: nn.Module, embeddings: Tensor, labels: Tensor) -> Tensor:
    """Return this rank's part of a classification head's mean loss over the rows (b, D), (b,) of all ranks.

    Rows with label -1 are ignored, as by the heads.
    """
    own = (labels != -1).sum()
    count = add_up(own.clone()).clamp(min=1)
    loss: Tensor = head(embeddings, labels)
    return loss * own / count
