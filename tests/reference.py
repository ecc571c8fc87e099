"""Slow twins: the same definitions as plain loops, to hold the fast paths against."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch


class MinedPair(NamedTuple):
    """What the triple loop found for one anchor-positive pair."""

    anchor: int
    positive: int
    candidates: list[int]  # negatives the miner admits, nearest first, equals by row number
    spare: list[int]  # the fallback, used when there are no candidates


def sq_dist_float32(embeddings: torch.Tensor) -> np.ndarray:
    """d = max(0, 2 - 2 x.y) as float32, (B, B)."""
    vectors = embeddings.detach().float().numpy()
    return np.maximum(np.float32(2) - np.float32(2) * (vectors @ vectors.T), np.float32(0))


def mine_loops(
    embeddings: torch.Tensor,
    labels: torch.Tensor,
    *,
    margin: float,
    miner: str = "semi_hard",
    fallback: str = "none",
    anchors: list[int] | None = None,
) -> tuple[list[MinedPair], dict[str, float]]:
    """Enumerate every (a, p, n); returns the pairs with their candidates, and the statistics."""
    matrix, names = sq_dist_float32(embeddings), labels.tolist()
    sq_dist = matrix.tolist()  # exact as Python floats
    limits = (matrix + np.float32(margin)).tolist()
    rows = range(len(names))
    pairs: list[MinedPair] = []
    semi_hard = hard = 0
    positives: list[float] = []
    negatives: list[float] = []
    for a in rows if anchors is None else anchors:
        others = [n for n in rows if names[n] != names[a]]
        others.sort(key=lambda n, a=a: (sq_dist[a][n], n))
        mates = [p for p in rows if p != a and names[p] == names[a]]
        if mates:
            negatives.extend(sq_dist[a][n] for n in others)
        for p in mates:
            low, high = sq_dist[a][p], limits[a][p]
            admitted = {
                "semi_hard": [n for n in others if low < sq_dist[a][n] < high],
                "hard": [n for n in others if sq_dist[a][n] <= low],
                "all_valid": [n for n in others if sq_dist[a][n] < high],
                "random": others,
            }
            spare = {
                "none": [],
                "nearest_beyond": [n for n in others if sq_dist[a][n] >= high][:1],
                "hardest": others[:1],
            }
            pairs.append(MinedPair(a, p, admitted[miner], spare[fallback]))
            positives.append(low)
            semi_hard += bool(admitted["semi_hard"])
            hard += bool(admitted["hard"])
    stats = {
        "pairs": len(pairs),
        "semi_hard_pairs": semi_hard,
        "hard_pairs": hard,
        "mean_positive": float(np.mean(positives)) if positives else 0.0,
        "mean_negative": float(np.mean(negatives)) if negatives else 0.0,
        "negatives": len(negatives),
    }
    return pairs, stats


def triplet_loss_naive(
    embeddings: torch.Tensor, anchor: list[int], positive: list[int], negative: list[int], margin: float
) -> torch.Tensor:
    """Sum over triplets of max(0, ||a - p||^2 - ||a - n||^2 + margin), one triplet at a time."""
    total = embeddings.sum() * 0
    for a, p, n in zip(anchor, positive, negative, strict=True):
        to_positive = ((embeddings[a] - embeddings[p]) ** 2).sum()
        to_negative = ((embeddings[a] - embeddings[n]) ** 2).sum()
        total = total + torch.relu(to_positive - to_negative + margin)
    return total


def softmax_cross_entropy_loops(logits: torch.Tensor, labels: torch.Tensor, smoothing: float) -> float:
    """Mean over rows with a label >= 0 of the cross entropy against the smoothed target."""
    losses = []
    for row, label in zip(logits.double().tolist(), labels.tolist(), strict=True):
        if label < 0:
            continue
        log_sum = float(np.log(np.sum(np.exp(np.array(row) - max(row))))) + max(row)
        target = [smoothing / len(row) + (1 - smoothing) * (c == label) for c in range(len(row))]
        losses.append(sum(t * (log_sum - value) for t, value in zip(target, row, strict=True)))
    return float(np.mean(losses)) if losses else 0.0


def kernel_attention(weights: torch.Tensor, v: torch.Tensor, *, causal: bool) -> torch.Tensor:
    """Attention with explicit weights (B, h, L, L') on v (B, h, L', M), a query at a time; nothing seen is 0."""
    out = torch.zeros(*weights.shape[:3], v.shape[-1], dtype=v.dtype)
    for i in range(weights.shape[2]):
        row = weights[:, :, i, : i + 1] if causal else weights[:, :, i]
        total = row.sum(-1, keepdim=True)  # (B, h, 1)
        shares = torch.where(total == 0, torch.zeros_like(row), row / total)
        out[:, :, i] = (shares[..., None] * v[:, :, : row.shape[-1]]).sum(2)
    return out


def chunked_backward(
    model: torch.nn.Module, images: torch.Tensor, loss: Callable[[torch.Tensor], torch.Tensor], parts: Sequence[slice]
) -> torch.Tensor:
    """Add the gradient of the loss over embeddings that are made chunk by chunk, all of them with their graph."""
    value = loss(torch.cat([model(images[part]) for part in parts]))
    value.backward()
    return value.detach()
