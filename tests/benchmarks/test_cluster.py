"""The clustering benchmark at a small size: what it returns, and that its faces are as described."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.cluster import Options, run, tables
from benchmarks.drawn import draw_gallery
from facenet import neighbours as knn


@pytest.mark.slow  # times clusterings
def test_run_returns_plain_positive_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knn, "EXACT_TO", 700)  # above it FAISS searches by cells
    options = Options(sizes=(600, 900), sample=400, repeats=1, linkage_to=600, memory=False, D=32, threads=1)
    result = run(options)
    small, large = result["sizes"]["600"], result["sizes"]["900"]
    for entry in (small, large):
        assert entry["graph_ratio"] == entry["ours"]["seconds"] / entry["graph"]["seconds"]
        assert entry["search_ratio"] == entry["ours"]["seconds"] / entry["faiss"]["seconds"]
        assert 0 < entry["pairwise_f1"] <= 1
        assert entry["extra_bytes"] is None
    assert small["linkage_ratio"] == small["linkage"]["seconds"] / small["ours"]["seconds"]
    assert small["linkage"]["best"]["bcubed_f1"]["bcubed_f1"] >= small["linkage"]["best"]["pairwise_f1"]["bcubed_f1"]
    assert "linkage" not in large
    assert large["threshold"] < small["threshold"]
    assert [len(row) for _, header, rows in tables(result) for row in rows if len(row) != len(header)] == []


def test_above_search_to_only_ours_is_run() -> None:
    options = Options(sizes=(400,), sample=400, repeats=1, linkage_to=0, search_to=0, memory=False, D=32)
    entry = run(options)["sizes"]["400"]
    assert "ours" in entry
    assert not {"faiss", "graph", "linkage", "graph_ratio"} & set(entry)


def test_faces_have_the_distances_described() -> None:
    vectors, labels = draw_gallery(2000)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert set(np.bincount(labels).tolist()) == {20}
    sq_dist, same = 2 - 2 * vectors @ vectors.T, labels[:, None] == labels
    np.fill_diagonal(sq_dist, np.nan)
    assert np.nanmean(sq_dist[same]) == pytest.approx(1.0, abs=0.05)
    assert np.nanmean(sq_dist[~same]) == pytest.approx(2.0, abs=0.05)
    other = draw_gallery(2000, seed=1)[0]
    assert (2 - 2 * vectors @ other.T).min() > 0.2, "other people"
