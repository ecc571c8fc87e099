"""What is kept, what goes on and what is refused in a run folder; whole runs: tests/test_training.py."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from facenet.console import write_metrics
from facenet.errors import ConfigError, DataError
from facenet.interrupts import Interrupted
from facenet.training.callbacks import AtomicCheckpointIO
from facenet.training.resume import (
    FREE,
    add_resume_hint,
    check_checkpoint,
    differences,
    finished,
    fixed,
    last_checkpoint,
    start,
)

CONFIG: dict[str, Any] = {
    "resume": "auto",
    "seed": 0,
    "init": None,
    "model": {"name": "small", "input_size": [32, 32], "attention": {"heads": 4}},
    "loader": {"workers": 0, "repeat_batch": False},
    "trainer": {"max_steps": 8, "devices": 1, "accelerator": "auto"},
}


def other(**changes: Any) -> dict[str, Any]:
    return {
        key: {**value, **changes.get(key, {})} if isinstance(value, dict) else changes.get(key, value)
        for key, value in CONFIG.items()
    }


def test_a_run_is_finished_once_its_metrics_are_there(tmp_path: Path) -> None:
    said: list[str] = []
    assert finished(CONFIG, tmp_path, said.append) is None, "an empty folder"
    start(CONFIG, tmp_path)
    assert finished(CONFIG, tmp_path, said.append) is None, "begun"
    write_metrics(tmp_path, {"seconds": 3.5})
    assert not said
    assert finished(CONFIG, tmp_path, said.append) == {"seconds": 3.5}
    assert len(said) == 1
    assert str(tmp_path / "metrics.json") in said[0]
    assert finished(other(resume=None), tmp_path, said.append) is None, "not asked for"
    start(CONFIG, tmp_path)
    assert finished(CONFIG, tmp_path, said.append) is None, "begun again"


@pytest.mark.parametrize("done", [True, False])
def test_another_configuration_is_refused_and_named(done: bool, tmp_path: Path) -> None:
    start(CONFIG, tmp_path)
    if done:
        write_metrics(tmp_path, {})
    changed = other(seed=1, model={"attention": {"heads": 8}}, loader={"repeat_batch": True})
    text = r"loader\.repeat_batch: False then, True now; model\.attention\.heads: 4 then, 8 now; seed: 0 then, 1 now"
    with pytest.raises(ConfigError, match=rf"{tmp_path} was made with other options \({text}\)"):
        finished(changed, tmp_path)


def test_where_it_computes_may_change(tmp_path: Path) -> None:
    start(CONFIG, tmp_path)
    write_metrics(tmp_path, {"seconds": 1})
    moved = other(trainer={"devices": 2, "accelerator": "cpu", "refresh_rate": 1}, loader={"workers": 3})
    assert finished(moved, tmp_path, lambda line: None) == {"seconds": 1}
    assert not {"max_steps", "val_check_interval", "precision"} & set(FREE["trainer"]), "these change what is learned"


def test_an_unknown_choice_and_a_broken_note(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="resume: unknown name 'last'"):
        finished(other(resume="last"), tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(DataError, match=r"config\.json: not readable as JSON"):
        finished(CONFIG, tmp_path)


def test_the_last_checkpoint_and_its_parameters(tmp_path: Path) -> None:
    assert last_checkpoint(CONFIG, tmp_path) is None
    path = tmp_path / "checkpoints" / "last.ckpt"
    now = {"loss": {"margin": 0.2}, "optim": {"lr": 0.1}, "seed": 0}
    saved = {"hyper_parameters": now, "options": fixed(CONFIG), "weight": torch.zeros(1)}
    AtomicCheckpointIO().save_checkpoint(saved, path)
    assert last_checkpoint(CONFIG, tmp_path) == path
    assert last_checkpoint(other(resume=None), tmp_path) is None
    read = AtomicCheckpointIO().load_checkpoint(path)
    check_checkpoint(CONFIG, now | {"optim": {"lr": 0.1, "not_finite": "skip"}}, read, path)
    with pytest.raises(
        ConfigError, match=r"last\.ckpt was made with other options \(loss\.margin: 0\.2 then, 0\.3 now\)"
    ):
        check_checkpoint(CONFIG, now | {"loss": {"margin": 0.3}}, read, path)
    with pytest.raises(ConfigError, match=r"\(init: None then, else now\)"):
        check_checkpoint(other(init="else"), now, read, path)


def test_a_damaged_last_checkpoint_gives_way_to_the_best(tmp_path: Path) -> None:
    said: list[str] = []
    last, best = (tmp_path / "checkpoints" / f"{name}.ckpt" for name in ("last", "best"))
    for path in (last, best):
        AtomicCheckpointIO().save_checkpoint({"weight": torch.zeros(100)}, path)
    assert last_checkpoint(CONFIG, tmp_path, said.append) == last
    assert not said
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    last.write_bytes(bytes(content))
    assert last_checkpoint(CONFIG, tmp_path, said.append) == best
    assert len(said) == 1
    assert f"{last}: the checkpoint does not match its .sha256 (damaged)" in said[0]
    assert said[0].endswith(f"{best} is intact and taken instead")
    last.unlink()
    assert last_checkpoint(CONFIG, tmp_path, said.append) == best, "lost"
    best.write_bytes(b"")
    with pytest.raises(DataError, match=rf"best\.ckpt: .* remove {tmp_path / 'checkpoints'} to start again"):
        last_checkpoint(CONFIG, tmp_path, said.append)


def test_a_start_sweeps_what_killed_writers_left(tmp_path: Path) -> None:
    left = [tmp_path / ".metrics.json.abcd_123.tmp", tmp_path / "checkpoints" / ".last.ckpt.abcdefgh.tmp"]
    for path in left:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half")
    start(CONFIG, tmp_path)
    assert not any(path.exists() for path in left)


def test_a_stopped_run_says_how_to_go_on(tmp_path: Path) -> None:
    def stopped() -> str:
        with pytest.raises(Interrupted) as stop, add_resume_hint(tmp_path):
            raise Interrupted(signal.SIGTERM, at=" at step 3")
        return stop.value.text

    assert (
        stopped()
        == "stopped by SIGTERM at step 3; no step was saved yet, so the same command starts from the beginning"
    )
    AtomicCheckpointIO().save_checkpoint({}, tmp_path / "checkpoints" / "last.ckpt")
    assert f"resume=auto hydra.run.dir={tmp_path} goes on from {tmp_path}/checkpoints/last.ckpt" in stopped()


def test_differences_name_leaves() -> None:
    assert differences({"a": {"b": 1}, "c": [1, 2]}, {"a": {"b": 1}, "c": [1, 2]}) == []
    found = differences({"a": {"b": 1, "c": 2}, "d": None}, {"a": {"b": 2}, "d": {"e": 1}})
    assert found == ["a.b: 1 then, 2 now", "a.c: 2 then, None now", "d: None then, {'e': 1} now"]
