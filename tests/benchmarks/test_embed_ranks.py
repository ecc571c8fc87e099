"""The ranks benchmark at a small size: real processes, one of them killed twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.embed_ranks import Options, run, tables


@pytest.mark.slow  # five processes that import torch
def test_killed_ranks_make_the_set_of_one_process(tmp_path: Path) -> None:
    result = run(Options(faces=2000, pictures=50, dim=16, batch_size=32, block=100, folder=str(tmp_path)))
    assert result["kills"] == 2
    assert 0 < result["vectors"] < 2000
    assert (result["missing"], result["vectors_that_differ"]) == (0, 0)
    assert (result["files_that_differ"], result["left_over"]) == ([], [])
    assert [len(row) for _, header, rows in tables(result) for row in rows if len(row) != len(header)] == []
    assert not list(tmp_path.iterdir())
