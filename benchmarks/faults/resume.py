"""Faults of training: processes killed, commands stopped. A resumed run must end where an uninterrupted run does.

Runs are small: drawn faces of 32 pixels, dropout, random augmentation, chunks. Some are cut at a batch, in training or
in a validation: SIGKILL or SIGTERM by turns goes to a process of their own. Others are the command, stopped at any
time. Weights, optimiser, schedule, encoder and all metrics except times are compared to the bit.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from benchmarks.faults.checkpoints import Child
from benchmarks.faults.options import ResumeFaults
from benchmarks.resources import environment
from facenet.console import write_metrics
from facenet.errors import DataError
from facenet.files import read_json, sha256_file
from facenet.options import build
from facenet.training.checkpoints import AtomicCheckpointIO
from facenet.training.options import TrainOptions
from facenet.training.run import train

STEPS, EVERY, COMMAND_STEPS = 6, 2, 30
KINDS = [(0, 2), (2, 1), (0, 1), (2, 2)]  # workers, accumulated batches
SIGNALS = (signal.SIGKILL, signal.SIGTERM)
TIMES = ("seconds", "images_per_second")
COMMAND = Path(__file__).resolve().parents[2] / "scripts" / "train.py"
MARK = "FACENET_FAULTS"  # environment variable that marks the processes of a command


def run(
    counts: ResumeFaults,
    *,
    folder: str = "",
    temporary: str = "",
    seed: int = 0,
    steps: int = STEPS,
    command_steps: int = COMMAND_STEPS,
) -> dict[str, dict[str, int]]:
    """Cut runs at so many batches, stop the command so many times; returns counts of what went wrong, by fault."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="facenet-resume-", dir=folder or None) as name:
        place = Path(name)
        return {
            "resume_cuts": _cut(place, counts.cuts, temporary, rng, steps),
            "resume_sigterm": _stop(place, counts.terms, temporary, rng, command_steps),
        }


def small_options(cache: Path, workers: int = 0, accumulate: int = 1, steps: int = STEPS) -> TrainOptions:
    """Return the options of a small run."""
    faces = {"train_identities": 20, "held_out_identities": 6, "evaluation_identities": 6, "difficulty": 0.2}
    images = {f"{part}_images": [4, 4] for part in ("train", "held_out", "evaluation")}
    values = {
        "seed": 0,
        "init": None,
        "resume": "auto",
        "data": {
            "kind": "synthetic",
            "crop": 1.0,
            "synthetic": {**faces, **images, "size": 40},
            "cache_dir": str(cache),
            "seed": 0,
        },
        "preprocess": {"mean": [0.5] * 3, "std": [0.5] * 3, "mirror": False},
        "augment": {"enabled": True, "rotate": 5.0},
        "sampler": {"batch_size": 12, "faces_per_identity": 3, "negative_share": 0.1, "coverage": 5},
        "loader": {"cache": "none" if workers else "auto", "workers": workers},
        "model": {"name": "small", "embedding_dim": 16, "norm": "batch", "input_size": [32, 32], "dropout": 0.2},
        "loss": {"name": "triplet", "margin": 0.2, "reduction": "mean"},
        "mining": {"miner": "semi_hard", "select": "random", "fallback": "none", "max_triplets": 1000},
        "optim": {"name": "adamw", "lr": 1e-3, "schedule": "cosine", "warmup_steps": 2, "accumulate": accumulate},
        "large_batch": {"chunk_size": 6 if accumulate > 1 else None},
        "trainer": {
            "max_steps": steps,
            "val_check_interval": EVERY,
            "accelerator": "cpu",
            "log_every_n_steps": 1,
            "progress": False,
            "refresh_rate": 1,
        },
    }
    return build(TrainOptions, values)


