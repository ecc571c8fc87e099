"""The attention benchmark runs at small sizes and its numbers mean what they say."""

from __future__ import annotations

import pytest
import torch

from benchmarks import attention as room
from benchmarks.attention import Options, measure_errors, peak_bytes, run, tables


@pytest.mark.slow  # times every kernel
def test_runs_and_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "FIT_FROM", 24)
    threads = torch.get_num_threads()
    options = Options(tokens=(16, 24, 32), repeats=1, threads=1, heads=2, dim=8, num_features=8, errors=False)
    result = run(options)
    assert torch.get_num_threads() == threads
    for form in ("bidirectional", "causal"):
        for step in ("forward", "backward"):
            entry = result["times"][form][step]["24"]
            assert {"sdpa", "positive", "sincos"} <= set(entry)
            assert entry["positive"]["ratio"] == 1
            assert entry["sdpa"]["ratio"] == pytest.approx(entry["sdpa"]["seconds"] / entry["positive"]["seconds"])
            assert entry["positive"]["least"] <= entry["positive"]["seconds"] <= entry["positive"]["most"]
            assert set(result["exponents"][form][step]) == set(entry)
    rows = next(rows for title, _, rows in tables(result) if title.startswith("crossover"))
    assert [row[2] for row in rows] == [256, 1024]


def test_peak_memory_is_what_a_call_holds_at_once() -> None:
    def call() -> None:
        first = torch.ones(1000, 1000)
        del first
        second = torch.ones(500, 1000)
        second + 1

    assert peak_bytes(call) == pytest.approx(4e6, rel=0.01)


def test_errors_fall_with_features_and_rise_with_the_norm() -> None:
    entries = measure_errors(tokens=64, dim=8, norms=(0.5, 3.0), widths=(16, 256), draws=4)
    gentle, hard = entries
    assert gentle["entropy"] > 0.95 > 0.6 > hard["entropy"]
    for features in ("sincos", "positive"):
        errors = {(f["R"], f["orthogonal"]): f["error"] for f in gentle["features"] if f["features"] == features}
        assert errors[256, True] < errors[16, True]
        assert errors[256, False] < errors[16, False]
        worse = [f["error"] for f in hard["features"] if f["features"] == features]
        assert min(worse) > max(e for (width, _), e in errors.items() if width == 256)
    assert gentle["plain_mean"] < hard["plain_mean"]
    title, header, rows = tables(
        {"times": {}, "exponents": {}, "crossover": {"bidirectional": 9.0, "causal": None}, "errors": entries}
    )[-1]
    assert len(rows) == len(gentle["features"]) + 2
    assert header[-1] == "norm 3"
    assert "relative error" in title
