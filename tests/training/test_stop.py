"""Stopping at any place of a run and going on; with processes and real signals: see benchmarks/faults/resume.py."""

from __future__ import annotations

import csv
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from facenet.errors import ConfigError
from facenet.interrupts import Interrupted
from facenet.training.checkpoints import AtomicCheckpointIO
from facenet.training.options import TrainOptions
from facenet.training.run import train
from facenet.training.stop import set_between_batches, set_folder, validation_pending
from tests.helpers.training import small_options

TIMES = ("seconds", "images_per_second", "faces_per_second", "current_score")  # Lightning does not bring the last back


class Signal(pl.Callback):
    """Send this process a signal at a place: ("train", batch), ("validation", step) or ("end",)."""

    def __init__(self, *place: Any, signum: signal.Signals = signal.SIGTERM) -> None:
        self.place, self.signum = place, signum

    def _reach(self, *place: Any) -> None:
        if self.place == place:
            os.kill(os.getpid(), self.signum)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self._reach("train", batch_idx)

    def on_validation_batch_start(self, trainer: Any, *args: Any, **kwargs: Any) -> None:
        self._reach("validation", trainer.global_step)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self._reach("end")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def options(cache: Path, **changes: Any) -> TrainOptions:
    trainer = {"max_steps": 4, "val_check_interval": 2, "log_every_n_steps": 1, "progress": False}
    return small_options(cache, **{"model": {"dropout": 0.3}, "trainer": trainer, "resume": "auto", **changes})


def differences(first: Any, second: Any, name: str = "") -> list[str]:
    if isinstance(first, dict):
        if first.keys() != second.keys():
            return [name]
        return [
            one for key in first if key not in TIMES for one in differences(first[key], second[key], f"{name}.{key}")
        ]
    if isinstance(first, list):
        return [
            one for i, pair in enumerate(zip(first, second, strict=True)) for one in differences(*pair, f"{name}.{i}")
        ]
    equal = torch.equal(first, second) if isinstance(first, torch.Tensor) else first == second
    return [] if equal else [name]


def content(run: Path) -> dict[str, Any]:
    found = AtomicCheckpointIO().load_checkpoint(run / "checkpoints" / "last.ckpt")
    for state in found["callbacks"].values():
        if "dirpath" in state:
            set_folder(state, Path("run"))
    return found


