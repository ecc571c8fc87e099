from __future__ import annotations

import csv
import dataclasses
import inspect
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from facenet.data.drawn.tracks import draw_splits, draw_tracks
from facenet.data.pairs import read_pairs
from facenet.data.tracks import TrackSplits, reported_tracks, scan_tracks, split_tracks, write_tracks
from facenet.encoders.bundle import load_bundle, save_bundle
from facenet.errors import ConfigError, DataError
from facenet.evaluation.verification import verify_pairs
from facenet.models.track_pool import TrackPool
from facenet.tracks.evaluation import FLOORS, evaluate_templates, evaluate_tracks, track_pairs
from facenet.tracks.pool import read_track_pool
from facenet.tracks.training import draw_batch, thin, train_pool, train_tracks
from tests.helpers.commands import mistaken, succeed
from tests.helpers.encoders import make
from tests.helpers.tracks import made, toy

POOL = {"key_dim": 8, "num_features": 16}
SHORT = {"steps": 60, "identities": 16, "tracks_each": 3, "lr": 1e-2, "check_every": 20}


def quiet(line: str) -> None:
    """Say nothing."""


def test_training_beats_the_mean_where_bad_frames_are_alike() -> None:
    held_out, reported = toy(20, seed=1), toy(40, seed=2)
    model, summary = train_pool(toy(40), held_out, pool=POOL, say=quiet, **SHORT)  # type: ignore[arg-type]
    pairs = track_pairs(reported.tracks)
    mean = evaluate_templates(FLOORS["mean"], reported, pairs)
    trained = evaluate_templates(model, reported, pairs)
    assert mean["accuracy"] < 0.93, "the mean is no perfect template here"
    assert trained["accuracy"] > mean["accuracy"] + 0.03
    assert summary["held_out_auc"] > summary["untrained_auc"]
    assert not model.training


def test_the_step_is_chosen_on_held_out_people() -> None:
    """With a learning rate that ruins everything the untrained state is kept."""
    wild = {**SHORT, "lr": 1e3, "steps": 20}
    model, summary = train_pool(toy(20, bad_share=0.0), toy(20, seed=1, bad_share=0.0), pool=POOL, say=quiet, **wild)  # type: ignore[arg-type]
    assert summary["step"] == 0
    fresh = TrackPool(16, **POOL, seed=0)  # type: ignore[arg-type]
    for name, value in fresh.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value)


def test_training_is_a_function_of_the_seed() -> None:
    few = {**SHORT, "steps": 20, "check_every": 20}
    runs = [train_pool(toy(12), toy(12, seed=1), pool=POOL, seed=seed, say=quiet, **few)[0] for seed in (0, 0, 1)]  # type: ignore[arg-type]
    first, again, other = (run.state_dict() for run in runs)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    start, another = (train_pool(toy(12), toy(12, seed=1), pool=POOL, seed=seed, steps=0)[0] for seed in (0, 1))
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


def test_every_option_of_the_command_is_an_argument() -> None:
    from facenet.tracks.options import DrawnTrackOptions, TrackDataOptions, TrackPoolOptions, TrackTrainingOptions

    for node, targets in (
        (TrackTrainingOptions, [train_pool]),
        (TrackPoolOptions, [TrackPool]),
        (DrawnTrackOptions, [draw_tracks, draw_splits]),
        (TrackDataOptions, [split_tracks, reported_tracks]),
    ):
        accepted = {name for target in targets for name in inspect.signature(target).parameters}
        assert {field.name for field in dataclasses.fields(node)} - {"root", "max_frames"} <= accepted


@pytest.mark.parametrize(
    "wrong", [{"least_frames": 0.0}, {"steps": -1}, {"check_every": 0}, {"tracks_each": 1}, {"identities": 1}]
)
def test_wrong_options_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        train_pool(toy(4), toy(4), pool=POOL, **wrong)  # type: ignore[arg-type]


def test_options_are_checked_before_frames_are_embedded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("facenet.tracks.training.embed_tracks", lambda *_: pytest.fail("frames were embedded"))
    good: dict[str, dict[str, object]] = {"pool": POOL, "training": {}}
    for part, wrong in (("pool", {"features": "foo"}), ("training", {"miner": "foo"}), ("training", {"steps": -1})):
        options = {**good, part: {**good[part], **wrong}}
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            train_tracks(SimpleNamespace(dim=16), (), tmp_path, **options)  # type: ignore[arg-type]


