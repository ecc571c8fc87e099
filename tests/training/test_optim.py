from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from facenet.errors import ConfigError
from facenet.models.build import build_model
from facenet.training.optim import OPTIMIZERS, SCHEDULES, build_optimizer, lr_factor, stage_factors
from facenet.training.options import OptimOptions


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_every_optimiser_lowers_a_loss(name: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))
    optimizer = build_optimizer([model], name=name, lr=0.05, weight_decay=1e-4)
    x, y = torch.randn(32, 4), torch.randn(32, 1)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = (model(x) - y).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_decay_spares_biases_and_norms() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8))
    groups = build_optimizer([model], name="adamw", lr=1e-3, weight_decay=0.1).param_groups
    assert [(g["weight_decay"], sorted(p.ndim for p in g["params"])) for g in groups] == [(0.1, [2]), (0.0, [1, 1, 1])]


def test_early_stages_learn_more_slowly() -> None:
    model, head = build_model("small", embedding_dim=4), nn.Linear(4, 2)
    groups = build_optimizer([model, head], name="adamw", lr=1.0, weight_decay=0.1, stage_decay=0.5).param_groups
    rate = {id(p): group["lr"] for group in groups for p in group["params"]}
    stages = list(model.stages)  # type: ignore[arg-type]
    for behind, name in enumerate(reversed(stages), start=1):
        assert {rate[id(p)] for p in model.stages[name].parameters()} == {0.5**behind}  # type: ignore[index, union-attr]
    assert rate[id(model.embedding.weight)] == rate[id(head.weight)] == rate[id(head.bias)] == 1.0  # type: ignore[union-attr]
    assert len(rate) == len(list(model.parameters())) + 2
    assert {group["weight_decay"] for group in groups} == {0.0, 0.1}
    assert len(build_optimizer([model, head], name="adamw", lr=1.0).param_groups) == 2


def test_stages_of_a_net_of_timm() -> None:
    pytest.importorskip("timm", reason="pip install facenet-triplet[timm]")
    factors = stage_factors(build_model("timm", timm="test_resnet", embedding_dim=4), 0.5)
    values = list(factors.values())
    assert values[-1] == 1.0
    assert values == sorted(values)
    assert len(set(values)) > 4


def test_schedules() -> None:
    def factors(schedule: str) -> list[float]:
        return [lr_factor(s, schedule=schedule, total_steps=100, warmup_steps=10) for s in range(101)]

    for schedule in SCHEDULES:
        values = factors(schedule)
        assert values[:10] == pytest.approx([(s + 1) / 10 for s in range(10)])
        assert values[10] == 1
        assert all(a >= b for a, b in itertools.pairwise(values[10:]))
    assert factors("cosine")[100] == pytest.approx(0)
    assert factors("step")[54] == 1
    assert factors("step")[55] == pytest.approx(0.1)
    assert factors("step")[90] == pytest.approx(0.01)
    with pytest.raises(ConfigError, match="did you mean 'cosine'"):
        lr_factor(0, schedule="cosin", total_steps=10)


def test_bad_numbers() -> None:
    for options in ({"lr": 0.0}, {"lr": 0.1, "weight_decay": -1.0}, {"lr": 0.1, "momentum": 1.0}):
        with pytest.raises(ConfigError):
            OptimOptions(**options)
