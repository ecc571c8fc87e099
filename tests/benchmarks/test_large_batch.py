from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from benchmarks import large_batch
from benchmarks.large_batch import Options, _plain, run, step, tables
from facenet.errors import ConfigError


@pytest.mark.slow  # two fresh processes import torch
def test_run_returns_plain_numbers() -> None:
    result = run(Options(net="nns2", batch_size=12, chunk_size=5, threads=1, fits=(), device="cpu"))
    json.dumps(result, allow_nan=False)
    assert result["plain"]["batch_size"] == result["chunked"]["batch_size"] == 12
    assert not result["extrapolated"]
    assert result["plain"]["loss"] == pytest.approx(result["chunked"]["loss"], rel=1e-4)
    assert 0 < result["gradient_difference"] < 1e-4
    assert result["memory_ratio"] == result["plain"]["extra_bytes"] / result["chunked"]["extra_bytes"]
    assert result["time_ratio"] == result["chunked"]["seconds"] / result["plain"]["seconds"]
    (_, header, rows), (_, _, ratios) = tables(result)
    assert all(len(row) == len(header) for row in rows)
    assert len(rows) == 2
    assert len(ratios) == 3


def test_the_first_chunks_alone_are_embedded(monkeypatch: pytest.MonkeyPatch) -> None:
    measured, model = step("nns2", 10, 2, torch.device("cpu"), first=1)
    assert measured["loss"] >= 0
    part = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    assert torch.isfinite(part).all()
    calls: list[int] = []
    embed = large_batch.FirstChunks(lambda images: calls.append(len(images)) or images.flatten(1), 2, 5)  # type: ignore
    for _ in range(10):
        embed(torch.zeros(3, 3, 2, 2))
    assert calls == [3] * 4


def test_a_plain_step_that_does_not_fit_is_extrapolated() -> None:
    def entry(size: int) -> list[dict[str, Any]]:
        return [{"seconds": 2.0 * size, "extra_bytes": 100 + 10 * size, "peak_bytes": 500 + 10 * size, "loss": 0.1}]

    found = _plain({300: entry(300), 600: entry(600)}, "nns2", 1800, False)
    assert found["measured"] == [300, 600]
    assert (found["seconds"], found["extra_bytes"], found["peak_bytes"]) == (3600, 18100, 18500)
    assert _plain({1800: entry(1800)}, "nns2", 1800, False)["seconds"] == 3600


def test_mistakes_are_one_line() -> None:
    with pytest.raises(ConfigError, match=r"benchmark\.net: unknown name 'nn5'"):
        run(Options(net="nn5"))
    with pytest.raises(ConfigError, match="chunk_size < batch_size"):
        run(Options(batch_size=60, chunk_size=60))
