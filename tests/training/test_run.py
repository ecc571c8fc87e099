"""A whole run on drawn faces, small enough for a test: what it writes, and that the parts fit together."""

from __future__ import annotations

import csv
import functools
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image

from facenet.console import plain, write_metrics
from facenet.data.align_folder import align_folder
from facenet.data.degradations import plan
from facenet.data.options import DataOptions
from facenet.data.pair_folds import held_out_pairs
from facenet.data.pairs import pair_rows, read_pairs
from facenet.data.preprocess import Preprocess
from facenet.data.sources.folder import scan_folder
from facenet.data.splits import split_faces
from facenet.encoders.bundle import load_bundle, save_bundle
from facenet.encoders.embedding import embed_records
from facenet.encoders.encoder import Encoder
from facenet.errors import ConfigError, DataError
from facenet.evaluation import evaluate
from facenet.evaluation.degradation import degrade
from facenet.faces.alignment import Alignment
from facenet.models.build import build_model, build_recorded
from facenet.models.options import AttentionOptions, ModelOptions, recorded_options
from facenet.options import build, to_dict
from facenet.training import run_folder
from facenet.training.build import check_options
from facenet.training.module import TripletModule
from facenet.training.options import TrainOptions
from facenet.training.run import train
from facenet.training.start import take_net
from facenet.training.verdict import compare
from facenet.types import EmbeddingSet
from tests.helpers.nets import mbf_weights
from tests.helpers.training import SYNTHETIC, small_options


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def run(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("run")
    return out, train(small_options(cache), out)


def test_the_faces_have_a_seed_of_their_own(cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[int] = []

    def divide(options: DataOptions, **_: Any) -> None:
        asked.append(options.seed)
        raise DataError("enough")

    monkeypatch.setattr("facenet.training.faces.split_faces", divide)
    with pytest.raises(DataError, match="enough"):
        train(small_options(cache, seed=7, data={"seed": 2}), tmp_path)
    assert asked == [2]


def test_a_run_leaves_everything_behind(run: tuple[Path, dict[str, Any]]) -> None:
    out, metrics = run
    assert {p.name for p in out.iterdir()} >= {"encoder", "checkpoints", "logs", "skipped.csv"}
    assert {p.name for p in (out / "checkpoints").iterdir()} == {
        f"{name}.ckpt{suffix}" for name in ("best", "last") for suffix in ("", ".sha256")
    }
    assert metrics["train"]["steps"] == 8
    assert metrics["train"]["faces_seen"] == 8 * 24
    assert metrics["held_out"]["step"] in (4, 8)
    assert 0 <= metrics["verification"]["accuracy"] <= 1
    with (out / "logs" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    logged = {
        "loss",
        "active",
        "hard",
        "dist/positive",
        "dist/negative",
        "grad_norm",
        "lr",
        "val_accuracy",
        "val_spread",
    }
    assert logged <= set(rows[0])
    assert any(row["grad_norm"] for row in rows)
    assert list((out / "logs").glob("events.out.tfevents.*"))


def test_the_encoder_is_the_best_checkpoint(run: tuple[Path, dict[str, Any]], cache: Path) -> None:
    out, metrics = run
    encoder = load_bundle(out / "encoder")
    content = torch.load(out / "checkpoints" / "best.ckpt", weights_only=True)
    for key, value in encoder.model.state_dict().items():
        assert torch.equal(value, content["state_dict"][f"model.{key}"])
    assert encoder.training["best"]["step"] == metrics["held_out"]["step"]
    assert [record["role"] for record in encoder.training["people"]] == ["train", "held_out"]
    assert encoder.training["people"][0]["count"] == metrics["train"]["identities"]
    assert metrics["leakage"]["shared_people"] == metrics["leakage"]["shared_held_out"] == 0
    kept = EmbeddingSet.load(out / "evaluation")
    assert kept.fingerprint == encoder.fingerprint
    assert len(read_pairs(out / "evaluation" / "pairs.csv")) == metrics["verification"]["pairs"]
    assert len(np.load(out / "evaluation" / "thumbnails.npy")) == len(kept)
    assert {f"{far:g}" for far in encoder.thresholds} == set(metrics["thresholds"])
    splits = split_faces(small_options(cache).data)
    vectors = embed_records(encoder, splits.evaluation)[0].vectors
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_init_starts_from_an_encoder(run: tuple[Path, dict[str, Any]], cache: Path, tmp_path: Path) -> None:
    frozen = {"optim": {"lr": 1e-12}, "init": str(run[0] / "encoder"), "trainer": {"max_steps": 1}}
    train(small_options(cache, **frozen), tmp_path)
    old, new = load_bundle(run[0] / "encoder").model, load_bundle(tmp_path / "encoder").model
    for before, after in zip(old.parameters(), new.parameters(), strict=True):
        torch.testing.assert_close(after, before, atol=1e-8, rtol=0)
    earlier, people = (load_bundle(at / "encoder").training["people"] for at in (run[0], tmp_path))
    assert people[2:] == earlier, "whom the first encoder was trained on is not forgotten"


def test_init_starts_from_a_file_of_weights(cache: Path, tmp_path: Path) -> None:
    weights = mbf_weights()
    torch.save(weights, tmp_path / "backbone.pth")
    options = replace(
        small_options(cache, trainer={"max_steps": 1, "val_check_interval": 1}, optim={"lr": 1e-9, "warmup_steps": 0}),
        init=str(tmp_path / "backbone.pth"),
        model=ModelOptions(),
    )
    train(options, tmp_path / "run")
    encoder = load_bundle(tmp_path / "run" / "encoder")
    assert (encoder.name, encoder.dim, encoder.options["input_size"]) == ("mbf", 512, [112, 112])
    kernel = encoder.model.state_dict()["stages.conv1.conv.weight"]
    torch.testing.assert_close(kernel, weights["layers.0.layers.0.weight"], atol=1e-6, rtol=0)
    with pytest.raises(
        DataError, match=r"init=.*gone\.pth: no such encoder folder or file of weights; by name .*sface"
    ):
        take_net(replace(options, init=str(tmp_path / "gone.pth")))


def test_fine_tuning_that_does_not_help_is_refused(
    run: tuple[Path, dict[str, Any]], cache: Path, tmp_path: Path
) -> None:
    frozen: dict[str, Any] = {"optim": {"lr": 1e-12, "freeze_norms": True}, "trainer": {"max_steps": 1}}
    frozen |= {"init": str(run[0] / "encoder"), "gate": True}
    start = train(small_options(cache, **frozen), tmp_path / "run")["start"]
    assert not start["helped"]
    assert start["difference"] == pytest.approx(0, abs=1e-6)
    assert start["auc"] == pytest.approx(run[1]["verification"]["auc"], abs=1e-6)
    assert not (tmp_path / "run" / "encoder").exists()
    assert load_bundle(tmp_path / "run" / "encoder_refused").thresholds
    train(small_options(cache, **frozen), tmp_path / "run")  # again, where one was refused before
    assert not (tmp_path / "run" / "encoder").exists()
    for init in (None, "timm"):
        with pytest.raises(ConfigError, match="gate: it compares with what the run starts from"):
            take_net(small_options(cache, **{**frozen, "init": init}))


def test_fine_tuning_under_degradations_is_judged_under_them(
    run: tuple[Path, dict[str, Any]], cache: Path, tmp_path: Path
) -> None:
    levels = {"noise": [20], "blur": [2, 8], "pixels": [10**6]}  # so many pixels change nothing
    degraded: dict[str, Any] = {"degrade": 0.5, "kinds": list(levels), "levels": levels}
    frozen: dict[str, Any] = {"optim": {"lr": 1e-12, "freeze_norms": True}, "trainer": {"max_steps": 1}}
    options = small_options(cache, init=str(run[0] / "encoder"), augment=degraded, **frozen)
    start = train(options, tmp_path / "run")["start"]
    faces = split_faces(options.data)
    assert faces.pairs is not None
    changes = plan(["noise", "blur"], levels)
    encoder = load_bundle(run[0] / "encoder")
    measured = degrade(encoder, faces.evaluation, faces.pairs, changes)["degrade"]
    found = start["degraded"]["levels"]
    assert {kind: set(levels) for kind, levels in found.items()} == {"noise": {"20"}, "blur": {"2", "8"}}
    pairs = [(row, measured[kind][level]) for kind, levels in found.items() for level, row in levels.items()]
    assert [row["auc"] for row, _ in pairs] == pytest.approx([scores["auc"] for _, scores in pairs], abs=1e-6)
    assert start["degraded"]["auc"] == pytest.approx(np.mean([row["auc"] for row, _ in pairs]))
    assert (start["degraded"]["difference"], start["helped"]) == (pytest.approx(0, abs=1e-6), False)

    untrained = Encoder(build_model("small", **encoder.options), "small", encoder.options, encoder.preprocess)
    clean = EmbeddingSet.load(run[0] / "evaluation")
    shuffled = replace(clean, vectors=np.roll(clean.vectors, 7, axis=0))
    for vectors, helped in ((clean, True), (shuffled, False)):  # a sure gain, but not at the price of clean pairs
        beside = compare(untrained, encoder, faces.evaluation, faces.pairs, vectors, changes[:2])
        assert beside["degraded"]["low"] > 0
        assert beside["helped"] is helped


def test_the_embedding_layer_learns_alone_first_and_batch_norm_stays(
    run: tuple[Path, dict[str, Any]], cache: Path, tmp_path: Path
) -> None:
    tuned = {"lr": 1e-3, "warmup_steps": 0, "weight_decay": 0.0, "freeze_norms": True, "stage_decay": 0.5}
    start = load_bundle(run[0] / "encoder").model.state_dict()
    for share, learned in ((1.0, {"embedding"}), (0.0, {"embedding", "stages"})):
        options = {"init": str(run[0] / "encoder"), "optim": {**tuned, "embedding_first": share}}
        metrics = train(
            small_options(cache, **options, trainer={"max_steps": 2, "val_check_interval": 2}), tmp_path / str(share)
        )
        after = load_bundle(tmp_path / str(share) / "encoder").model.state_dict()
        moved = {name for name, value in after.items() if not torch.equal(value, start[name])}
        assert {name.partition(".")[0] for name in moved} == learned
        assert not any(".norm." in name for name in moved)
        assert set(metrics["start"]) == {"auc", "difference", "low", "high", "helped"}


def test_init_brings_its_net(tmp_path: Path) -> None:
    torch.manual_seed(0)
    attention = {"after": "inception_3a", "features": "sincos", "num_features": 8, "heads": 2}
    given: dict[str, Any] = {"embedding_dim": 24, "norm": "lrn", "dropout": 0.1, "attention": attention, "edition": 1}
    model = build_model("small", **given, input_size=(32, 32))
    recorded = {key: value for key, value in given.items() if key != "edition"}  # as before there were editions
    save_bundle(Encoder(model, "small", {**recorded, "input_size": [32, 32]}, Preprocess(size=(32, 32))), tmp_path)
    net = take_net(TrainOptions(init=str(tmp_path))).model
    assert (net.embedding_dim, net.norm, net.input_size, net.dropout, net.edition) == (24, "lrn", (32, 32), 0.1, 1)
    assert net.attention == AttentionOptions(**attention)
    model.load_state_dict(build_recorded(**recorded_options(to_dict(net))).state_dict())
    free = take_net(TrainOptions(init=str(tmp_path), model={"dropout": 0.5, "input_size": [64, 64]})).model
    assert (free.dropout, free.input_size) == (0.5, (64, 64))
    for other, message in (
        ({"name": "nn4"}, "has model.name=small, this run asks for nn4"),
        ({"embedding_dim": 8}, "has model.embedding_dim=24, this run asks for 8; leave model.embedding_dim out"),
        ({"attention": {"heads": 8}}, r"has model\.attention\.heads=2, this run asks for 8"),
    ):
        with pytest.raises(ConfigError, match=message):
            train(build(TrainOptions, {"init": str(tmp_path), "model": other}), tmp_path / "run")
    assert take_net(TrainOptions()) == TrainOptions()
    default = TrainOptions(init=str(tmp_path))
    assert take_net(default, given=["model.name", "model.dropout"]).model.dropout == default.model.dropout != 0.1
    with pytest.raises(ConfigError, match=r"has model\.norm=lrn, this run asks for batch"):
        train(default, tmp_path / "run", given=["model.norm"])


class Killed(Exception):
    """What a test raises where a process would end."""


class Kill(pl.Callback):
    """Raise where a batch begins."""

    def __init__(self, batch: int) -> None:
        self.batch = batch

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == self.batch:
            raise Killed


@pytest.mark.slow  # four trainings; test_stop.py resumes a run in every run
def test_a_resumed_run_is_the_uninterrupted_one_to_the_bit(cache: Path, tmp_path: Path) -> None:
    """After a step of several batches was cut: the checkpoint is that of an earlier step."""
    changes: dict[str, Any] = {
        "model": {"dropout": 0.3},
        "optim": {"accumulate": 2},
        "large_batch": {"chunk_size": 9},
        "trainer": {"max_steps": 4, "val_check_interval": 2},
        "resume": "auto",
    }
    options = small_options(cache, **changes)
    whole = train(options, tmp_path / "whole", say=lambda line: None)
    with pytest.raises(Killed):
        train(options, tmp_path / "cut", say=lambda line: None, callbacks=[Kill(5)])
    lines: list[str] = []
    reads: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        load = torch.load
        patch.setattr(torch, "load", lambda path, **known: (reads.append(Path(path).name), load(path, **known))[1])
        again = train(options, tmp_path / "cut", say=lines.append)
    assert any("resuming from" in line for line in lines)
    assert reads == ["last.ckpt", "best.ckpt"], "one to go on from, one for the encoder, each read once"
    first, second = (
        torch.load(tmp_path / run / "checkpoints" / "last.ckpt", weights_only=True) for run in ("whole", "cut")
    )
    assert first["global_step"] == second["global_step"] == 4
    for key in first["state_dict"]:
        assert torch.equal(first["state_dict"][key], second["state_dict"][key]), key
    for part in ("held_out", "thresholds", "verification"):
        assert whole[part] == again[part]
    for key in ("steps", "faces_seen", "first_loss", "last_loss"):
        assert whole["train"][key] == again["train"][key]
    assert whole["train"]["faces_seen"] == 4 * 2 * 24


def test_a_run_goes_on_only_with_its_own_options(run: tuple[Path, dict[str, Any]], cache: Path) -> None:
    again = train(small_options(cache, resume="auto"), run[0], say=lambda line: None)  # it was at its end
    assert again["verification"] == run[1]["verification"]
    assert again["train"]["last_loss"] == run[1]["train"]["last_loss"] is not None
    with pytest.raises(ConfigError, match=r"made with other options \(loss\.margin: 0\.2 then, 0\.3 now\); use the"):
        train(small_options(cache, resume="auto", loss={"margin": 0.3}), run[0], say=lambda line: None)


def test_a_finished_run_is_kept(
    run: tuple[Path, dict[str, Any]], cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    shutil.copytree(run[0], out)
    write_metrics(out, run[1])  # as a command does
    lines: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr("facenet.training.faces.split_faces", lambda *_, **__: pytest.fail("it runs again"))
        assert train(small_options(cache, resume="auto"), out, say=lines.append) == plain(run[1])
        assert lines == [f"finished before, with these options: {out / 'metrics.json'} is kept"]
        for changes, text in (
            ({"sampler": {"batch_size": 12}}, r"sampler\.batch_size: 24 then, 12 now"),
            ({"data": {"train_share": 0.5}}, r"data\.train_share: 1\.0 then, 0\.5 now"),
        ):
            with pytest.raises(ConfigError, match=rf"{out} was made with other options \({text}\)"):
                train(small_options(cache, resume="auto", **changes), out)
    train(small_options(cache, trainer={"max_steps": 1}), out, say=lambda line: None)  # not asked to resume
    assert not (out / "metrics.json").exists(), "what it said is no longer so"
    (out / "metrics.json").write_text("{}")
    assert train(small_options(cache, resume="auto", trainer={"max_steps": 1}), out, say=lines.append) == {}


def test_a_run_says_which_point_of_a_table_it_is(run: tuple[Path, dict[str, Any]], cache: Path, tmp_path: Path) -> None:
    point = {"model": "small", "embedding_dim": 16, "seed": 0, "input_size": [32, 32], "batch_size": 24}
    assert run[1]["run"] == {**point, "table": None, "scale": None, "train_share": 1.0, "fold": None}
    names = {"table": "table6", "scale": {"name": "synthetic"}, "data": {"train_share": 0.5}}
    again = train(small_options(cache, **names, trainer={"max_steps": 1}), tmp_path, say=lambda line: None)
    assert again["run"] == {**run[1]["run"], "table": "table6", "scale": "synthetic", "train_share": 0.5}
    assert run[1]["train"]["images"] / 2 <= again["train"]["images"] < run[1]["train"]["images"]


def test_view2_opens_the_held_fold_last_and_scores_it_once(
    view2_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every image that is opened is noted; those of the held fold come after checkpoint and threshold were chosen."""
    opened: list[str] = []
    face, best, score = Preprocess.face, evaluate.best_threshold, evaluate.score_at

    def noted(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *arguments: (opened.append(name), call(*arguments))[1]

    def noted_face(self: Preprocess, source: Any, *rest: Any) -> Any:
        opened.append(Path(source).stem)
        return face(self, source, *rest)

    monkeypatch.setattr(Preprocess, "face", noted_face)
    monkeypatch.setattr(evaluate, "best_threshold", noted("threshold", best))
    monkeypatch.setattr(evaluate, "score_at", noted("score", score))
    data = {"kind": "lfw", "root": str(view2_root), "people": "people.txt", "pairs": "pairs.txt", "fold": 3}
    metrics = train(small_options(tmp_path, data={**data, "held_out": 0.2}), tmp_path / "run", say=lambda line: None)
    held = {f"p{i:03d}_{j:04d}" for i in range(12, 18) for j in (1, 2, 3)}
    chosen, scored = opened.index("threshold"), opened.index("score")
    assert not held & set(opened[:chosen])
    assert sorted(opened[chosen + 1 : scored]) == sorted(held), "each image of its pairs once"
    assert opened[scored:] == ["score"]
    assert len(set(opened[:chosen])) == 54 * 3, "everybody else was of use"
    found = metrics["verification"]
    assert set(found) == {"accuracy", "correct", "pairs", "same", "different", "threshold", "auc", "eer"}
    assert (found["pairs"], found["same"], found["different"]) == (12, 6, 6)
    assert metrics["run"]["fold"] == 3
    encoder = load_bundle(tmp_path / "run" / "encoder")
    splits = split_faces(DataOptions(**data, held_out=0.2))
    pairs = held_out_pairs(splits.held_out, 0)
    vectors = embed_records(encoder, splits.held_out)[0].vectors
    first, second, _ = pair_rows(pairs, splits.held_out.keys)
    distances = ((vectors[first] - vectors[second]) ** 2).sum(1)
    right = [float(np.mean((distances <= t) == pairs.same)) for t in (found["threshold"], *distances)]
    assert right[0] >= max(right) - 1e-9, "no threshold is better on the held-out people"


@pytest.mark.slow  # three trainings; one step is compared below in every run
def test_accumulated_batches_and_chunks_train(cache: Path, tmp_path: Path) -> None:
    """A step of two batches in chunks is the mean of their gradients, clipped."""
    taken: list[tuple[float, float]] = []

    class Watch(TripletModule):
        def on_before_optimizer_step(self, optimizer: Any) -> None:
            before = torch.nn.utils.get_total_norm([p.grad for p in self.parameters() if p.grad is not None])
            super().on_before_optimizer_step(optimizer)
            after = torch.nn.utils.get_total_norm([p.grad for p in self.parameters() if p.grad is not None])
            taken.append((float(before), float(after)))

    chunked = {"large_batch": {"chunk_size": 8}, "optim": {"accumulate": 2, "clip_norm": 0.01}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("facenet.training.build.TripletModule", Watch)
        metrics = train(small_options(cache, **chunked, trainer={"max_steps": 3}), tmp_path, say=lambda line: None)
    assert metrics["train"]["steps"] == 3
    assert metrics["train"]["faces_seen"] == 3 * 2 * 24
    assert metrics["train"]["chunk_size"] == 8
    assert len(taken) == 3
    for before, after in taken:
        assert before > 0.011
        assert after == pytest.approx(0.01, rel=1e-3)


def test_a_step_of_two_equal_batches_is_the_step_of_one(cache: Path, tmp_path: Path) -> None:
    """Plain gradient descent shows the size of a gradient, which AdamW hides."""
    weights = []
    for accumulate in (1, 2):
        changes = {
            "loader": {"repeat_batch": True},
            "optim": {"name": "sgd", "lr": 0.1, "momentum": 0.0, "warmup_steps": 0, "accumulate": accumulate},
            "trainer": {"max_steps": 1, "val_check_interval": 1},
        }
        out = tmp_path / str(accumulate)
        metrics = train(small_options(cache, **changes), out, say=lambda line: None)
        weights.append(load_bundle(out / "encoder").model.state_dict())
        assert metrics["train"]["first_loss"] > 0.05
    moved = 0
    for key, value in weights[0].items():
        if "running" not in key and "num_batches" not in key:
            torch.testing.assert_close(weights[1][key], value, atol=1e-6, rtol=1e-4, msg=key)
            moved += 1
    assert moved > 10


@pytest.mark.slow  # fifty steps
def test_overfitting_one_batch_lowers_its_loss(cache: Path, tmp_path: Path) -> None:
    changes = {
        "loader": {"repeat_batch": True},
        "augment": {"enabled": False},
        "mining": {"fallback": "nearest_beyond"},
        "optim": {"schedule": "constant", "lr": 3e-3},
        "trainer": {"max_steps": 20, "val_check_interval": 20},
    }
    metrics = train(small_options(cache, **changes), tmp_path)["train"]
    assert metrics["first_loss"] > 0.05
    assert metrics["last_loss"] < 0.1 * metrics["first_loss"]


@pytest.mark.slow  # dynamo
def test_a_compiled_half_precision_run_leaves_an_encoder_that_loads(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    settings = {"max_steps": 2, "val_check_interval": 2, "precision": "bf16-mixed", "channels_last": False}
    train(small_options(cache, trainer={**settings, "compile": True}), tmp_path / "run", say=lambda line: None)
    encoder = load_bundle(tmp_path / "run" / "encoder")
    assert all(tensor.dtype != torch.bfloat16 for tensor in encoder.model.state_dict().values())
    init = small_options(
        cache, init=str(tmp_path / "run" / "encoder"), trainer={"max_steps": 2, "val_check_interval": 2}
    )
    train(init, tmp_path / "again", say=lambda line: None)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"model": {"pool": "averge"}}, r"model\.pool: unknown name 'averge' \(did you mean 'average'\?\)"),
        ({"model": {"attention": {"after": "inception_9"}}}, r"model\.attention\.after: unknown name"),
        ({"model": {"input_size": [8, 8]}}, r"input_size|size"),
        ({"trainer": {"extra": {"max_epochs": 3}}}, r"trainer\.extra\.max_epochs: use trainer\.max_steps"),
        ({"trainer": {"extra": {"benchmrk": True}}}, r"trainer\.extra\.benchmrk: .*did you mean 'benchmark'"),
    ],
    ids=["pool", "attention", "size", "contradiction", "unknown"],
)
def test_what_can_not_be_fails_before_the_data_is_read(wrong: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        check_options(small_options(tmp_path, **wrong))


@pytest.mark.slow  # two trainings on photographs
def test_faces_aligned_in_training_or_before_it_give_the_same_encoder(
    cache: Path, tmp_path: Path, portrait: Image.Image
) -> None:
    """From photos with `data.align`, or from the folder that facenet align made of them: to the bit."""
    photos, faces = tmp_path / "photos", tmp_path / "faces"
    for i in range(14):
        (photos / f"p{i:02d}").mkdir(parents=True)
        for j in range(3):
            tinted = Image.blend(
                portrait.resize((102, 120)), Image.new("RGB", (102, 120), (18 * i, 250 - 18 * i, 99)), 0.3
            )
            tinted.rotate(6 * j).save(photos / f"p{i:02d}" / f"{j}.png")
    align = Alignment(size=60, margin=1.6)
    assert align_folder(scan_folder(photos), faces, align, kind="png")["found"] == 1.0
    data = {"kind": "folder", "crop": 0.7, "cache_dir": None}
    small = {
        "sampler": {"batch_size": 12, "faces_per_identity": 3},
        "trainer": {"max_steps": 2, "val_check_interval": 2},
    }
    train(small_options(cache, data={**data, "root": str(photos), "align": align.to_dict()}, **small), tmp_path / "a")
    train(small_options(cache, data={**data, "root": str(faces)}, **small), tmp_path / "b")
    first, second = (load_bundle(tmp_path / run / "encoder") for run in "ab")
    assert first.preprocess.align == align
    assert first.fingerprint == second.fingerprint
    one = photos / "p03" / "1.png"
    aligned = embed_records(first, scan_folder(faces))[0]
    np.testing.assert_allclose(first.embed([one])[0], aligned.vectors[aligned.paths.index("p03/1.png")], atol=1e-6)


HARMONIC = {
    "method": "harmonic",
    "slots": ["nnn", "nno", "non", "noo", "onn", "ono", "oon"],
    "own_positive": True,
    "embedding_share": 0.5,
    "weight": 1.0,
}


@pytest.mark.slow  # four trainings
def test_harmonic_training_keeps_the_old_embeddings_and_resumes_to_the_bit(
    run: tuple[Path, dict[str, Any]], cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From an encoder; in its first stage the embedding layer alone moves, from a beginning of its own."""
    old = run[0] / "encoder"
    options = small_options(
        cache,
        harmonic={**HARMONIC, "old": str(old)},
        init=str(old),
        loader={"cache_dir": str(tmp_path / "c")},
        trainer={"max_steps": 6, "val_check_interval": 2},
        resume="auto",
    )
    seen: list[dict[str, torch.Tensor]] = []
    step = TripletModule.training_step

    def watched(self: TripletModule, batch: Any, batch_idx: int) -> None:
        assert len(batch) == 3
        torch.testing.assert_close(batch[2].norm(dim=1), torch.ones(24))
        seen.append({name: weight.detach().clone() for name, weight in self.model.state_dict().items()})
        step(self, batch, batch_idx)

    monkeypatch.setattr(TripletModule, "training_step", watched)
    whole = train(options, tmp_path / "whole", say=lambda line: None)
    start = load_bundle(old).model.state_dict()
    trunk = [name for name in start if not name.startswith("embedding.")]
    assert all(torch.equal(seen[3][name], start[name]) for name in trunk), "three steps of the embedding layer alone"
    assert not torch.equal(seen[0]["embedding.weight"], start["embedding.weight"])
    assert not torch.equal(seen[1]["embedding.weight"], seen[0]["embedding.weight"])
    assert sum(not torch.equal(seen[5][name], start[name]) for name in trunk) > 10
    reported = EmbeddingSet.load(tmp_path / "whole" / "evaluation")
    before = EmbeddingSet.load(tmp_path / "whole" / "old")
    assert before.paths == reported.paths
    assert before.fingerprint == load_bundle(old).fingerprint
    assert whole["train"]["last_loss"] > 0
    with pytest.raises(Killed):
        train(options, tmp_path / "cut", say=lambda line: None, callbacks=[Kill(4)])
    train(options, tmp_path / "cut", say=lambda line: None)
    first, second = (load_bundle(tmp_path / name / "encoder").fingerprint for name in ("whole", "cut"))
    assert first == second


def test_harmonic_training_refuses_another_width(run: tuple[Path, dict[str, Any]], cache: Path, tmp_path: Path) -> None:
    harmonic = {**HARMONIC, "old": str(run[0] / "encoder")}
    with pytest.raises(ConfigError, match=r"have 16 dimensions, this net's have 8; .* set model\.embedding_dim=16"):
        train(small_options(cache, harmonic=harmonic, model={"embedding_dim": 8}), tmp_path, say=lambda line: None)


@pytest.mark.parametrize("method", ["harmonic_l2", pytest.param("none", marks=pytest.mark.slow)])  # one more training
def test_baselines_of_harmonic_training(
    method: str, run: tuple[Path, dict[str, Any]], cache: Path, tmp_path: Path
) -> None:
    """L2 regression comes nearer to its own old embeddings than the control, which never sees them."""
    old = load_bundle(run[0] / "encoder")
    splits = split_faces(build(DataOptions, {"synthetic": SYNTHETIC, "cache_dir": str(cache)}))
    embed_records(old, splits.train)[0].save(tmp_path / "v")
    harmonic = {**HARMONIC, "old": str(tmp_path / "v"), "method": method, "weight": 10.0, "embedding_share": 0.0}
    data = {"trainer": {"max_steps": 12, "val_check_interval": 12}, "data": {"seed": 0}, "optim": {"lr": 3e-3}}
    options = small_options(cache, harmonic=harmonic, seed=1, **data)
    train(options, tmp_path / "run", say=lambda line: None)
    new = load_bundle(tmp_path / "run" / "encoder")
    away = (embed_records(new, splits.train)[0].vectors - EmbeddingSet.load(tmp_path / "v").vectors) ** 2
    assert (away.sum(1).mean() < 0.6) == (method != "none")


def test_virtual_people_train_along(cache: Path, tmp_path: Path) -> None:
    short = {"max_steps": 2, "val_check_interval": 2}
    plain = train(small_options(cache, trainer=short), tmp_path / "plain")
    options = small_options(cache, trainer=short, augment={"virtual": 0.5}, large_batch={"chunk_size": 10})
    metrics = train(options, tmp_path / "virtual")
    assert metrics["train"]["faces_seen"] == 2 * 36
    assert metrics["train"]["first_loss"] > plain["train"]["first_loss"]
    with pytest.raises(ConfigError, match="virtual people are for triplets"):
        train(small_options(cache, augment={"virtual": 0.5}, loss={"name": "softmax"}), tmp_path / "wrong")
    for wrong, said in (({"harmonic": {"old": "sface"}}, "harmonic.old"), ({}, "augment.enabled=false")):
        augment = {"virtual": 0.5, "enabled": bool(wrong)}
        with pytest.raises(ConfigError, match=rf"augment.virtual=0.5: it does not go with {said}"):
            train(small_options(cache, augment=augment, **wrong), tmp_path / "wrong")


def test_two_processes_do_not_train_in_one_folder(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_folder, "PATIENCE", 0.2)
    with run_folder.hold_folder(tmp_path), pytest.raises(DataError, match="another process works in it"):
        train(small_options(cache), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_is_held_for_one_process_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_folder, "PATIENCE", 0.3)
    folder = tmp_path / "run"
    child = "import sys, time; from facenet.training.run_folder import hold_folder\n"
    child += "with hold_folder(sys.argv[1]): print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", child, str(folder)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(DataError, match=r"run: another process works in it"), run_folder.hold_folder(folder):
            pass
        other.kill()
    with run_folder.hold_folder(folder):
        pass
    with pytest.raises(ValueError, match="inside"), run_folder.hold_folder(folder):
        raise ValueError("inside")
    with run_folder.hold_folder(folder):
        assert not list(folder.iterdir())


class Weights(pl.Callback):
    """Keep a copy of the net's weights after each step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, torch.Tensor]] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any, **kwargs: Any) -> None:
        self.steps.append({key: value.clone() for key, value in pl_module.model.state_dict().items()})


def test_an_encoder_has_the_averaged_weights(cache: Path, tmp_path: Path) -> None:
    kept, decay = Weights(), 0.6
    options = small_options(
        cache,
        loss={"name": "joint", "head_weight": 0.5, "head": {"name": "adaface", "centres": 2, "sampled": 4}},
        optim={"ema": decay},
        trainer={"max_steps": 3, "val_check_interval": 3, "monitor": "val_auc"},
    )
    metrics = train(options, tmp_path, callbacks=[kept])
    encoder = load_bundle(tmp_path / "encoder")
    for key, value in encoder.model.state_dict().items():
        if not value.is_floating_point():
            continue
        average = kept.steps[0][key]
        for step in kept.steps[1:]:
            average = decay * average + (1 - decay) * step[key]
        torch.testing.assert_close(value, average, atol=1e-5, rtol=1e-4)
    assert metrics["held_out"].keys() == {"identities", "accuracy", "auc", "step"}
    assert metrics["held_out"]["step"] == 3
