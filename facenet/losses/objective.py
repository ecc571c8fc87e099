"""The objectives of a mini-batch over all ranks: the triplet loss on mined triplets, and a classification head.

Every rank holds some rows of the mini-batch and returns its part of the loss. The parts add up to that of the whole. A
head with sampled classes is the exception: each rank draws its own.

Letters: b rows of this rank, B rows of all ranks, D width, T triplets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from facenet.data.virtual import REGIONS, group_of
from facenet.errors import ConfigError
from facenet.large_batch.ranks import add_up, anchor_share, gather, world
from facenet.losses.harmonic import METHODS, keep, own_distance, pool
from facenet.losses.heads import build_head
from facenet.losses.options import SLOTS, HarmonicOptions
from facenet.losses.registry import Objective
from facenet.losses.triplet import triplet_loss
from facenet.mining.online import merge, mine, thin
from facenet.options import build
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


class MinedObjective:
    """The triplet loss on mined triplets, a classification head's loss, and the distance to old embeddings.

    loss = w_t triplets + weight own + w_h head. For the first `head_steps` steps (w_h, w_t) is (1, 0), then
    (head_weight, 1). Own is the mean squared distance to the image's own old embedding, for the methods that ask for
    it. Triplets are mined at every step, since their statistics are logged.

    Args:
        name: "triplet" (no head), "softmax" (the head alone), "softmax_then_triplet" and "arcface_then_triplet" (the
            head for `head_share` of the steps) or "joint" (both from the first step on).
        margin: In squared L2, in (0, 4].
        reduction: As for :func:`~facenet.losses.triplet.triplet_loss`.
        mining: Options of :func:`facenet.mining.online.mine`, less margin and seed.
        seed: Seed of random mining; the step is added.
        head: ``name`` and options of the head.
        head_share: Share of `total_steps`.
        head_weight: w_h beside triplets; 0 drops the head.
        harmonic: Values of :class:`.options.HarmonicOptions`; None without an old encoder.
        num_classes: Training identities, for the head.
        embedding_dim: D.
        total_steps: Length of the run.

    Raises:
        ConfigError: an unknown name, or a number out of range.
    """

    def __init__(
        self,
        name: str,
        *,
        margin: float,
        mining: Mapping[str, Any],
        num_classes: int,
        embedding_dim: int,
        total_steps: int,
        reduction: str = "mean",
        seed: int = 0,
        head: Mapping[str, Any] | None = None,
        head_share: float = 0.5,
        head_weight: float = 0.0,
        harmonic: Mapping[str, Any] | None = None,
    ) -> None:
        if not 0 < margin <= 4:
            raise ConfigError(f"loss.margin: expected a squared distance in (0, 4], got {margin}")
        options = build(HarmonicOptions, harmonic or {"method": "none"}, "harmonic.")
        self.seed, self.method, self.own_weight = seed, METHODS[options.method], options.weight
        self.options = {"margin": margin, "reduction": reduction, **mining}
        if self.method.pool:
            self.options |= {"slots": options.slots, "own_positive": options.own_positive}
        self.head = None if name == "triplet" else build_head(head, num_classes, embedding_dim)
        self.num_classes = num_classes
        self.head_weight = 0.0 if name == "triplet" else head_weight
        self.head_steps = {"triplet": 0.0, "softmax": math.inf, "joint": 0.0}.get(name, head_share * total_steps)
        if name == "joint" and not head_weight:
            raise ConfigError("loss.head_weight: loss.name=joint needs a weight above 0; without one use loss=triplet")

    def weights(self, step: int) -> tuple[float, float]:
        """Return the weights (w_h, w_t) of the head's loss and of the triplet loss at a step."""
        return (self.head_weight, 1.0) if step >= self.head_steps else (1.0, 0.0)

    def __call__(
        self, embeddings: Tensor, labels: Tensor, step: int, old: Tensor | None
    ) -> tuple[Tensor, dict[str, float]]:
        """Return this rank's part of the loss of a batch, and the statistics of the mining.

        Rows of virtual people (labels of `num_classes` and above, see :mod:`facenet.data.virtual`) stand behind the
        others. The triplets of each region weigh as much as an equal share of the real ones would.
        """
        head_weight, triplet_weight = self.weights(step)
        pooled = old if self.method.pool else None
        real = int((labels < self.num_classes).sum())
        composites, embeddings = (embeddings[real:], labels[real:]), embeddings[:real]
        labels = labels[:real]
        loss, stats = triplet_objective(embeddings, labels, seed=self.seed + step, old=pooled, **self.options)
        total = triplet_weight * loss
        if len(composites[0]):
            total = total + triplet_weight * self._virtual(*composites, step, real)
        if self.method.own and old is not None:
            total = total + self.own_weight * own_objective(embeddings, old)
        if self.head is not None and head_weight:
            total = total + head_weight * head_objective(self.head, embeddings, labels)
        return total, shares(stats)

    def _virtual(self, embeddings: Tensor, labels: Tensor, step: int, real: int) -> Tensor:
        """Return this rank's part of the loss of composites, of each region apart.

        A region's mean counts by its number of composites over the real faces; a sum has grown with it already.
        """
        groups, total = group_of(labels, self.num_classes), embeddings.new_zeros(())
        for group in range(1, 1 + len(REGIONS)):
            own = groups == group
            loss, _ = triplet_objective(embeddings[own], labels[own], seed=self.seed + step, **self.options)
            total = total + (loss * own.sum() / real if self.options["reduction"] == "mean" else loss)
        return total


def shares(stats: MiningStats) -> dict[str, float]:
    """Return what is logged of the mining: shares of pairs with a semi-hard and a hard negative, means, triplets."""
    pairs = max(1, stats.pairs)
    return {
        "active": stats.semi_hard_pairs / pairs,
        "hard": stats.hard_pairs / pairs,
        "dist/positive": stats.mean_positive,
        "dist/negative": stats.mean_negative,
        "triplets": float(stats.triplets),
    }


def trained_part(objective: Objective) -> nn.Module | None:
    """Return what an optimiser trains of an objective: itself if it is a module, else its `head` if it has one."""
    part = objective if isinstance(objective, nn.Module) else getattr(objective, "head", None)
    return part if isinstance(part, nn.Module) else None
