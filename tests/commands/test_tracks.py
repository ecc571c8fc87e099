"""The command ``tracks``: drawn tracks, a folder, named pairs without training, and one clear line for each mistake."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facenet.commands.tracks import TracksOptions, load
from facenet.data.pairs import read_pairs
from facenet.data.records import write_images
from facenet.data.tracks import reported_tracks, scan_tracks, split_tracks
from facenet.encoders.bundle import load_bundle, save_bundle
from facenet.evaluation.verification import verify_pairs
from facenet.options import build
from facenet.tracks.evaluation import BASELINES, evaluate_tracks
from facenet.tracks.options import TrackPoolOptions, TrackTrainingOptions
from facenet.tracks.pool import read_track_pool
from facenet.tracks.training import train_tracks
from tests.helpers.commands import every_fourth, mistaken, succeed
from tests.helpers.encoders import make
from tests.helpers.tracks import made

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


@pytest.mark.slow  # draws and trains; the next test trains on a folder
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
    assert set(BASELINES) | {"track_pool"} <= set(metrics)
    assert (tmp_path / "run" / "track_pool" / "track_pool.safetensors").is_file()


def test_the_command_on_a_folder(encoder: Path, tmp_path: Path) -> None:
    write_images(made(16).frames, tmp_path / "faces")
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
    write_images(tracks.frames, root)
    pool = TrackPoolOptions(key_dim=8, num_features=16)
    few = TrackTrainingOptions(steps=4, check_every=2, identities=16, tracks_each=3, lr=1e-2)
    options = {"pool": pool, "training": few, "seeds": (3, 5), "say": lambda line: None}
    return root, train_tracks(load_bundle(encoder), split_tracks(scan_tracks(root)), encoder.parent, **options)  # type: ignore[arg-type]


@pytest.mark.slow  # two commands; tests/tracks saves and reads a pool in every run
def test_a_saved_pool_scores_as_it_did_when_it_was_trained(
    encoder: Path, trained: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    root, before = trained
    loaded = load_bundle(encoder)
    pool = read_track_pool(encoder.parent / "track_pool", loaded)
    after = evaluate_tracks(loaded, reported_tracks(scan_tracks(root)), tmp_path, pool=pool)
    assert after["tracks"] == {"evaluation": before["tracks"]["evaluation"]}
    assert {name: after[name] for name in BASELINES} == {name: before[name] for name in BASELINES}
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
    assert set(BASELINES) | {"track_pool"} <= set(metrics)
    assert not (tmp_path / "run" / "track_pool").exists()
    frames = {key: load_bundle(encoder).embed([root / key / f"f{f}.png" for f in (0, 1)]) for key in names}
    slow = [((frames[a][:, None] - frames[b][None]) ** 2).sum(2).mean() for a, b, _ in named]
    pairs = read_pairs(tmp_path / "pairs.csv")
    expected = verify_pairs(np.asarray(slow), pairs.same, pairs.fold).auc
    assert metrics["all_frame_pairs"]["auc"] == pytest.approx(expected)


@pytest.fixture(scope="module")
def places(encoder: Path) -> dict[str, Path]:
    """An encoder, folders without tracks, of one person and of several, and pairs of a track that is not there."""
    root = encoder.parent / "places"
    (root / "empty").mkdir(parents=True)
    write_images(made(1).frames, root / "one")
    write_images(made(14).frames, root / "several")
    (root / "wrong").write_text("first,second,same\np00/t0,p00/t1,1\np00/t0,p77/t1,0\n")
    return {"encoder": encoder, **{name: root / name for name in ("empty", "one", "several", "wrong")}}


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    every_fourth(
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
        ]
    ),
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_mistake_is_one_clear_line(
    arguments: list[str],
    code: int,
    says: str,
    places: dict[str, Path],
    tmp_path: Path,
) -> None:
    given = [argument.format(**places) for argument in arguments]
    status, said = mistaken("tracks", *given, out=tmp_path / "run")
    lines = said.strip().splitlines()
    assert (status, len(lines)) == (code, 1), said[-2000:]
    assert lines[0].startswith("error: ")
    assert says in lines[0]


def test_labelled_pairs_of_other_tools_are_read_by_the_names_of_their_columns(
    trained: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    (tmp_path / "pairs.csv").write_text("file_x,file_y,Decision\np00/t0,p00/t1,Yes\np00/t0,p01/t1,No\n")
    columns = {"first": "file_x", "second": "file_y", "same": "Decision"}
    data = {"root": str(trained[0]), "pairs": str(tmp_path / "pairs.csv"), "pair_columns": columns}
    tracks, pairs = load(build(TracksOptions, {"encoder": "e", "train": False, "data": data}))
    assert pairs.same.tolist() == [True, False]
    assert len(tracks) == 3
