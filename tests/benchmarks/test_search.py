"""The search benchmark at a small size: plain numbers, recall of queries that the gallery does not hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.search import Options, run, tables


@pytest.mark.slow  # two indexes of 12,000 faces are built and tuned
def test_run_returns_plain_positive_numbers(tmp_path: Path) -> None:
    options = Options(
        sizes=(12_000,), kinds=("flat", "ivf_sq8", "hnsw"), hnsw_to=1000,
        queries=50, singles=3, edits=2, repeats=1, D=32,
        folder=str(tmp_path),
    )  # fmt: skip
    result = run(options)
    entry = result["sizes"]["12000"]
    assert set(entry["kinds"]) == {"flat", "ivf_sq8"}, "hnsw is left out above hnsw_to"
    flat, coded = entry["kinds"]["flat"], entry["kinds"]["ivf_sq8"]
    assert flat["recall_at_1"] == flat["recall_at_10"] == 1
    assert (flat["index"], coded["index"]) == ("Flat", "IVF256,SQ8")
    assert coded["recall_at_1"] > 0.9
    assert coded["bytes_per_face"] < flat["bytes_per_face"] / 2
    for told in entry["kinds"].values():
        assert told["batch_ratio"] > 0
        assert told["build_seconds"] > 0
        assert told["single_more_ms"] == told["single_ms"] - told["single_raw_ms"]
    assert {name: edit["runs"] for name, edit in entry["edits"].items()} == {"add": 2, "search": 2, "remove": 2}
    assert not list(tmp_path.iterdir())
    assert [len(row) for _, header, rows in tables(result) for row in rows if len(row) != len(header)] == []
