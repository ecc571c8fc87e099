"""What ``facenet train`` does beside training: answers to names of Lightning, and SLURM's job requeued."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from hydra.core.hydra_config import HydraConfig

from facenet.commands.launch import check_argument, forced
from facenet.commands.train import TrainCommandOptions, requeue
from facenet.errors import ConfigError

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
