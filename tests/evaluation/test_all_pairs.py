"""all_pairs: tiles and a running tail against the sort of all distances; what does not fit is refused and named."""

from __future__ import annotations

import json

import numpy as np
import pytest

from facenet.errors import ConfigError, DataError
from facenet.evaluation.all_pairs import BYTES_OF_TAIL, all_pairs, tiles
from tests.helpers.verification import unit


def at_far_by_sort(distances: np.ndarray, same: np.ndarray, far: float) -> tuple[float, int] | None:
    """The same from a sort of all negatives, for more pairs than a loop over thresholds can bear."""
    negatives = np.sort(distances[~same])
    allowed = int(far * len(negatives) + 1e-9)
    if allowed == 0:
        return None
    return float(np.mean(distances[same] < negatives[allowed])), int(np.sum(distances < negatives[allowed]))


@pytest.mark.parametrize("lattice", [False, True])
@pytest.mark.parametrize("block_rows", [7, 64, 5000])
def test_every_rate_against_the_full_sort(lattice: bool, block_rows: int) -> None:
    labels = np.random.default_rng(0).integers(0, 60, 400)
    if lattice:  # +-1/4 in 16 places: every product is exact, and distances are tied
        vectors = np.random.default_rng(1).choice(np.float32([-0.25, 0.25]), (400, 16))
    else:
        vectors = unit(400, 12, labels, 2)
    one, two = np.triu_indices(400, 1)
    distances = np.maximum(2 - 2 * (vectors @ vectors.T), 0)[one, two]
    same = labels[one] == labels[two]
    fars = (0.5, 1e-2, 1e-3, 1e-4, 1e-6)
    found = all_pairs(vectors, labels, fars, block_rows=block_rows, tile_columns=50).val_at_far
    for far in fars:
        row, want = found[far], at_far_by_sort(distances, same, far)
        assert row["negatives"] == (~same).sum()
        assert row["resolvable"] == (want is not None)
        if want is None:
            assert row["val"] is row["threshold"] is None
            continue
        assert row["val"] == pytest.approx(want[0], abs=1e-12)
        accepted = distances <= np.float32(row["threshold"])
        assert (row["accepted_same"], row["accepted_different"]) == pytest.approx(
            (np.sum(accepted & same), np.sum(accepted & ~same)), abs=0 if lattice else 1
        )
        assert row["low"] <= row["val"] <= row["high"]
        assert abs(int(accepted.sum()) - want[1]) <= (0 if lattice else 1)  # products differ in the last bit
        assert np.sum(accepted & ~same) <= far * np.sum(~same) + (0 if lattice else 1)
    order = np.random.default_rng(3).permutation(400)
    turned = all_pairs(vectors[order], labels[order], fars, block_rows=block_rows, tile_columns=50).val_at_far
    for far in fars:
        assert turned[far]["threshold"] == pytest.approx(found[far]["threshold"], abs=1e-6)


def test_a_running_bound_keeps_the_nearest_pairs() -> None:
    """Enough pairs that the tail is cut many times, against the full sort."""
    labels = np.arange(1500) // 10
    vectors = unit(1500, 32, labels, 4)
    matrix = np.maximum(2 - 2 * (vectors @ vectors.T), 0)
    negatives = np.sort(matrix[np.triu(labels[:, None] != labels[None], 1)])
    found = all_pairs(vectors, labels, (1e-3, 1e-5), block_rows=64).val_at_far
    for far, row in found.items():
        allowed = int(far * len(negatives))
        assert negatives[allowed - 1] - 1e-6 <= row["threshold"] <= negatives[allowed] + 1e-6


def test_calibration_edges() -> None:
    vectors = np.eye(4, dtype=np.float32)
    found = all_pairs(vectors, ["a", "b", "", "c"], (1.0, 0.1))  # the unknown face is left out
    assert (found.faces, found.identities, found.unknown, found.same, found.different) == (3, 3, 1, 0, 3)
    every, none = found.val_at_far[1.0], found.val_at_far[0.1]
    assert (every["threshold"], every["val"], every["resolvable"], every["negatives"]) == (3.0, None, True, 3)
    assert (every["accepted_same"], every["accepted_different"]) == (0, 3)
    assert (none["resolvable"], none["reason"]) == (False, "too few different pairs (3)")
    for labels in (["a"] * 4, [""] * 4):
        with pytest.raises(DataError, match="two or more identities"):
            all_pairs(vectors, labels)
    with pytest.raises(DataError, match="N labels"):
        all_pairs(vectors, ["a"])
    with pytest.raises(DataError, match="NaN"):
        all_pairs(np.full((4, 2), np.nan, np.float32), ["a", "a", "b", "b"])


def test_tiles_cover_the_upper_triangle_once() -> None:
    vectors = unit(101, 6, np.arange(101) // 5, 8)
    seen, similarities = np.zeros((101, 101), int), vectors @ vectors.T
    for top, left, tile in tiles(vectors, 16, 30):
        place = np.s_[top : top + tile.shape[0], left : left + tile.shape[1]]
        seen[place] += 1
        np.testing.assert_allclose(tile, similarities[place], atol=1e-6)
    assert (seen[np.triu_indices(101)] == 1).all()
    assert (seen <= 1).all()


def test_a_tail_beyond_the_memory_is_refused_and_the_smaller_rates_stay_exact() -> None:
    labels = np.arange(900) // 3
    vectors = unit(900, 8, labels, 9)
    whole = all_pairs(vectors, labels, (0.5, 1e-2, 1e-4)).val_at_far
    tight = BYTES_OF_TAIL * 0.02 * 404_550 / 1e9  # room for a fiftieth of the pairs
    found = all_pairs(vectors, labels, (0.5, 1e-2, 1e-4), memory_gb=tight)
    assert found.val_at_far[1e-2] == whole[1e-2]
    assert found.val_at_far[1e-4] == whole[1e-4]
    large = found.val_at_far[0.5]
    assert (large["val"], large["threshold"], large["resolvable"]) == (None, None, False)
    assert "memory_gb" in large["reason"]
    assert "sample of the faces" in large["reason"]
    with pytest.raises(ConfigError, match=r"900 same pairs need .* memory_gb is 1e-06"):
        all_pairs(vectors, labels, memory_gb=1e-6)


def test_metrics_are_plain_json_and_progress_counts_pairs() -> None:
    labels, shown = np.arange(60) // 3, []
    found = all_pairs(unit(60, 8, labels, 1), labels, block_rows=25, progress=lambda *done: shown.append(done))
    metrics = found.metrics()
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics
    assert metrics["pairs"] == 60 * 59 // 2 == metrics["same"] + metrics["different"]
    assert list(metrics["val_at_far"]) == ["1e-1", "1e-2", "1e-3", "1e-4", "1e-5", "1e-6"]
    assert shown == [(0, 1770), (25 * 59 - 300, 1770), (1770 - 45, 1770), (1770, 1770)]
