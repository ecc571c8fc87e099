"""What is kept, what goes on and what is refused in a run folder; whole runs: tests/test_training.py."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from facenet.console import write_metrics
from facenet.data.sampler import DRAWS
from facenet.errors import ConfigError, DataError
from facenet.interrupts import Interrupted
from facenet.models.options import recorded_options
from facenet.options import build, fixed, to_dict
from facenet.training.checkpoints import AtomicCheckpointIO, Saved
from facenet.training.options import TrainOptions
from facenet.training.resume import (
    add_resume_hint,
    check_checkpoint,
    differences,
    finished_metrics,
    last_checkpoint,
    stored_options,
    write_start,
)


def other(**changes: Any) -> TrainOptions:
    return build(TrainOptions, {"resume": "auto", "trainer": {"max_steps": 8}, **changes})


OPTIONS = other()


def test_a_run_is_finished_once_its_metrics_are_there(tmp_path: Path) -> None:
    said: list[str] = []
    assert finished_metrics(OPTIONS, tmp_path, said.append) is None, "an empty folder"
    write_start(OPTIONS, tmp_path)
    assert finished_metrics(OPTIONS, tmp_path, said.append) is None, "begun"
    write_metrics(tmp_path, {"seconds": 3.5})
    assert not said
    assert finished_metrics(OPTIONS, tmp_path, said.append) == {"seconds": 3.5}
    assert len(said) == 1
    assert str(tmp_path / "metrics.json") in said[0]
    assert finished_metrics(other(resume=None), tmp_path, said.append) is None, "not asked for"
    write_start(OPTIONS, tmp_path)
    assert finished_metrics(OPTIONS, tmp_path, said.append) is None, "begun again"


@pytest.mark.parametrize("done", [True, False])
def test_another_configuration_is_refused_and_named(done: bool, tmp_path: Path) -> None:
    write_start(OPTIONS, tmp_path)
    if done:
        write_metrics(tmp_path, {})
    changed = other(seed=1, model={"attention": {"heads": 8}}, loader={"repeat_batch": True})
    text = r"loader\.repeat_batch: False then, True now; model\.attention\.heads: 4 then, 8 now; seed: 0 then, 1 now"
    with pytest.raises(ConfigError, match=rf"{tmp_path} was made with other options \({text}\)"):
        finished_metrics(changed, tmp_path)


def test_where_it_computes_may_change(tmp_path: Path) -> None:
    write_start(OPTIONS, tmp_path)
    write_metrics(tmp_path, {"seconds": 1})
    trainer = {"max_steps": 8, "devices": 2, "accelerator": "cpu", "refresh_rate": 1}
    moved = other(trainer=trainer, loader={"workers": 3, "cache": "none"}, data={"cache_dir": "x"})
    assert finished_metrics(moved, tmp_path, lambda line: None) == {"seconds": 1}
    for name, value in {"max_steps": 9, "val_check_interval": 9, "precision": "bf16-mixed"}.items():
        with pytest.raises(ConfigError, match=rf"trainer\.{name}: .* then, {value} now"):
            finished_metrics(other(trainer={"max_steps": 8, name: value}), tmp_path)


def test_options_that_an_older_run_stored(tmp_path: Path) -> None:
    """New options had their defaults; an option that is unknown now is named."""
    older = fixed(OPTIONS)
    del older["trainer"]["extra"], older["model"]
    older["data"]["synthetic"] = None
    assert stored_options(older, tmp_path) == fixed(OPTIONS)
    with pytest.raises(ConfigError, match=r"config\.json: of another version \(unknown option 'optim\.lrs'"):
        stored_options({"optim": {"lrs": 1}}, tmp_path / "config.json")


def test_a_run_from_before_there_were_editions_resumes_in_the_first(tmp_path: Path) -> None:
    """Where they differ: with LRN, for instance. Others go on as they are."""
    path = tmp_path / "last.ckpt"
    for norm, edition, said in (("lrn", 2, "model.edition: 1 then, 2 now"), ("lrn", 1, ""), ("batch", 2, "")):
        now = other(model={"norm": norm, "edition": edition})
        before = fixed(now)
        del before["model"]["edition"]
        parameters = {"optim": {}, "model": recorded_options(to_dict(now.model))}
        old = {"optim": {}, "model": dict(before["model"])}
        for saved in (whole(hyper_parameters=old), whole(hyper_parameters=parameters, options=before)):
            if said:
                with pytest.raises(ConfigError, match=said):
                    check_checkpoint(now, parameters, Saved(path, saved))
            else:
                check_checkpoint(now, parameters, Saved(path, saved))


def test_an_unknown_choice_and_a_broken_note(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="resume: unknown name 'last'"):
        other(resume="last")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(DataError, match=r"config\.json: not readable as JSON"):
        finished_metrics(OPTIONS, tmp_path)


def whole(**content: Any) -> dict[str, Any]:
    """A checkpoint with every part that a run saves."""
    parts = {"epoch": 0, "global_step": 1, "state_dict": {}, "loops": {}, "callbacks": {}}
    return {**parts, "optimizer_states": [], "lr_schedulers": [], "hyper_parameters": {}, "draws": DRAWS, **content}


def test_the_last_checkpoint_and_its_parameters(tmp_path: Path) -> None:
    assert last_checkpoint(OPTIONS, tmp_path) is None
    path = tmp_path / "checkpoints" / "last.ckpt"
    now = {"loss": {"margin": 0.2}, "optim": {"lr": 0.1}, "seed": 0}
    AtomicCheckpointIO().save_checkpoint(whole(hyper_parameters=now, options=fixed(OPTIONS)), path)
    saved = last_checkpoint(OPTIONS, tmp_path)
    assert saved is not None
    assert saved.path == path
    assert last_checkpoint(other(resume=None), tmp_path) is None
    check_checkpoint(OPTIONS, now | {"optim": {"lr": 0.1, "not_finite": "skip"}}, saved)
    with pytest.raises(
        ConfigError, match=r"last\.ckpt was made with other options \(loss\.margin: 0\.2 then, 0\.3 now\)"
    ):
        check_checkpoint(OPTIONS, now | {"loss": {"margin": 0.3}}, saved)
    with pytest.raises(ConfigError, match=r"\(init: None then, else now\)"):
        check_checkpoint(other(init="else"), now, saved)
    text = (
        r"last\.ckpt is of another version, whose sampler drew other batches .*; finish the run with that version, or"
    )
    for draws in (None, DRAWS - 1):
        with pytest.raises(ConfigError, match=text):
            check_checkpoint(OPTIONS, now, Saved(path, {**saved.content, "draws": draws}))
    strange = Saved(path, whole(hyper_parameters={**now, "optim": {"lrs": 1}}))
    with pytest.raises(ConfigError, match=r"last\.ckpt: of another version \(optim\.unknown option 'lrs'"):
        check_checkpoint(OPTIONS, now, strange)


def test_a_damaged_last_checkpoint_gives_way_to_the_best(tmp_path: Path) -> None:
    said: list[str] = []
    last, best = (tmp_path / "checkpoints" / f"{name}.ckpt" for name in ("last", "best"))

    def taken() -> Path | None:
        saved = last_checkpoint(OPTIONS, tmp_path, said.append)
        return saved.path if saved else None

    for path in (last, best):
        AtomicCheckpointIO().save_checkpoint(whole(weight=torch.zeros(100)), path)
    assert taken() == last
    assert not said
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    last.write_bytes(bytes(content))
    assert taken() == best
    assert len(said) == 1
    assert f"{last}: the checkpoint does not match its .sha256 (damaged)" in said[0]
    assert said[0].endswith(f"{best} is intact and used instead")
    last.unlink()
    assert taken() == best, "lost"
    best.write_bytes(b"")
    with pytest.raises(DataError, match=rf"best\.ckpt: .* remove {tmp_path / 'checkpoints'} to start again"):
        last_checkpoint(OPTIONS, tmp_path, said.append)


def test_a_start_sweeps_what_killed_writers_left(tmp_path: Path) -> None:
    left = [tmp_path / ".metrics.json.abcd_123.tmp", tmp_path / "checkpoints" / ".last.ckpt.abcdefgh.tmp"]
    for path in left:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half")
    write_start(OPTIONS, tmp_path)
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
    assert f"resume=auto hydra.run.dir={tmp_path} resumes from {tmp_path}/checkpoints/last.ckpt" in stopped()


def test_differences_name_leaves() -> None:
    assert differences({"a": {"b": 1}, "c": [1, 2]}, {"a": {"b": 1}, "c": [1, 2]}) == []
    found = differences({"a": {"b": 1, "c": 2}, "d": None}, {"a": {"b": 2}, "d": {"e": 1}})
    assert found == ["a.b: 1 then, 2 now", "a.c: 2 then, None now", "d: None then, {'e': 1} now"]
