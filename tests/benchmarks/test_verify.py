"""The verification benchmark at a small size: what it returns, and that the loops are the evaluation they stand for."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.verify import Options, loops, run, tables
from facenet.evaluation.verification import common_grid, verify_pairs
from tests.helpers.verification import lfw_like


def test_run_returns_plain_positive_numbers() -> None:
    small = {"pairs": 200, "repeats": 1, "faces": (600,), "rounds": 2, "sorted_faces": 500, "far": 1e-3}
    result = run(Options(**small, peers=False, memory=False))  # type: ignore[arg-type]
    assert set(result["folds"]) == {"pairs", "ours"}
    assert result["full_sort"]["equal"] is True
    assert 0 < result["full_sort"]["val"] < 1
    measured = result["all_pairs"]["600"]
    assert measured["product_ratio"] == measured["ours"]["seconds"] / measured["product"]["seconds"]
    assert [len(row) for _, header, rows in tables(result) for row in rows if len(row) != len(header)] == []


@pytest.mark.slow  # a fresh process imports torch, and loops take their time
def test_loops_and_memory_are_measured() -> None:
    result = run(Options(pairs=200, repeats=1, faces=(600,), rounds=1, sorted_faces=0))
    assert result["folds"]["equal_folds"] is True
    assert result["folds"]["loops_ratio"] > 1
    extra = result["all_pairs"]["600"]["extra_bytes"]
    assert extra is None or 0 <= extra < 64e6
    assert tables(result)


@pytest.mark.slow  # loops over every threshold
def test_the_loops_find_what_one_sort_finds() -> None:
    distances, same, folds = (rows[::3] for rows in lfw_like(3))
    slow, fast = loops(distances, same, folds), verify_pairs(distances, same, folds)
    assert slow["accuracies"] == list(verify_pairs(distances, same, folds, grid=common_grid(400)).fold_accuracies)
    assert abs(np.mean(slow["accuracies"]) - fast.accuracy) < 0.005
    assert abs(slow["val"] - fast.val_at_far[1e-3]["val"]) < 0.06
    val, far = slow["roc"].T
    assert (np.diff(far) >= 0).all()
    assert abs(np.trapezoid(val, far) - fast.auc) < 1e-3
