"""The objective of one process; tests/test_large_batch.py holds two ranks against it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from facenet.errors import ConfigError
from facenet.losses.objective import head_objective, triplet_objective
from facenet.losses.triplet import CosFace, triplet_loss
from facenet.mining.online import mine


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return F.normalize(torch.randn(24, 6, generator=generator), dim=1).requires_grad_(), torch.arange(24) % 6


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_it_is_the_triplet_loss_of_what_is_mined(reduction: str) -> None:
    embeddings, labels = batch()
    options = {"miner": "all_valid", "select": "all"}
    loss, stats = triplet_objective(embeddings, labels, margin=0.2, reduction=reduction, **options)
    triplets = mine(embeddings, labels, margin=0.2, **options)  # type: ignore[arg-type]
    expected = triplet_loss(embeddings, triplets, margin=0.2, reduction=reduction)
    assert loss.item() == expected.item() > 0
    assert stats == triplets.stats
    assert torch.equal(torch.autograd.grad(loss, embeddings)[0], torch.autograd.grad(expected, embeddings)[0])


def test_options_reach_the_mining() -> None:
    embeddings, labels = batch()
    capped, stats = triplet_objective(embeddings, labels, margin=0.2, reduction="sum", miner="random", max_triplets=5)
    whole, _ = triplet_objective(embeddings, labels, margin=0.2, reduction="sum", miner="random")
    assert 0 < capped < whole
    assert stats.triplets == 24 * 3
    with pytest.raises(ConfigError, match="miner"):
        triplet_objective(embeddings, labels, margin=0.2, miner="semihard")


def test_the_head_alone_is_its_own_mean() -> None:
    embeddings, labels = batch()
    head = CosFace(6, 6)
    assert head_objective(head, embeddings, labels).item() == pytest.approx(head(embeddings, labels).item())
