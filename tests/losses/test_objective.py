"""The objectives of one process; tests/large_batch holds two ranks against it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from facenet.errors import ConfigError
from facenet.losses.heads import CosFace
from facenet.losses.objective import MinedObjective, head_objective, trained_part, triplet_objective
from facenet.losses.triplet import triplet_loss
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


OPTIONS: dict[str, Any] = {
    "margin": 0.2,
    "mining": {"miner": "all_valid", "select": "all"},
    "head": {"name": "cosface", "scale": 16.0, "margin": None},
    "head_weight": 0.25,
    "num_classes": 6,
    "embedding_dim": 6,
    "total_steps": 10,
}


def test_each_name_weighs_its_parts_by_the_step() -> None:
    steps = (0, 4, 5, 9)
    expected = {
        "triplet": [(0.0, 1.0)] * 4,
        "softmax": [(1.0, 0.0)] * 4,
        "softmax_then_triplet": [(1.0, 0.0), (1.0, 0.0), (0.25, 1.0), (0.25, 1.0)],
        "joint": [(0.25, 1.0)] * 4,
    }
    for name, weights in expected.items():
        assert [MinedObjective(name, **OPTIONS).weights(step) for step in steps] == weights
    with pytest.raises(ConfigError, match=r"loss.head_weight: loss.name=joint needs a weight above 0"):
        MinedObjective("joint", **{**OPTIONS, "head_weight": 0.0})


def test_the_loss_is_the_weighed_sum_and_the_shares_are_of_pairs() -> None:
    embeddings, labels = batch()
    torch.manual_seed(0)
    objective = MinedObjective("softmax_then_triplet", **OPTIONS)
    assert trained_part(objective) is objective.head
    assert objective.head is not None
    alone = head_objective(objective.head, embeddings, labels).item()
    mined, stats = triplet_objective(embeddings, labels, margin=0.2, **OPTIONS["mining"])
    first, shares = objective(embeddings, labels, 0, None)
    assert first.item() == pytest.approx(alone, rel=1e-6)
    assert objective(embeddings, labels, 5, None)[0].item() == pytest.approx(mined.item() + 0.25 * alone, rel=1e-6)
    assert list(shares) == ["active", "hard", "dist/positive", "dist/negative", "triplets"]
    assert shares["active"] == stats.semi_hard_pairs / (24 * 3) > 0
    assert shares["triplets"] == stats.triplets > 0
    assert trained_part(MinedObjective("triplet", **OPTIONS)) is None


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_virtual_people_meet_those_of_their_region_alone(reduction: str) -> None:
    """Labels from 6 on are composites: 6 + region + 3 times a number of its own."""
    embeddings, labels = batch()
    generator = torch.Generator().manual_seed(1)
    made = F.normalize(torch.randn(24, 6, generator=generator), dim=1).requires_grad_()
    people = torch.arange(24) // 2  # (region, number): two faces each
    virtual = 6 + people // 4 + 3 * (people % 4)
    torch.manual_seed(0)
    objective = MinedObjective("joint", **OPTIONS, reduction=reduction)
    plain, expected = objective(embeddings, labels, 0, None)
    loss, stats = objective(torch.cat([embeddings, made]), torch.cat([labels, virtual]), 0, None)
    parts = [
        triplet_objective(made[rows], virtual[rows], margin=0.2, reduction=reduction, **OPTIONS["mining"])[0]
        for rows in (slice(0, 8), slice(8, 16), slice(16, 24))
    ]
    assert all(part > 0 for part in parts)
    weight = 8 / 24 if reduction == "mean" else 1  # a sum grows with the number of triplets already
    assert loss.item() == pytest.approx(plain.item() + sum(part.item() for part in parts) * weight, rel=1e-6)
    assert stats == expected, "what is logged is of the real faces"
    grads = torch.autograd.grad(loss, (embeddings, made))
    assert torch.allclose(grads[0], torch.autograd.grad(plain, embeddings)[0])
    assert (grads[1] != 0).any()


def test_old_embeddings_enter_by_the_method() -> None:
    embeddings, labels = batch()
    old = F.normalize(embeddings.detach() + 0.3 * embeddings.detach().roll(1, 1), dim=1)
    harmonic = {"slots": ["nno", "onn"], "own_positive": False, "embedding_share": 0.0, "weight": 3.0}
    found = {}
    for method in ("none", "l2", "harmonic", "harmonic_l2"):
        objective = MinedObjective("triplet", **OPTIONS, harmonic={**harmonic, "method": method})
        found[method] = objective(embeddings, labels, 0, old)[0].item()
    own = 3 * float((embeddings.detach() - old).square().sum(1).mean())
    pooled, _ = triplet_objective(
        embeddings, labels, margin=0.2, old=old, slots=["nno", "onn"], own_positive=False, **OPTIONS["mining"]
    )
    assert own > 0.1
    assert found["harmonic"] == pytest.approx(pooled.item(), rel=1e-6)
    assert found["harmonic"] != pytest.approx(found["none"], rel=1e-3)
    assert found["l2"] == pytest.approx(found["none"] + own, rel=1e-6)
    assert found["harmonic_l2"] == pytest.approx(found["harmonic"] + own, rel=1e-6)


def test_wrong_options_are_named() -> None:
    for change, message in (
        ({"margin": 0.0}, r"loss\.margin"),
        ({"head": None}, r"loss\.head: expected a head, got none"),
        ({"head": {"name": "arc"}}, r"loss\.head\.name: unknown name 'arc'"),
        ({"head": {"name": "softmax", "scale": 2.0}}, r"loss\.head\.scale: the head 'softmax' has no such option"),
        ({"harmonic": {"method": "l1"}}, r"harmonic\.method"),
    ):
        with pytest.raises(ConfigError, match=message):
            MinedObjective("softmax", **{**OPTIONS, **change})
