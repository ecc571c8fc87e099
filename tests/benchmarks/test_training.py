"""The training benchmark on the smallest net: what it returns, what it leaves out, and what compilation may do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from benchmarks import training
from benchmarks.training import SETTINGS, Options, Step, outside_convolutions, run, tables
from facenet.errors import ConfigError


@pytest.mark.slow  # a net in every setting, and two ceilings of a second each
def test_run_returns_plain_positive_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "bf16_slowdown", lambda device: 1e9)

    def broken(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("no compiler\nhere")

    monkeypatch.setattr(torch, "compile", broken)
    result = run(Options(nets=("small",), batch_size=6, seconds=0.2, repeats=1, device="cpu"))
    entry = result["nets"]["small"]
    assert set(entry["settings"]) == set(SETTINGS)
    for key in ("fp32", "fp32_channels_last"):
        measured = entry["settings"][key]
        assert 0 < measured["least"] <= measured["faces_per_second"] <= measured["most"]
        assert 0 < entry["outside_convolutions"][key] < 1
        ideal = result["ceiling"]["fp32"] / (3 * entry["macs"])
        assert measured["of_ceiling"] == pytest.approx(measured["faces_per_second"] / ideal)
    assert entry["macs"] == 46_407_680
    assert entry["best"] in ("fp32", "fp32_channels_last")
    assert "as long" in entry["settings"]["bf16"]["failed"]
    assert entry["settings"]["compile"]["failed"] == "RuntimeError: no compiler here"
    ((_, header, rows),) = tables(result)
    assert len(rows) == len(SETTINGS)
    assert {len(row) for row in rows} == {len(header)}


def test_a_step_trains() -> None:
    step = Step("small", 8, SETTINGS["fp32_channels_last"], torch.device("cpu"))
    weight = next(step.model.parameters())
    assert step.images.is_contiguous(memory_format=torch.channels_last)
    before = weight.detach().clone()
    step()
    assert not torch.equal(before, weight)


def test_the_share_outside_convolutions() -> None:
    conv, images = nn.Conv2d(16, 16, 3), torch.randn(4, 16, 32, 32)
    mostly = outside_convolutions(lambda: conv(images).sum().backward(), torch.device("cpu"))
    assert mostly < 0.6
    assert outside_convolutions(lambda: (images @ images).exp_(), torch.device("cpu")) == 1


def test_mistakes_are_one_line() -> None:
    with pytest.raises(ConfigError, match=r"benchmark\.nets: unknown name 'nn5'"):
        run(Options(nets=("nn5",)))
