from __future__ import annotations

import json

import pytest

from benchmarks.ddp import Options, run, tables
from facenet.errors import ConfigError


@pytest.mark.slow  # two rank processes import torch
def test_run_returns_plain_numbers() -> None:
    result = run(Options(net="nns2", batch_size=12, chunk_size=4, mined=400, repeats=1))
    json.dumps(result, allow_nan=False)
    assert result["loss_difference"] < 1e-6
    assert 0 < result["gradient_difference"] < 1e-3
    assert 0 < result["exact_difference"] < 1e-9
    step, mined = result["step"], result["mine"]
    assert result["speedup"] == step["one_thread"]["seconds"] / step["ranks"]["seconds"]
    assert result["mining_speedup"] == mined["whole"]["seconds"] / mined["share"]["seconds"]
    for title, header, rows in tables(result):
        assert title
        assert all(len(row) == len(header) for row in rows)


def test_mistakes_are_one_line() -> None:
    with pytest.raises(ConfigError, match=r"benchmark\.net: unknown name 'nn5'"):
        run(Options(net="nn5"))
    with pytest.raises(ConfigError, match="a batch_size that the ranks divide"):
        run(Options(batch_size=31))
