"""The mining benchmark at a small size: what it returns, and that its faces are as described."""

from __future__ import annotations

import math

import pytest

from benchmarks.drawn import draw_faces
from benchmarks.mining import Options, run
from facenet.vectors import sq_dist_matrix


@pytest.mark.slow  # times every miner
def test_run_returns_plain_positive_numbers() -> None:
    result = run(Options(sizes=(200,), repeats=2, peers=False, memory=False))
    measured = result["sizes"]["200"]
    assert measured["floor"]["runs"] == measured["ours"]["runs"] == 2
    assert measured["floor_ratio"] == pytest.approx(measured["ours"]["seconds"] / measured["floor"]["seconds"])
    assert 0.2 < measured["semi_hard_share"] < 0.55
    assert measured["triplets"] > 0
    assert math.isfinite(measured["decay"])


def test_faces_have_the_distances_described() -> None:
    embeddings, labels = draw_faces(800)
    sq_dist, same = sq_dist_matrix(embeddings, embeddings), labels[:, None] == labels
    same_pairs = same.clone().fill_diagonal_(False)
    assert sq_dist[same_pairs].mean().item() == pytest.approx(1.0, abs=0.05)
    assert sq_dist[~same].mean().item() == pytest.approx(2.0, abs=0.15)
