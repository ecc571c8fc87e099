"""Old and new embeddings in one pool: against a plain enumeration over versions and rows."""

from __future__ import annotations

import copy
import functools
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facenet.errors import ConfigError
from facenet.losses.harmonic import freeze_norms, keep, own_distance, pool, reset_embedding_layer, stage
from facenet.losses.objective import own_objective, triplet_objective
from facenet.losses.options import SLOTS, HarmonicOptions
from facenet.losses.triplet import triplet_loss
from facenet.mining.online import mine
from facenet.models.build import build_model
from facenet.options import build

MARGIN = 0.2


def batch(seed: int = 0, rows: int = 18) -> tuple[Tensor, Tensor, Tensor]:
    """New embeddings (B, D), labels with one identity seen once, old embeddings of the same images."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(rows) // 4
    centres = torch.randn(int(labels.max()) + 1, 5, generator=rng)
    new, old = (
        F.normalize(centres[labels] + 0.7 * torch.randn(rows, 5, generator=rng), dim=1).double() for _ in range(2)
    )
    return new.requires_grad_(), labels, old


@functools.cache
def enumerated(seed: int) -> set[tuple[Any, ...]]:
    """Loop over (version, row) of anchor and positive; the nearest semi-hard negative of all versions and rows."""
    new, labels, old = partly_read(seed)
    faces = {("n", i): new[i].detach().float() for i in range(len(new))}
    faces |= {("o", i): old[i].float() for i in range(len(old)) if torch.isfinite(old[i]).all()}
    found = set()
    for a, x in faces.items():
        negatives = {n: max(0.0, float(2 - 2 * x @ z)) for n, z in faces.items() if labels[n[1]] != labels[a[1]]}
        for p, y in faces.items():
            if a == p or labels[a[1]] != labels[p[1]]:
                continue
            positive = max(0.0, float(2 - 2 * x @ y))
            semi_hard = {n: d for n, d in negatives.items() if positive < d < positive + MARGIN}
            if semi_hard:
                found.add((a, p, min(semi_hard, key=lambda n: semi_hard[n])))
    return found


def partly_read(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """A batch with an image that the old net could not read."""
    new, labels, old = batch(seed)
    old[5] = torch.nan
    return new, labels, old


@pytest.mark.parametrize("slots", [SLOTS, ("nnn",), ("noo", "oon"), ("non",)])
@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_triplets_are_those_of_an_enumeration(slots: tuple[str, ...], own: bool, seed: int) -> None:
    new, labels, old = partly_read(seed)
    pooled = pool(new.float(), labels, old.float())
    mined = mine(pooled.embeddings, pooled.labels, margin=MARGIN)
    kept = keep(mined, pooled, slots=slots, own_positive=own)
    name = [("n" if row < len(new) else "o", int(pooled.image[row])) for row in range(len(pooled.labels))]
    found = {tuple(name[int(row)] for row in triplet) for triplet in zip(*kept[:3], strict=True)}
    expected = {(a, p, n) for a, p, n in enumerated(seed) if a[0] + p[0] + n[0] in slots and (own or a[1] != p[1])}
    assert found == expected
    assert len(kept.anchor) == len(expected) == kept.stats.triplets > 3
    assert ("o", 5) not in name


def test_the_pool_joins_versions_and_no_gradient_reaches_the_old_ones() -> None:
    new, labels, old = batch()
    old.requires_grad_()
    before = old.detach().clone()
    loss, stats = triplet_objective(new, labels, margin=MARGIN, old=old)
    loss.backward()
    assert loss.item() > 0
    assert old.grad is None
    assert torch.equal(old, before)
    assert new.grad is not None
    assert (new.grad.abs().sum(1) > 0).sum() > 10
    pooled = pool(new, labels, old)
    triplets = keep(mine(pooled.embeddings, pooled.labels, margin=MARGIN), pooled)
    direct = triplet_loss(torch.cat([new, before]), triplets, margin=MARGIN)
    assert loss.item() == pytest.approx(direct.item())
    assert torch.allclose(new.grad, torch.autograd.grad(direct, new)[0])
    assert stats.triplets == len(triplets.anchor)


def test_every_slot_is_seen_and_none_is_old_alone() -> None:
    new, labels, old = batch(rows=40)
    pooled = pool(new, labels, old)
    kept = keep(mine(pooled.embeddings, pooled.labels, margin=MARGIN), pooled)
    rows = torch.stack(kept[:3])
    seen = {"".join("no"[int(r >= 40)] for r in triplet) for triplet in rows.T}
    assert seen == set(SLOTS)
    assert len(SLOTS) == 7
    assert "ooo" not in SLOTS


def test_the_l2_baseline_is_the_mean_squared_distance_to_ones_own() -> None:
    new, _, old = batch()
    old[3] = torch.nan
    there = [i for i in range(len(new)) if i != 3]
    expected = np.mean([float((new[i] - old[i]).square().sum().detach()) for i in there])
    assert own_objective(new, old).item() == pytest.approx(expected)
    assert own_distance(new, old)[1] == 17
    own_objective(new, old).backward()
    assert new.grad is not None
    assert torch.equal(new.grad[3], torch.zeros(5, dtype=torch.double))
    assert own_objective(new, torch.full_like(old, torch.nan)).item() == 0


def test_stages_train_the_embedding_layer_alone_and_then_everything() -> None:
    net = build_model("small", embedding_dim=8, norm="batch", input_size=(32, 32))
    stage(net, embedding_alone=True)
    learning = {name for name, weight in net.named_parameters() if weight.requires_grad}
    assert learning == {"embedding.weight", "embedding.bias"} & set(dict(net.named_parameters()))
    statistics = copy.deepcopy(dict(net.named_buffers()))
    net(torch.randn(4, 3, 32, 32)).sum().backward()
    assert {name for name, weight in net.named_parameters() if weight.grad is not None} == learning
    assert all(torch.equal(buffer, statistics[name]) for name, buffer in net.named_buffers())
    stage(net, embedding_alone=False)
    assert all(weight.requires_grad for weight in net.parameters())
    assert net.training


def test_an_embedding_layer_is_reset_and_nothing_else() -> None:
    net = build_model("small", embedding_dim=50, norm="lrn", input_size=(32, 32))
    before = copy.deepcopy(net.state_dict())
    nn.init.ones_(net.embedding.weight)
    nn.init.ones_(net.embedding.bias)
    reset_embedding_layer(net)
    assert net.embedding.weight.std().item() == pytest.approx(1 / 16, rel=0.05)  # 256 features
    assert not net.embedding.bias.any()
    changed = {key for key, value in net.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {"embedding.weight"}
    net.embedding_layer = lambda: nn.Conv2d(3, 3, 1)
    with pytest.raises(ConfigError, match="fully connected"):
        reset_embedding_layer(net)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"method": "harmonics"}, "did you mean 'harmonic'"),
        ({"slots": ["nnn", "ooo"]}, "unknown name 'ooo'"),
        ({"slots": []}, "got none"),
        ({"embedding_share": 1.5}, "embedding_share: expected a number of at least 0 and at most 1"),
        ({"weight": -1}, "weight: expected a number of at least 0"),
    ],
)
def test_wrong_options_are_named(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build(HarmonicOptions, wrong)


def test_batch_norm_of_an_embedding_layer_learns_with_it_and_begins_anew() -> None:
    model = build_model("mobilefacenet", embedding_dim=8, input_size=(16, 16))
    images = torch.randn(6, 3, 16, 16)
    model(images)
    stage(model, embedding_alone=True)
    linear, norm = model.embedding_layer()  # type: ignore[misc]
    before = norm.running_mean.clone(), model.stages.conv1.norm.running_mean.clone()  # type: ignore[union-attr]
    model(images).sum().backward()
    assert not torch.equal(norm.running_mean, before[0])
    assert torch.equal(model.stages.conv1.norm.running_mean, before[1])  # type: ignore[union-attr]
    assert linear.weight.grad is not None
    assert model.stages.conv1.conv.weight.grad is None  # type: ignore[union-attr]
    kept = linear.weight.clone()
    reset_embedding_layer(model)
    assert not torch.equal(linear.weight, kept)
    assert (norm.running_mean == 0).all()


def test_frozen_batch_norms_keep_what_they_have_but_for_that_of_the_embedding_layer() -> None:
    model = build_model("mobilefacenet", embedding_dim=8, input_size=(16, 16)).train()
    freeze_norms(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model(torch.randn(6, 3, 16, 16)).square().sum().backward()
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {f"embedding.1.{part}" for part in ("running_mean", "running_var", "num_batches_tracked")}
    still = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    norms = {name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    assert still == {f"{name}.{part}" for name in norms for part in ("weight", "bias")}


@pytest.mark.parametrize(
    "layer", [nn.Sequential(), nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.1)), nn.Conv2d(4, 4, 1)]
)
def test_other_embedding_layers_are_refused(layer: nn.Module) -> None:
    net: Any = nn.Module()
    net.embedding_layer = lambda: layer
    with pytest.raises(ConfigError, match="expected a fully connected embedding layer"):
        reset_embedding_layer(net)
