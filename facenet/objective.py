"""What a mini-batch is asked: the triplet loss on the triplets mined in it, and a classification head, over all ranks.

Every rank holds some rows of the mini-batch and returns its part of the loss; the parts add up to that of the whole.

Letters: b rows of this rank, B rows of all ranks, D width, T triplets.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from facenet.large_batch import add_up, anchor_share, gather, world
from facenet.losses import triplet_loss
from facenet.mining import merge, mine
from facenet.types import MiningStats


def triplet_objective(
    embeddings: Tensor,
    labels: Tensor,
    *,
    margin: float,
    reduction: str = "mean",
    seed: int = 0,
    max_triplets: int = 2_000_000,
    **mining: Any,
) -> tuple[Tensor, MiningStats]:
    """Mine the embeddings of all ranks; return this rank's part of the triplet loss, and the statistics of the whole.

    `embeddings` (b, D) and `labels` (b,) are this rank's rows. Each rank mines for its share of the anchors alone,
    against all B rows; the gradient of the added parts with respect to `embeddings` is that of one process on the
    whole batch. `max_triplets` holds for all ranks together: each keeps at most its share of it. Other options and
    errors: as for :func:`facenet.mining.mine`; RankLost.
    """
    every, names = gather(embeddings), gather(labels)  # (B, D), (B,)
    share, (_, size) = anchor_share(len(every), every.device), world()
    triplets = mine(
        every, names, margin=margin, seed=seed, anchors=share, max_triplets=max(1, max_triplets // size), **mining
    )
    if size == 1:
        return triplet_loss(every, triplets, margin=margin, reduction=reduction), triplets.stats
    part = triplet_loss(every, triplets, margin=margin, reduction="sum")
    if reduction == "mean":
        count = add_up(torch.tensor(float(len(triplets.anchor)), device=every.device))
        part = part / count.clamp(min=1)
    rows = gather(torch.tensor([triplets.stats], dtype=torch.float64, device=every.device)).tolist()
    kinds = [type(value) for value in triplets.stats]
    return part, merge([MiningStats._make(kind(x) for kind, x in zip(kinds, row, strict=True)) for row in rows])


def head_objective(head: nn.Module, embeddings: Tensor, labels: Tensor) -> Tensor:
    """Return this rank's part of a classification head's mean loss over the rows (b, D), (b,) of all ranks."""
    count = add_up(torch.tensor(float(len(labels)), device=embeddings.device))
    loss: Tensor = head(embeddings, labels)
    return loss * (len(labels) / count)
