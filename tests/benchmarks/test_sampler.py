"""The sampler benchmark at a small size: what it returns, and that its people are as described."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.sampler import Options, draw_labels, run, tables


@pytest.mark.slow  # starts two processes
def test_run_returns_plain_positive_numbers() -> None:
    result = run(Options(images=(2000, 4000), faces_per_identity=(6,), batch_size=60, batches=3, sorted=False))
    entry = result["faces"]["6"]
    for images, measured in entry["images"].items():
        assert measured["people"] == int(images) * 2_059_906 // 42_474_558
        assert 0 < measured["next"]["least"] <= measured["next"]["seconds"] <= measured["next"]["most"]
        assert measured["anywhere"]["runs"] == 3
        assert measured["build_seconds"] > 0
    small, large = (entry["images"][images]["next"]["seconds"] for images in ("2000", "4000"))
    assert entry["exponent"] == pytest.approx(math.log2(large / small))
    (_, header, rows), (_, _, fits) = tables(result)
    assert {len(row) for row in rows} == {len(header)}
    assert (len(rows), len(fits)) == (2, 1)


def test_people_have_a_long_tail_of_images() -> None:
    labels = draw_labels(100_000)
    counts = np.bincount(labels)
    assert len(labels) == 100_000
    assert counts.min() >= 1
    assert counts.mean() == pytest.approx(20.6, abs=0.1)
    assert counts.max() > 10 * counts.mean()
