"""Training of TrackPool: it beats the mean, is a function of its seed, and is chosen on held-out people."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from facenet.data.tracks import TrackSplits
from facenet.errors import ConfigError, DataError
from facenet.models.track_pool import TrackPool
from facenet.options import to_dict
from facenet.tracks.evaluation import BASELINES, evaluate_templates, track_pairs
from facenet.tracks.options import TrackPoolOptions, TrackTrainingOptions
from facenet.tracks.pool import read_track_pool
from facenet.tracks.training import draw_batch, thin, train_pool, train_tracks
from tests.helpers.encoders import make
from tests.helpers.tracks import made, toy

POOL = TrackPoolOptions(key_dim=8, num_features=16)
SHORT = TrackTrainingOptions(steps=60, identities=16, tracks_each=3, lr=1e-2, check_every=20)


def quiet(line: str) -> None:
    """Say nothing."""


def test_training_beats_the_mean_where_bad_frames_are_alike() -> None:
    held_out, reported = toy(20, seed=1), toy(40, seed=2)
    model, summary = train_pool(toy(40), held_out, pool=POOL, training=SHORT, say=quiet)
    pairs = track_pairs(reported.tracks)
    mean = evaluate_templates(BASELINES["mean"], reported, pairs)
    trained = evaluate_templates(model, reported, pairs)
    assert mean["accuracy"] < 0.93, "the mean is no perfect template here"
    assert trained["accuracy"] > mean["accuracy"] + 0.03
    assert summary["held_out_auc"] > summary["untrained_auc"]
    assert not model.training


def test_the_step_is_chosen_on_held_out_people() -> None:
    """With a learning rate that ruins everything the untrained state is kept."""
    wild = replace(SHORT, lr=1e3, steps=20)
    kept, held_out = toy(20, bad_share=0.0), toy(20, seed=1, bad_share=0.0)
    model, summary = train_pool(kept, held_out, pool=POOL, training=wild, say=quiet)
    assert summary["step"] == 0
    fresh = TrackPool(16, **to_dict(POOL), seed=0)
    for name, value in fresh.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value)


def test_training_is_a_function_of_the_seed() -> None:
    few = replace(SHORT, steps=20)
    train, held_out = toy(12), toy(12, seed=1)
    runs = [train_pool(train, held_out, pool=POOL, training=few, seed=n, say=quiet)[0] for n in (0, 0, 1)]
    first, again, other = (run.state_dict() for run in runs)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    still = replace(few, steps=1, lr=1e-30)
    start, another = (train_pool(train, held_out, pool=POOL, training=still, seed=n, say=quiet)[0] for n in (0, 1))
    assert not torch.equal(start.query.weight, another.query.weight), "the first weights too"


def test_a_batch_holds_p_people_with_k_tracks() -> None:
    people = [np.arange(3), np.arange(3, 8), np.arange(8, 10)]
    owner = np.repeat([0, 1, 2], [3, 5, 2])
    rng = np.random.default_rng(0)
    for _ in range(20):
        rows = draw_batch(people, 2, 3, rng)
        assert len(set(rows.tolist())) == len(rows)
        names, counts = np.unique(owner[rows], return_counts=True)
        assert len(names) == 2
        assert all(count == (2 if name == 2 else 3) for name, count in zip(names, counts, strict=True))


def test_thinning_keeps_frames_that_are_there_and_one_at_least() -> None:
    data = toy(60)
    rng = np.random.default_rng(0)
    kept = thin(data.mask, 0.25, rng)
    assert not (kept & ~data.mask).any()
    assert kept.any(1).all()
    assert 0.5 < kept.sum() / data.mask.sum() < 0.75
    torch.testing.assert_close(thin(data.mask, 1.0, rng), data.mask)
    bare = thin(data.mask, 1e-9, np.random.default_rng(1))
    assert bare.any(1).all()


def test_names_are_checked_before_frames_are_embedded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("facenet.tracks.training.embed_tracks", lambda *_: pytest.fail("frames were embedded"))
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("features", {"pool": replace(POOL, features="foo")}),
        ("miner", {"training": replace(SHORT, miner="foo")}),
        ("select", {"training": replace(SHORT, select="foo")}),
        ("seeds", {"seeds": ()}),
        ("seeds", {"seeds": (0, -1)}),
    ]
    for name, options in wrong:
        with pytest.raises(ConfigError, match=name):
            train_tracks(SimpleNamespace(dim=16), (), tmp_path, **options)  # type: ignore[arg-type]


def test_people_with_one_track_can_not_train() -> None:
    with pytest.raises(DataError, match="two people with two tracks"):
        train_pool(toy(4, tracks=1), toy(4), pool=POOL)


def test_a_run_reports_every_seed_and_saves_the_one_chosen_on_held_out_people(tmp_path: Path) -> None:
    encoder = make()
    tracks = made(24)
    names = tracks.names
    splits = TrackSplits(*(tracks.of_people(names[start : start + 8]) for start in (0, 8, 16)))
    few = replace(SHORT, steps=4, check_every=2)
    metrics = train_tracks(encoder, splits, tmp_path, pool=POOL, training=few, seeds=(3, 5), say=quiet)
    assert [row["seed"] for row in metrics["track_pool"]["by_seed"]] == [3, 5]
    assert set(metrics["gain_over_mean"]) == {"3", "5"}
    best = max(metrics["track_pool"]["by_seed"], key=lambda row: row["held_out_auc"])
    assert metrics["track_pool"]["saved_seed"] == best["seed"]
    pool = read_track_pool(tmp_path / "track_pool", encoder)
    record = json.loads((tmp_path / "track_pool" / "track_pool.json").read_text())
    assert record["options"] == {**to_dict(POOL), "seed": best["seed"], "bounded": True}
    assert record["encoder"] == encoder.fingerprint
    assert pool(torch.zeros(1, 2, 16)).shape == (1, 16)
    assert metrics["streaming_gap"] < 1e-4
