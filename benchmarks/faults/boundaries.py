"""Small runs of eight variants, and signals at each of their boundaries: steps, validations, saves, exit.

A boundary is a hook that Lightning calls, or a file that is about to be moved into the run folder.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from benchmarks.faults.tiny import NAME, SIDE, D
from facenet.console import write_metrics
from facenet.options import build
from facenet.training.options import TrainOptions
from facenet.training.run import train

STEPS, EVERY = 4, 2
# Steps 5 is no multiple of the validation's interval: the last step has no validation.
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "plain": {},
    "workers": {"loader": {"cache": "none", "workers": 2}, "trainer": {"max_steps": 5}},
    "accumulate": {"optim": {"accumulate": 2}, "large_batch": {"chunk_size": 6}},
    "workers_accumulate": {
        "loader": {"cache": "none", "workers": 2},
        "optim": {"accumulate": 2, "not_finite": "skip"},
        "large_batch": {"chunk_size": 6},
    },
    "harmonic": {"harmonic": {"embedding_share": 0.5}, "trainer": {"max_steps": 5}},
    "head": {"loss": {"name": "softmax_then_triplet", "head": {"name": "softmax"}, "head_share": 0.5}},
    "sgd": {"optim": {"name": "sgd", "lr": 0.05, "schedule": "step", "clip_norm": 1.0}, "trainer": {"max_steps": 5}},
    "rare": {"trainer": {"max_steps": 3, "val_check_interval": 2, "log_every_n_steps": 2}},
}
HOOKS = [
    "setup",
    "teardown",
    *("on_fit_start", "on_fit_end", "on_train_start", "on_train_end", "on_train_epoch_start", "on_train_epoch_end"),
    *("on_train_batch_start", "on_before_backward", "on_before_optimizer_step", "on_train_batch_end"),
    *("on_validation_start", "on_validation_batch_start", "on_validation_batch_end", "on_validation_epoch_end"),
    *("on_validation_end", "on_save_checkpoint", "on_load_checkpoint", "on_exception"),
]


def small_options(cache: Path, variant: str = "plain", old: Path | None = None) -> TrainOptions:
    """Return the options of a small run within :func:`.tiny.tiny_net`; `old` is the encoder of harmonic training."""
    faces = {"train_identities": 20, "held_out_identities": 6, "evaluation_identities": 6, "difficulty": 0.2}
    images = {f"{part}_images": [4, 4] for part in ("train", "held_out", "evaluation")}
    values: dict[str, Any] = {
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
        "loader": {"cache": "auto", "workers": 0},
        "model": {"name": NAME, "embedding_dim": D, "norm": "batch", "input_size": [SIDE, SIDE], "dropout": 0.2},
        "loss": {"name": "triplet", "margin": 0.2, "reduction": "mean"},
        "mining": {"miner": "semi_hard", "select": "random", "fallback": "none", "max_triplets": 1000},
        "optim": {"name": "adamw", "lr": 1e-3, "schedule": "cosine", "warmup_steps": 2},
        "trainer": {
            "max_steps": STEPS,
            "val_check_interval": EVERY,
            "accelerator": "cpu",
            "log_every_n_steps": 1,
            "progress": False,
            "refresh_rate": 1,
        },
    }
    for group, changes in VARIANTS[variant].items():
        values[group] = {**values.get(group, {}), **changes}
    if "harmonic" in VARIANTS[variant]:
        values["harmonic"]["old"] = str(old)
    return build(TrainOptions, values)


class Boundaries(pl.Callback):
    """Name the boundaries of a run in order, and send this process signals at one of them."""

    def __init__(self, at: int = -1, signals: Sequence[int] = ()) -> None:
        self.at, self.signals, self.names, self._process = at, signals, list[str](), os.getpid()
        for name in HOOKS:
            setattr(self, name, lambda *_, name=name, **__: self.reach(name))

    def reach(self, name: str) -> None:
        """Pass a boundary."""
        if os.getpid() != self._process:  # a loader worker
            return
        self.names.append(name)
        if len(self.names) - 1 == self.at:
            for signum in self.signals:
                os.kill(self._process, signum)

    def watch(self, folder: Path) -> None:
        """Count each file that is moved into the folder, until this process ends."""
        inside = str(folder.resolve())

        def moved(event: str, arguments: tuple[Any, ...]) -> None:
            if event == "os.rename" and str(arguments[1]).startswith(inside):
                self.reach(f"move {Path(str(arguments[1])).name}")

        sys.addaudithook(moved)


def place_of(names: Sequence[str], at: int) -> str:
    """Return in which part of a run a boundary lies: start, step, validation, save or exit."""
    first, last = names.index("on_train_batch_start"), names.index("on_train_end")
    if not first <= at < last:
        return "start" if at < first else "exit"
    name = names[at]
    return "save" if name.startswith(("move", "on_save")) else "validation" if "validation" in name else "step"


def train_until(options: TrainOptions, out: Path, at: int, signals: Sequence[int], report: Any) -> None:
    """The child: train, and be cut off; a run that ends writes ``metrics.json`` and reports its boundaries."""
    boundaries = Boundaries(at, signals)
    boundaries.watch(out)
    write_metrics(out, train(options, out, say=lambda line: None, callbacks=[boundaries]))
    report(boundaries.names)
