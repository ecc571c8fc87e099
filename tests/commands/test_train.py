"""What ``facenet train`` does beside training: answers to names of Lightning, and SLURM's job requeued."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra.core.hydra_config import HydraConfig

from facenet.commands.launch import check_argument, forced
from facenet.commands.train import TrainCommandOptions, requeue, run
from facenet.errors import ConfigError, GateError

RESUMES = TrainCommandOptions(resume="auto")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Job 7 of a cluster whose ``scontrol`` writes down what it is asked; a run folder is named."""
    program = tmp_path / "scontrol"
    program.write_text(
        f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n[ "$2" = 7 ] || {{ echo no such job >&2; exit 1; }}\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    for key in ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_JOB_NAME"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    overrides = SimpleNamespace(overrides=SimpleNamespace(hydra=["hydra.run.dir=runs/a"]))
    monkeypatch.setattr(HydraConfig, "get", lambda: overrides)
    return tmp_path / "asked"


def test_a_warned_job_is_requeued(asked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert requeue(RESUMES) == "; job 7 is requeued"
    assert asked.read_text() == "requeue 7\n"
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "8")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    assert requeue(RESUMES) == "; job 8_2 is not requeued (scontrol: no such job)"
    monkeypatch.setenv("PATH", "/nowhere")
    assert "(scontrol: No such file" in requeue(RESUMES)


def test_a_job_that_would_start_again_is_not_requeued(asked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "which needs resume=auto" in requeue(TrainCommandOptions())
    for given in ([], ["hydra.run.dir=runs/${now:%d}"]):
        overrides = SimpleNamespace(overrides=SimpleNamespace(hydra=given))
        monkeypatch.setattr(HydraConfig, "get", lambda overrides=overrides: overrides)
        assert "which needs resume=auto and hydra.run.dir=DIR" in requeue(RESUMES)
    monkeypatch.setenv("SLURM_JOB_NAME", "interactive")
    assert requeue(RESUMES) == ""
    monkeypatch.delenv("SLURM_JOB_ID")
    assert requeue(RESUMES) == "", "no job"
    assert not asked.exists()


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        (
            "ckpt_path=runs/a/step=3.ckpt",
            "unknown option 'ckpt_path': to resume a run write hydra.run.dir=RUN resume=auto",
        ),
        ("+ckpt_path=x", "init=ENCODER"),
        ("trainer.ckpt_path=x", "unknown option 'trainer.ckpt_path': to resume a run"),
        ("trainer.resume_from_checkpoint=x", "resume=auto"),
        ("trainer.logger=false", "write logger=NAME"),
        ("logger=null", "name a choice; known: csv, mlflow, none, tensorboard, wandb"),
    ],
)
def test_what_users_of_lightning_type_is_answered(argument: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        check_argument(TrainCommandOptions, argument)
    assert said in str(error.value)


def test_a_group_may_be_typed_with_a_plus() -> None:
    assert [forced(each) for each in ("+logger=csv", "logger=csv", "+seed=1", "hydra/launcher=joblib")] == [
        "logger=csv",
        "logger=csv",
        "++seed=1",
        "hydra/launcher=joblib",
    ]


@pytest.mark.parametrize("changes", [False, True])
def test_an_encoder_that_did_not_help_ends_the_command_at_the_gate(
    changes: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    gain = {"auc": 0.9, "difference": 0.01, "low": -0.005, "high": 0.02}
    start: dict[str, Any] = {**gain, "helped": False}
    if changes:
        start["degraded"] = {**gain, "levels": {"blur": {"5e-1": {**gain, "auc": 0.8}}}}
    trained = {"images": 9, "identities": 3, "faces_seen": 5, "images_per_second": 1.0, "first_loss": 1, "last_loss": 1}
    metrics = {"train": trained, "held_out": {"accuracy": 0.5, "step": 1}, "start": start, "seconds": 1.0}
    monkeypatch.setattr("facenet.training.run.train", lambda *_, **__: metrics)
    monkeypatch.setattr("facenet.commands.train.given_options", tuple)
    says = "under the changes, or it is surely worse on the pairs as they are" if changes else "than its start; the"
    with pytest.raises(GateError, match=says):
        run(TrainCommandOptions(init="encoder", gate=True), tmp_path)
    shown = capsys.readouterr().out
    assert "AUC of the start, and gained   0.9000, +0.0100 (95 %: -0.0050 to +0.0200)" in shown
    assert ("blur 0.5 " in shown) is changes
    assert str(tmp_path / "encoder_refused") in shown
