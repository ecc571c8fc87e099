"""The recall benchmark at a small size: what a gallery states is what new queries find."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.recall import Options, run, tables


@pytest.mark.slow  # six galleries of two thousand faces, edited
def test_stated_and_found_recall_are_close(tmp_path: Path) -> None:
    options = Options(
        sizes=(2000,), kinds=("hnsw",), factories=("HNSW16", "IVF32,Flat"), queries=1000, D=32, within=0.6,
        recall_target=0.95, folder=str(tmp_path),
    )  # fmt: skip
    result = run(options)
    assert len(result["rows"]) == 12
    assert {row["used"] for row in result["rows"]} == {"Flat", "HNSW16", "IVF32,Flat"}
    assert result["worst"] < 0.02
    assert all(row["found @1"] > 0.93 for row in result["rows"])
    assert [len(row) for _, header, rows in tables(result) for row in rows if len(row) != len(header)] == []
    assert not list(tmp_path.iterdir())