class Cut(pl.Callback):
    """Send this process a signal when a batch begins, or the validation after it."""

    def __init__(self, batch: int, validation: bool, signum: int) -> None:
        self.batch, self.validation, self.signum, self._seen = batch, validation, signum, -1

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Remember the batch; cut in training."""
        self._seen = batch_idx
        if batch_idx == self.batch and not self.validation:
            os.kill(os.getpid(), self.signum)

    def on_validation_batch_start(self, *args: Any, **kwargs: Any) -> None:
        """Cut in a validation."""
        if self._seen == self.batch and self.validation:
            os.kill(os.getpid(), self.signum)


def train_until(options: TrainOptions, out: Path, cut: tuple[int, bool, int] | None, report: Any) -> None:
    """The child: train, and be cut off; a run that ends writes ``metrics.json``."""
    callbacks = () if cut is None else (Cut(*cut),)
    write_metrics(out, train(options, out, say=lambda line: None, callbacks=callbacks))


def differences(first: Path, second: Path) -> list[str]:
    """Return the names of what is not equal to the bit in two finished runs, except times."""
    states = [AtomicCheckpointIO().load_checkpoint(run / "checkpoints" / "last.ckpt") for run in (first, second)]
    parts = ("global_step", "state_dict", "optimizer_states", "lr_schedulers")
    before, after = ({part: state[part] for part in parts} for state in states)
    found = _unequal(before, after)
    if sha256_file(first / "encoder" / "encoder.safetensors") != sha256_file(
        second / "encoder" / "encoder.safetensors"
    ):
        found.append("encoder")
    return found + _unequal(read_json(first / "metrics.json"), read_json(second / "metrics.json"))


def _unequal(first: Any, second: Any, name: str = "") -> list[str]:
    if type(first) is not type(second):
        return [name]
    if isinstance(first, dict):
        names = [key for key in {**first, **second} if key not in TIMES]
        return [one for key in names for one in _unequal(first.get(key), second.get(key), f"{name}.{key}")]
    if isinstance(first, list) and len(first) == len(second):
        return [one for i, pair in enumerate(zip(first, second, strict=True)) for one in _unequal(*pair, f"{name}.{i}")]
    return [] if (torch.equal(first, second) if isinstance(first, torch.Tensor) else first == second) else [name]


def _cut(place: Path, cuts: int, temporary: str, rng: random.Random, steps: int) -> dict[str, int]:
    names = ["with_workers", "with_accumulation", "by_sigkill", "by_sigterm", "in_a_validation"]
    counted = dict.fromkeys(["cuts", *names, "bitwise_equal", "different", "failed"], 0)
    wholes: dict[tuple[int, int], Path] = {}
    for number in range(cuts):
        kind, signum = KINDS[number % len(KINDS)], SIGNALS[(number + number // len(KINDS)) % len(SIGNALS)]
        out = place / f"cut{number}"
        options = small_options(place / "cache", *kind, steps=steps)
        if kind not in wholes:
            wholes[kind] = place / f"whole{len(wholes)}"
            Child(train_until, options, wholes[kind], None, temporary=temporary).end()
        batches, validation = steps * kind[1], rng.random() < 0.25
        batch = kind[1] * EVERY * rng.randrange(1, steps // EVERY + 1) - 1 if validation else rng.randrange(batches)
        code = Child(train_until, options, out, (batch, validation, signum), temporary=temporary).end()[0]
        again = Child(train_until, options, out, None, temporary=temporary).end()[0]
        expected = 128 + signum if signum == signal.SIGTERM else -signum
        counted["cuts"] += 1
        flags = (kind[0] > 0, kind[1] > 1, signum == signal.SIGKILL, signum == signal.SIGTERM, validation)
        for name, flag in zip(names, flags, strict=True):
            counted[name] += flag
        failed = code != expected or again != 0
        other = [] if failed else differences(wholes[kind], out)
        counted["failed"] += failed
        counted["bitwise_equal"] += not failed and not other
        counted["different"] += bool(other)
        print(f"cut {number + 1} of {cuts}, at batch {batch}: {'failed' if failed else other or 'equal'}", flush=True)
    return counted


def arguments(place: Path, out: Path, workers: int, steps: int) -> list[str]:
    """Return the command line of a small run."""
    drawn = [f"{part}_identities={count}" for part, count in (("train", 20), ("held_out", 6), ("evaluation", 6))]
    drawn += [f"{part}_images=[4,4]" for part in ("train", "held_out", "evaluation")] + ["size=40"]
    return [
        f"hydra.run.dir={out}",
        "resume=auto",
        *(f"data.synthetic.{option}" for option in drawn),
        f"data.cache_dir={place / 'cache'}",
        "model.input_size=[32,32]",
        "model.dropout=0.1",
        "sampler.batch_size=24",
        "sampler.faces_per_identity=4",
        f"trainer.max_steps={steps}",
        f"trainer.val_check_interval={steps // 3}",
        "trainer.log_every_n_steps=1",
        "trainer.accelerator=cpu",
        f"loader.workers={workers}",
        f"loader.cache={'none' if workers else 'auto'}",
    ]


def command(given: list[str], temporary: str = "", mark: str = "") -> subprocess.Popen[str]:
    """Start the command; :func:`alive` finds its processes by the `mark`."""
    own = {**environment(temporary), "OMP_NUM_THREADS": "1", MARK: mark}
    line = [sys.executable, str(COMMAND), *given]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=own)


def undisturbed(given: list[str], temporary: str = "") -> None:
    """Run the command to its end; raises DataError if it fails."""
    process = command(given, temporary)
    errors = process.communicate(timeout=300)[1]
    if process.returncode:
        raise DataError(f"{COMMAND} ended with {process.returncode}: {' '.join(errors.split())}")


def stopped(given: list[str], after: float, temporary: str = "") -> tuple[int, str, int]:
    """Send SIGTERM some seconds after the third step; return exit code, errors and the number of processes left."""
    mark = uuid.uuid4().hex
    process = command(given, temporary, mark)
    assert process.stdout is not None
    any("training: 3 of" in line for line in process.stdout)  # there is something to save by then
    time.sleep(after)
    process.send_signal(signal.SIGTERM)
    errors = process.communicate(timeout=120)[1]
    return process.returncode, errors, len(alive(mark))


def _stop(place: Path, terms: int, temporary: str, rng: random.Random, steps: int) -> dict[str, int]:
    names = [
        "exit_143",
        "one_line",
        "usable_checkpoints",
        "orphans",
        "bitwise_equal",
        "different",
        "failed",
        "too_late",
    ]
    counted = dict.fromkeys(["sigterms", "with_workers", *names], 0)
    wholes: dict[int, Path] = {}
    while counted["sigterms"] < terms:
        number, workers = counted["sigterms"], 2 * (counted["sigterms"] % 2)
        if workers not in wholes:
            wholes[workers] = place / f"command{workers}"
            undisturbed(arguments(place, wholes[workers], workers, steps), temporary)
        trained = read_json(wholes[workers] / "metrics.json")["train"]
        out = place / f"term{number}_{counted['too_late']}"
        given = arguments(place, out, workers, steps)
        code, errors, orphans = stopped(
            given, rng.random() * trained["faces_seen"] / trained["images_per_second"], temporary
        )
        if code == 0:  # it had ended
            counted["too_late"] += 1
            continue
        counted["sigterms"] += 1
        counted["with_workers"] += workers > 0
        counted["exit_143"] += code == 143
        counted["one_line"] += len(errors.splitlines()) == 1 and "resume=auto" in errors
        counted["orphans"] += orphans
        counted["usable_checkpoints"] += _loads(out / "checkpoints" / "last.ckpt")
        try:
            undisturbed(given, temporary)
            other = differences(wholes[workers], out)
            counted["bitwise_equal" if not other else "different"] += 1
        except DataError as error:
            other = [str(error)]
            counted["failed"] += 1
        print(f"SIGTERM {number + 1} of {terms}: {' '.join(errors.split())[:40]}: {other or 'equal'}", flush=True)
    return counted


def _loads(path: Path) -> bool:
    try:
        return bool(AtomicCheckpointIO().load_checkpoint(path)["state_dict"])
    except DataError:
        return False


def alive(mark: str) -> list[int]:
    """Return the processes with this mark in their environment, after half a second at most."""
    found: list[int] = []
    for _ in range(10):
        found = [int(folder.name) for folder in Path("/proc").glob("[0-9]*") if _marked(folder, mark)]
        if not found:
            break
        time.sleep(0.05)
    return found


def _marked(folder: Path, mark: str) -> bool:
    try:
        return f"{MARK}={mark}".encode() in (folder / "environ").read_bytes()
    except OSError:
        return False