def logged(run: Path) -> list[dict[str, str]]:
    with (run / "logs" / "metrics.csv").open() as file:
        return [{key: value for key, value in row.items() if key not in TIMES} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def whole(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("whole")
    return out, train(options(cache), out, say=lambda line: None)


def stopped_at(place: tuple[Any, ...], chosen: TrainOptions, out: Path, signum: signal.Signals = signal.SIGTERM) -> str:
    with pytest.raises(Interrupted) as stop:
        train(chosen, out, say=lambda line: None, callbacks=[Signal(*place, signum=signum)])
    assert stop.value.code == 128 + signum
    return stop.value.text


@pytest.mark.parametrize(
    ("place", "step", "signum"),
    [
        (("train", 1), 1, signal.SIGTERM),
        (("validation", 2), 2, signal.SIGUSR1),
        # two trainings each; the campaign cuts everywhere
        pytest.param(("validation", 4), 4, signal.SIGUSR2, marks=pytest.mark.slow),
        pytest.param(("end",), 4, signal.SIGTERM, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_a_run_stopped_anywhere_goes_on_to_the_bit(
    place: tuple[Any, ...],
    step: int,
    signum: signal.Signals,
    whole: tuple[Path, dict[str, Any]],
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Weights, optimiser, what callbacks and loops count, all metrics, and the table of the log."""
    monkeypatch.chdir(tmp_path)
    out = Path("before")
    text = stopped_at(place, options(cache), out, signum)
    assert text.startswith(f"stopped by {signum.name} at step {step}; the same command with resume=auto")
    assert content(out)["global_step"] == step
    assert validation_pending(content(out)) == (place[0] == "validation")
    moved = out.rename("after")
    again = train(options(cache), moved, say=lambda line: None)
    assert differences(content(whole[0]), content(moved)) == []
    assert differences(whole[1], again) == []
    assert logged(moved) == logged(whole[0])


def test_the_last_step_is_saved_also_without_a_validation(cache: Path, tmp_path: Path) -> None:
    """Three steps, a validation every two: a signal at the end saved a step that an uninterrupted run did not."""
    chosen = options(cache, trainer={"max_steps": 3, "val_check_interval": 2, "log_every_n_steps": 1})
    runs = tmp_path / "whole", tmp_path / "cut"
    metrics = train(chosen, runs[0], say=lambda line: None)
    stopped_at(("end",), chosen, runs[1])
    assert differences(metrics, train(chosen, runs[1], say=lambda line: None)) == []
    assert [content(run)["global_step"] for run in runs] == [3, 3]
    assert differences(content(runs[0]), content(runs[1])) == []
    assert logged(runs[0]) == logged(runs[1])


@pytest.mark.parametrize("place", [("train", 3), ("validation", 2)], ids=str)
def test_averaged_weights_survive_a_stop(place: tuple[Any, ...], cache: Path, tmp_path: Path) -> None:
    """Within a validation the module holds the average, and the average the weights."""
    chosen = options(cache, optim={"ema": 0.5})
    runs = tmp_path / "whole", tmp_path / "cut"
    metrics = train(chosen, runs[0], say=lambda line: None)
    stopped_at(place, chosen, runs[1])
    assert differences(metrics, train(chosen, runs[1], say=lambda line: None)) == []
    assert differences(content(runs[0]), content(runs[1])) == []


def test_workers_end_with_a_run_that_is_stopped_in_a_validation(cache: Path, tmp_path: Path) -> None:
    chosen = options(cache, loader={"workers": 2, "cache": "none"}, optim={"accumulate": 2})
    stopped_at(("validation", 2), chosen, tmp_path)
    assert multiprocessing.active_children() == []


def test_a_step_of_several_batches_is_not_cut(cache: Path, tmp_path: Path) -> None:
    text = stopped_at(("train", 3), options(cache, optim={"accumulate": 2}), tmp_path)
    assert " at step 2;" in text


def test_before_the_first_step_there_is_nothing_to_save(cache: Path, tmp_path: Path) -> None:
    text = stopped_at(("train", 0), options(cache), tmp_path)
    assert text == "stopped by SIGTERM at step 0; no step was saved yet, so the same command starts from the beginning"


def test_a_checkpoint_of_other_data_options_is_refused(cache: Path, tmp_path: Path) -> None:
    """A run without resume left its options in the folder, and the checkpoint is that of the run before it."""
    stopped_at(("train", 1), options(cache), tmp_path)
    other = options(cache, augment={"enabled": False})
    stopped_at(("train", 0), options(cache, augment={"enabled": False}, resume=None), tmp_path)
    with pytest.raises(ConfigError, match=r"last\.ckpt was made with other options \(augment\.enabled: True then"):
        train(other, tmp_path, say=lambda line: None)


def test_counts_stand_between_two_batches() -> None:
    def counts(ready: int, done: int) -> dict[str, int]:
        return {"ready": ready, "started": done, "processed": done, "completed": done}

    for pending in (False, True):
        loops = {
            "epoch_loop.batch_progress": {"total": counts(4, 3), "current": counts(4, 3), "is_last_batch": True},
            "epoch_loop.val_loop.batch_progress": {"total": counts(2, 1), "current": counts(2, 1)},
        }
        set_between_batches(loops, validation_pending=pending)
        assert loops["epoch_loop.batch_progress"] == {
            "total": counts(3, 3),
            "current": counts(3, 3),
            "is_last_batch": False,
        }
        assert validation_pending({"loops": {"fit_loop": loops}}) is pending