def test_people_with_one_track_can_not_train() -> None:
    with pytest.raises(DataError, match="two people with two tracks"):
        train_pool(toy(4, tracks=1), toy(4), pool=POOL)


def test_a_run_reports_every_seed_and_saves_the_one_chosen_on_held_out_people(tmp_path: Path) -> None:
    encoder = make()
    tracks = made(24)
    names = tracks.names
    splits = TrackSplits(*(tracks.of_people(names[start : start + 8]) for start in (0, 8, 16)))
    few = {**SHORT, "steps": 4, "check_every": 2}
    metrics = train_tracks(encoder, splits, tmp_path, pool=POOL, training=few, seeds=(3, 5), say=quiet)
    assert [row["seed"] for row in metrics["track_pool"]["by_seed"]] == [3, 5]
    assert set(metrics["gain_over_mean"]) == {"3", "5"}
    best = max(metrics["track_pool"]["by_seed"], key=lambda row: row["held_out_auc"])
    assert metrics["track_pool"]["saved_seed"] == best["seed"]
    pool = read_track_pool(tmp_path / "track_pool", encoder)
    record = json.loads((tmp_path / "track_pool" / "track_pool.json").read_text())
    assert record["options"] == {**POOL, "seed": best["seed"]}
    assert record["encoder"] == encoder.fingerprint
    assert pool(torch.zeros(1, 2, 16)).shape == (1, 16)
    assert metrics["streaming_gap"] < 1e-4
    with pytest.raises(ConfigError, match="seeds"):
        train_tracks(encoder, splits, tmp_path, pool=POOL, training=few, seeds=())


TINY = [
    "seeds=[0,1]",
    "pool.key_dim=4",
    "pool.num_features=8",
    "training.steps=4",
    "training.check_every=2",
    "training.identities=4",
]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tracks") / "encoder"
    save_bundle(make(), folder)
    return folder


def test_the_command_on_drawn_tracks(encoder: Path, tmp_path: Path) -> None:
    drawn = [
        "drawn.train_identities=6",
        "drawn.held_out_identities=4",
        "drawn.evaluation_identities=6",
        "drawn.tracks=2",
        "drawn.frames=[2,4]",
        "drawn.size=32",
        f"drawn.cache_dir={tmp_path / 'cache'}",
    ]
    metrics = succeed("tracks", f"encoder={encoder}", *drawn, *TINY, out=tmp_path / "run")
    assert metrics["tracks"] == {"train": 12, "held_out": 8, "evaluation": 12}
    assert metrics["streaming_gap"] < 1e-4
    assert set(FLOORS) | {"track_pool"} <= set(metrics)
    assert (tmp_path / "run" / "track_pool" / "track_pool.safetensors").is_file()


def test_the_command_on_a_folder(encoder: Path, tmp_path: Path) -> None:
    write_tracks(made(16), tmp_path / "faces")
    (tmp_path / "faces" / "p00" / "t0" / "f0.png").write_bytes(b"no image")
    metrics = succeed("tracks", f"encoder={encoder}", f"data.root={tmp_path / 'faces'}", *TINY, out=tmp_path / "run")
    assert sum(metrics["tracks"].values()) == 32
    assert metrics["skipped"] == 1
    with (tmp_path / "run" / "skipped.csv").open() as file:
        assert [row["path"] for row in csv.DictReader(file)] == ["p00/t0/f0.png"]


@pytest.fixture(scope="module")
def trained(encoder: Path) -> tuple[Path, dict[str, Any]]:
    """A folder of tracks, ``track_pool`` beside it, and what its training reported."""
    root, tracks = encoder.parent / "faces", made(16)
    write_tracks(tracks, root)
    few = {**SHORT, "steps": 4, "check_every": 2}
    options = {"pool": POOL, "training": few, "seeds": (3, 5), "say": quiet}
    return root, train_tracks(load_bundle(encoder), split_tracks(scan_tracks(root)), encoder.parent, **options)  # type: ignore[arg-type]


