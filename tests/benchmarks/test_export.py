"""The export benchmark on the smallest net: its numbers, and what it draws."""

from __future__ import annotations

import pytest
import torch

from benchmarks.export import Options, drawn, run, tables
from facenet.errors import ConfigError

pytest.importorskip("onnxscript")


@pytest.mark.slow  # an export, and three batch sizes in onnxruntime
def test_runs_and_prints() -> None:
    threads = torch.get_num_threads()
    result = run(Options(models=("small",), batch_size=4, seconds=0.3, repeats=2, threads=1))
    assert torch.get_num_threads() == threads
    entry = result["nets"]["small"]
    assert entry["input_size"] == [64, 64]
    assert set(entry["max_difference"]) == {"1", "4", "7"}
    assert all(0 < value <= 1e-5 for value in entry["max_difference"].values())
    assert entry["bytes"] > 5_000_000
    speed = entry["speed"]
    assert list(speed) == ["torch", "onnxruntime"]
    for measured in speed.values():
        assert 0 < measured["least"] <= measured["seconds"] <= measured["most"]
        assert measured["images_per_second"] == pytest.approx(4 / measured["seconds"])
        assert measured["ratio"] == pytest.approx(speed["torch"]["seconds"] / measured["seconds"])
    ((title, header, rows),) = tables(result)
    assert "1 threads" in title
    assert [len(row) for row in rows] == [len(header)]
    assert rows[0][-1] == f"{speed['onnxruntime']['images_per_second']:.1f} ({speed['onnxruntime']['ratio']:.2f}x)"


def test_drawn_nets_have_seen_data() -> None:
    encoder = drawn("small", (32, 32))
    norms = [layer for layer in encoder.model.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    assert len(norms) == 8
    assert all(float(norm.running_mean.abs().max()) > 0.1 for norm in norms)  # type: ignore[union-attr]
    again = drawn("small", (32, 32)).model.state_dict()
    assert all(torch.equal(value, again[key]) for key, value in encoder.model.state_dict().items())


def test_mistakes_are_one_line() -> None:
    with pytest.raises(ConfigError, match=r"benchmark\.models: unknown name 'nn5'"):
        run(Options(models=("nn5",)))
