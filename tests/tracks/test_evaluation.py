from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from facenet.data.records import Records, write_images
from facenet.data.tracks import Tracks, scan_tracks
from facenet.errors import DataError
from facenet.models.track_pool import TrackPool
from facenet.tracks.evaluation import (
    BASELINES,
    _by_kind,
    embed_tracks,
    evaluate_templates,
    over_seeds,
    paired,
    streaming_gap,
    track_pairs,
    verify_templates,
)
from facenet.types import Pairs
from tests.helpers.encoders import make
from tests.helpers.tracks import made, toy


def test_baselines_are_what_their_names_say() -> None:
    data = toy(4)
    for row, length in enumerate(data.tracks.lengths):
        frames = data.frames[row, :length].double()
        expected = {
            "mean": frames.mean(0),
            "median": torch.from_numpy(np.median(frames.numpy(), 0)),
            "last_frame": frames[-1],
        }
        for name, vector in expected.items():
            found = BASELINES[name](data.frames, data.mask)[row].double()
            if name == "median" and length % 2 == 0:
                continue  # torch takes the lower of the two middle ones
            torch.testing.assert_close(found, vector / vector.norm(), atol=1e-5, rtol=0)


def test_all_frame_pairs_is_the_mean_over_all_pairs() -> None:
    data = toy(4)
    vectors = BASELINES["all_frame_pairs"](data.frames, data.mask)
    a, b = (data.frames[row, : data.tracks.lengths[row]].numpy() for row in (0, 5))
    slow = np.mean([np.sum((x - y) ** 2) for x, y in product(a, b)])
    assert abs(2 - 2 * float(vectors[0] @ vectors[5]) - slow) < 1e-5


@pytest.mark.parametrize("name", BASELINES)
def test_what_lies_behind_the_mask_changes_no_baseline(name: str) -> None:
    data = toy(4)
    filled = data.frames.masked_fill(~data.mask[..., None], 7.0)
    torch.testing.assert_close(BASELINES[name](filled, data.mask), BASELINES[name](data.frames, data.mask))


def test_scores_and_kinds() -> None:
    data = toy(40)
    pairs = track_pairs(data.tracks)
    scores = evaluate_templates(BASELINES["mean"], data, pairs)
    assert 0.5 < scores["accuracy"] < 0.99, "neither chance nor perfect, or the tests below show nothing"
    assert sum(row["pairs"] for row in scores["by_kind"].values()) == len(pairs)
    weighted = sum(row["accuracy"] * row["pairs"] for row in scores["by_kind"].values()) / len(pairs)
    assert abs(weighted - scores["accuracy"]) < 1e-9, "folds are equally large, so both average the same decisions"
    assert scores["by_kind"]["both_good"]["accuracy"] > scores["by_kind"]["both_bad"]["accuracy"]
    assert scores["by_frames_seen"]["16"] == scores["accuracy"], "no track is longer"
    first = evaluate_templates(BASELINES["last_frame"], data.first(1), pairs)
    assert scores["by_frames_seen"]["1"] == first["accuracy"]
    clean = evaluate_templates(BASELINES["mean"], toy(40, bad_share=0.0), pairs)
    assert clean["accuracy"] > scores["accuracy"]


def test_pairs_of_unknown_tracks_and_too_few_people_are_refused() -> None:
    with pytest.raises(DataError, match="more people with several tracks"):
        track_pairs(toy(2).tracks)
    data = toy(4)
    two = Pairs((data.tracks.keys[0],) * 2, (data.tracks.keys[1],) * 2, np.ones(2, bool), np.arange(2))
    with pytest.raises(DataError, match="same ones only"):
        verify_templates(data.frames[:, 0], data.tracks, two)


def test_pairs_never_cross_folds() -> None:
    tracks = toy(40).tracks
    pairs = track_pairs(tracks)
    fold_of: dict[str, set[int]] = {}
    for side in (pairs.first, pairs.second):
        for key, fold in zip(side, pairs.fold.tolist(), strict=True):
            fold_of.setdefault(key.split("/")[0], set()).add(fold)
    assert all(len(folds) == 1 for folds in fold_of.values())


@pytest.mark.parametrize("form", ["forward", "prefixes"])
def test_streaming_gap_sees_a_difference(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data, pool = toy(4), TrackPool(16, key_dim=8, num_features=16)
    assert streaming_gap(pool, data) < 1e-5
    right = getattr(TrackPool, form)
    monkeypatch.setattr(TrackPool, form, lambda self, frames, mask=None: right(self, frames.flip(2), mask))
    assert streaming_gap(pool, data) > 0.1


def test_a_pair_is_of_the_kinds_of_its_two_tracks() -> None:
    tracks = Tracks(Records.of((), ()), ("a/0", "a/1", "b/0"), ("a", "a", "b"), np.ones(3, int), ("good", "bad", "bad"))
    pairs = Pairs(("a/0", "a/0", "b/0"), ("a/0", "b/0", "a/1"), np.array([True, False, False]), np.zeros(3, int))
    found = _by_kind(np.array([True, False, True]), tracks, pairs)
    assert {name: row["accuracy"] for name, row in found.items()} == {
        "both_good": 1.0,
        "good_and_bad": 0.0,
        "both_bad": 1.0,
    }


def test_paired_and_over_seeds() -> None:
    gain = paired([0.9, 0.8, 0.7], [0.8, 0.8, 0.5])
    assert gain["accuracy"] == pytest.approx(0.1)
    assert gain["sem"] == pytest.approx(0.1 / 3**0.5)
    row = {"sem": 0.1, "auc": 0.9, "eer": 0.1, "by_frames_seen": {"1": 0.5}}
    content = over_seeds([{"accuracy": 0.8, **row}, {"accuracy": 0.9, **row}])
    assert content["accuracy"] == pytest.approx(0.85)
    assert content["accuracy_spread"] == pytest.approx(0.1 / 2**0.5)
    assert over_seeds([{"accuracy": 0.8, **row}])["accuracy_spread"] == 0


def test_embedding_keeps_tracks_together_and_drops_what_can_not_be_read(tmp_path: Path) -> None:
    tracks = made(3)
    write_images(tracks.frames, tmp_path)
    for name in ("p00/t0/f1.png", *(f"p01/t1/f{f}.png" for f in range(3))):
        (tmp_path / name).write_bytes(b"no image")
    encoder = make()
    data = embed_tracks(encoder, scan_tracks(tmp_path))
    assert "p01/t1" not in data.tracks.keys
    assert data.tracks.lengths.tolist() == data.mask.sum(1).tolist() == [2, 4, 4, 3, 4]
    assert {item.path for item in data.tracks.skipped} >= {"p00/t0/f1.png", "p01/t1/f0.png"}
    alone = encoder.embed([tmp_path / "p02/t1/f2.png"])[0]
    np.testing.assert_allclose(data.frames[4, 2].numpy(), alone, atol=1e-5)


def test_a_pair_of_a_track_that_is_not_there_is_refused() -> None:
    data = toy(4)
    keys = data.tracks.keys
    pairs = Pairs((keys[0], keys[0]), (keys[1], "nobody/t0"), np.array([True, False]), np.arange(2))
    with pytest.raises(DataError, match="first: nobody/t0"):
        verify_templates(data.frames[:, 0], data.tracks, pairs)