def test_a_saved_pool_scores_as_it_did_when_it_was_trained(
    encoder: Path, trained: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    root, before = trained
    loaded = load_bundle(encoder)
    pool = read_track_pool(encoder.parent / "track_pool", loaded)
    after = evaluate_tracks(loaded, reported_tracks(scan_tracks(root)), tmp_path, pool=pool)
    assert after["tracks"] == {"evaluation": before["tracks"]["evaluation"]}
    assert {name: after[name] for name in FLOORS} == {name: before[name] for name in FLOORS}
    saved = next(row for row in before["track_pool"]["by_seed"] if row["seed"] == before["track_pool"]["saved_seed"])
    assert after["track_pool"]["folds"] == saved["folds"]
    assert after["gain_over_mean"]["track_pool"] == saved["gain"]
    assert after["streaming_gap"] < 1e-4
    assert (tmp_path / "skipped.csv").is_file()


def test_the_command_scores_named_pairs_without_training(
    encoder: Path, trained: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    root, _ = trained
    names = [f"p{i:02d}/t{t}" for i in range(4) for t in range(2)]
    named = [(a, b, i // 2 % 2) for i, a in enumerate(names) for b in names[i + 1 :]]
    lines = [f"{a},{b},{int(a[:3] == b[:3])},{fold}" for a, b, fold in named]
    (tmp_path / "pairs.csv").write_text("\n".join(["first,second,same,fold", *lines]))
    pool = f"track_pool={encoder.parent / 'track_pool'}"
    where = [f"encoder={encoder}", "train=false", f"data.root={root}", f"data.pairs={tmp_path / 'pairs.csv'}", pool]
    metrics = succeed("tracks", *where, "data.max_frames=2", out=tmp_path / "run")
    assert (metrics["pairs"], metrics["tracks"], metrics["frames"]) == (28, {"evaluation": 8}, {"evaluation": 16})
    assert set(FLOORS) | {"track_pool"} <= set(metrics)
    assert not (tmp_path / "run" / "track_pool").exists()
    frames = {key: load_bundle(encoder).embed([root / key / f"f{f}.png" for f in (0, 1)]) for key in names}
    slow = [((frames[a][:, None] - frames[b][None]) ** 2).sum(2).mean() for a, b, _ in named]
    pairs = read_pairs(tmp_path / "pairs.csv")
    expected = verify_pairs(np.asarray(slow), pairs.same, pairs.fold).auc
    assert metrics["all_frame_pairs"]["auc"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["encoder={encoder}", "data.root={one}"], 3, "one identity only"),
        (["encoder={encoder}", "data.root={empty}"], 3, "no usable image"),
        (["encoder={encoder}", "data.root=/nowhere"], 3, "/nowhere: no such folder"),
        (["encoder={empty}"], 3, "encoder.json"),
        ([], 2, "encoder=..."),
        (["encoder={encoder}", "track_pool={empty}"], 2, "train=false"),
        (["encoder={encoder}", "train=false", "track_pool={empty}"], 3, "track_pool.json"),
        (["encoder={encoder}", "train=false", "data.root={several}", "data.pairs={wrong}"], 3, "first: p77/t1"),
        (["encoder={encoder}", "train=false", "data.root={several}", "data.max_frames=0"], 2, "data.max_frames"),
        (["encoder={encoder}", "drawn.damage=2"], 2, "damage"),
        (["encoder={encoder}", "seeds=[-1]"], 2, "seeds"),
        (["encoder={encoder}", "pool.key_dim=0"], 2, "pool.key_dim"),
        (["encoder={encoder}", "training.stepps=2"], 2, "did you mean 'steps'"),
        (["encoder={encoder}", "data.root={several}", "training.miner=semihard"], 2, "did you mean 'semi_hard'"),
        (["encoder={encoder}", "data.root={several}", "pool.features=elou"], 2, "did you mean 'elu'"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_mistake_is_one_clear_line(arguments: list[str], code: int, says: str, encoder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write_tracks(made(1), tmp_path / "one")
    write_tracks(made(14), tmp_path / "several")
    (tmp_path / "wrong").write_text("first,second,same\np00/t0,p00/t1,1\np00/t0,p77/t1,0\n")
    places = {
        "encoder": encoder,
        "wrong": tmp_path / "wrong",
        **{name: tmp_path / name for name in ("empty", "one", "several")},
    }
    given = [argument.format(**places) for argument in arguments]
    status, said = mistaken("tracks", *given, out=tmp_path / "run")
    lines = said.strip().splitlines()
    assert (status, len(lines)) == (code, 1), said[-2000:]
    assert lines[0].startswith("error: ")
    assert says in lines[0]
