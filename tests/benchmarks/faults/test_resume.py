"""The faults of training in short: what goes on ends where an uninterrupted run does; a difference would be seen."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.faults import resume as room
from benchmarks.faults.boundaries import Boundaries, place_of, small_options
from benchmarks.faults.commands import MARK, alive
from benchmarks.faults.options import ResumeFaults
from benchmarks.faults.resume import Runs, _unequal, differences, run
from benchmarks.faults.tiny import tiny_net
from facenet.console import write_metrics
from facenet.errors import DataError
from facenet.training.checkpoints import AtomicCheckpointIO
from facenet.training.run import train
from tests.helpers.commands import succeed


@pytest.mark.slow  # some thirty training processes
def test_a_short_campaign_finds_every_run_equal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Played again in the same folder, it reads what it found."""
    counts = ResumeFaults(cuts=1, signals=1, terms=0)
    found = run(counts, folder=str(tmp_path))
    boundaries, signals = found["resume_boundaries"], found["resume_signals"]
    assert [boundaries[name] for name in ("cuts", "bitwise_equal", "different", "failed")] == [8, 8, 0, 0]
    assert sum(boundaries[f"in_{place}"] for place in ("start", "step", "validation", "save", "exit")) == 8
    assert signals == {"signals": 1, "bitwise_equal": 1, "different": 0, "failed": 0}
    assert len(capsys.readouterr().out.splitlines()) == 9
    assert run(counts, folder=str(tmp_path)) == found
    assert capsys.readouterr().out == "", "nothing is played again"


def test_boundaries_lie_in_order_and_a_signal_arrives_at_one() -> None:
    got: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: got.append(number))
    try:
        boundaries: Any = Boundaries(2, [signal.SIGUSR1])
        for name in ("setup", "on_train_batch_start", "on_train_batch_end", "on_save_checkpoint", "on_train_end"):
            boundaries.__getattribute__(name)(None, None)
            assert len(got) == (len(boundaries.names) > 2)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert [place_of(boundaries.names, at) for at in range(5)] == ["start", "step", "step", "save", "exit"]


@pytest.mark.slow  # three training runs
def test_the_command_stops_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that is stopped is a process of its own; the others run in this one, for the sake of time."""

    def here(given: list[str], temporary: str = "") -> None:
        folder = Path(next(one for one in given if one.startswith("hydra.run.dir=")).partition("=")[2])
        succeed("train", *given, out=folder)

    monkeypatch.setattr(room, "undisturbed", here)
    found = run(ResumeFaults(cuts=0, signals=0, terms=1), command_steps=12)["resume_sigterm"]
    expected = ("exit_143", "one_line", "usable_checkpoints", "bitwise_equal")
    assert [found[name] for name in expected] == [1] * 4
    assert [found[name] for name in ("orphans", "different", "failed")] == [0] * 3


@pytest.mark.slow  # two trainings
def test_a_run_that_ends_elsewhere_would_be_seen(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    runs = [tmp_path / name for name in "abc"]
    with tiny_net():
        for out in runs[:2]:
            write_metrics(out, train(small_options(tmp_path / "cache"), out, say=lambda line: None))
    assert differences(*runs[:2]) == []
    path = runs[1] / "checkpoints" / "last.ckpt"
    content = AtomicCheckpointIO().load_checkpoint(path)
    content["optimizer_states"][0]["state"][0]["exp_avg"][0, 0] += 1e-3
    AtomicCheckpointIO().save_checkpoint(content, path)
    (runs[1] / "encoder" / "encoder.safetensors").write_bytes(b"")
    assert differences(*runs[:2]) == [".optimizer_states.0.state.0.exp_avg", "encoder"]


def test_unequal_names_leaves() -> None:
    first = {"a": [1, {"b": torch.ones(2)}], "seconds": 1.0, "c": None}
    assert _unequal(first, {"a": [1, {"b": torch.ones(2)}], "seconds": 2.0, "c": None}) == []
    assert _unequal(first, {"a": [2, {"b": torch.zeros(2)}], "c": 1}) == [".a.0", ".a.1.b", ".c"]


def test_a_process_that_stays_would_be_seen() -> None:
    own = {**os.environ, MARK: "here"}
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env=own) as child:
        assert alive("here") == [child.pid]
        assert alive("there") == []
        child.communicate(b"\n")
    assert alive("here") == []


def test_a_run_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise ValueError("no such boundary")

    monkeypatch.setattr(room, "train", lambda *_, **__: None)
    monkeypatch.setattr(room, "train_until", broken)
    with pytest.raises(DataError, match=r"(?s)uninterrupted run ended with 1: .*ValueError: no such boundary"):
        Runs(tmp_path, "", ["plain"]).whole("plain")
