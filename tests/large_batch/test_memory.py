"""What a step keeps, counted from shapes, against hand counts; chunks that fit a budget."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from facenet.errors import ConfigError
from facenet.large_batch.memory import StepMemory, activation_bytes, available_bytes, choose_chunk, step_memory
from facenet.models.build import build_model
from facenet.models.registry import KNOWN, TABLES


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(5), nn.Flatten(), nn.Linear(80, 7))


def test_a_hand_count() -> None:
    # the images, the convolution's output for ReLU (in place or not, its result is what is kept), batch norm's output
    floats = 3 * 16 + 5 * 16 + 5 * 16
    kept, largest = activation_bytes(net(), (4, 4))
    assert (kept, largest) == (4 * floats, 4 * 80)


def test_it_leaves_the_net_as_it_was() -> None:
    model = net().eval()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    activation_bytes(model, (4, 4))
    assert not model.training
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_the_parts_of_a_step() -> None:
    model, weights = net(), 4 * sum(p.numel() for p in net().parameters())
    whole = step_memory(model, (4, 4), batch_size=100, stored_bytes=48, optimizer="adamw")
    assert (whole.state, whole.batch) == (4 * weights, 4800)
    assert step_memory(model, (4, 4), batch_size=100, optimizer="sgd").state == 3 * weights
    chunk = step_memory(model, (4, 4), batch_size=100, chunk_size=25)
    assert chunk.activations == pytest.approx(whole.activations / 4, rel=1e-3)
    assert step_memory(model, (4, 4), batch_size=100, half=True).activations == pytest.approx(whole.activations * 0.75)
    ranks = step_memory(model, (4, 4), batch_size=100, ranks=2)
    assert (ranks.activations, ranks.state) == (whole.activations, whole.state * 6 // 4)
    assert step_memory(model, (4, 4), batch_size=100, chunk_size=400) == step_memory(model, (4, 4), batch_size=100)
    assert StepMemory(1, 2, 3).total - StepMemory(0, 0, 0).total == 6


@pytest.mark.parametrize("batch_size", [100, 97])
@pytest.mark.parametrize("share", [0.02, 0.1, 0.3, 0.5, 0.99, 1.0])
def test_the_chunk_is_the_largest_that_fits(batch_size: int, share: float) -> None:
    model, options = net(), {"batch_size": batch_size, "stored_bytes": 48}
    nothing = step_memory(model, (4, 4), chunk_size=1, **options)  # type: ignore[arg-type]
    budget = nothing.total + int(nothing.activations * (batch_size * share - 1)) + batch_size  # and rounding
    if share < 2 / batch_size:
        with pytest.raises(ConfigError, match="two images"):
            choose_chunk(model, (4, 4), budget=budget, **options)  # type: ignore[arg-type]
        return
    chunk = choose_chunk(model, (4, 4), budget=budget, **options)  # type: ignore[arg-type]
    most = int(batch_size * share + 1e-9)
    if most >= batch_size:
        assert chunk is None
        return
    assert chunk is not None
    assert 2 <= chunk <= most
    assert -(-batch_size // chunk) == -(-batch_size // most)  # as few chunks as the largest that fits
    assert step_memory(model, (4, 4), chunk_size=chunk, **options).total <= budget  # type: ignore[arg-type]


def test_too_little_memory_is_one_line() -> None:
    with pytest.raises(
        ConfigError, match=r"large_batch: two images of \(4, 4\) need 0\.\d\d GB, the budget is 0\.00 GB"
    ):
        choose_chunk(net(), (4, 4), batch_size=8, budget=1000)


@pytest.mark.parametrize(
    ("name", "norm"),
    [
        *(
            (name, norm) if name == "small" else pytest.param(name, norm, marks=pytest.mark.slow)
            for name in TABLES
            for norm in ("batch", "lrn")
        ),
        *((name, "batch") for name in KNOWN),
    ],
)
def test_every_net_can_be_counted(name: str, norm: str) -> None:
    with torch.device("meta"):
        model = build_model(name, norm=norm)
    kept, largest = activation_bytes(model, model.input_size)
    side = model.input_size[0] * model.input_size[1]
    assert 3 * side < largest < kept < side * (1500 if name in TABLES else 10_000)


def test_attention_adds_to_it() -> None:
    options: Any = {"input_size": [48, 48]}
    plain, block, head = (
        activation_bytes(build_model("small", **options, **more), (48, 48))[0]
        for more in ({}, {"attention": {"after": "inception_3c"}}, {"pool": "attention"})
    )
    assert plain < head
    assert plain < block


def test_available_memory_minds_a_containers_limit(tmp_path: Path) -> None:
    here = torch.device("cpu")
    assert 2**26 < available_bytes(here) < 2**50
    info = tmp_path / "meminfo"
    info.write_text("MemTotal: 9000 kB\nMemAvailable:    4000 kB\n")
    assert available_bytes(here, info, tmp_path) == 4000 * 1024
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert available_bytes(here, info, tmp_path) == 4000 * 1024
    (tmp_path / "memory.max").write_text("3000\n")
    assert available_bytes(here, info, tmp_path) == 2000
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text("500")
    (tmp_path / "memory" / "memory.usage_in_bytes").write_text("600")
    assert available_bytes(here, info, tmp_path) == 0
    assert available_bytes(here, tmp_path / "absent", tmp_path / "absent") > 2**26
