"""The faults of training in short: what goes on ends where an uninterrupted run does; a difference would be seen."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.faults import resume as room
from benchmarks.faults.options import ResumeFaults
from benchmarks.faults.resume import MARK, _unequal, alive, differences, run, small_options
from facenet.console import write_metrics
from facenet.training.checkpoints import AtomicCheckpointIO
from facenet.training.run import train
from tests.helpers.commands import succeed


@pytest.mark.slow  # six training processes
def test_a_short_campaign_finds_every_run_equal() -> None:
    found = run(ResumeFaults(cuts=2, terms=0), steps=4)["resume_cuts"]
    assert (found["with_workers"], found["with_accumulation"]) == (1, 1)
    assert (found["by_sigkill"], found["by_sigterm"]) == (1, 1)
    assert (found["cuts"], found["bitwise_equal"], found["different"], found["failed"]) == (2, 2, 0, 0)


@pytest.mark.slow  # three training runs
def test_the_command_stops_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that is stopped is a process of its own; the others run in this one, for the sake of time."""

    def here(given: list[str], temporary: str = "") -> None:
        folder = Path(next(one for one in given if one.startswith("hydra.run.dir=")).partition("=")[2])
        succeed("train", *given, out=folder)

    monkeypatch.setattr(room, "undisturbed", here)
    found = run(ResumeFaults(cuts=0, terms=1), command_steps=12)["resume_sigterm"]
    expected = ("exit_143", "one_line", "usable_checkpoints", "bitwise_equal")
    assert [found[name] for name in expected] == [1] * 4
    assert [found[name] for name in ("orphans", "different", "failed")] == [0] * 3


def test_a_run_that_ends_elsewhere_would_be_seen(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    runs = [tmp_path / name for name in "abc"]
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
