from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger, WandbLogger

from facenet.errors import ConfigError
from facenet.files import read_json
from facenet.options import fixed
from facenet.training import loggers
from facenet.training.loggers import build_loggers, check_logger, finishing, log_result, service_line
from facenet.training.options import LoggerOptions, TrainOptions


def rows(out: Path) -> list[tuple[str, str, str]]:
    with (out / "logs" / "metrics.csv").open() as file:
        return [(row["step"], row["loss"], row.get("val", "")) for row in csv.DictReader(file)]


def log(out: Path, batches: int, steps: range) -> None:
    table, board = build_loggers(LoggerOptions(), out, batches)
    for step in steps:
        table.log_metrics({"loss": step / 8}, step)
        board.log_metrics({"loss": step / 8}, step)
        if step % 2:
            table.log_metrics({"val": 1.0}, step)
    table.finalize("success")
    board.finalize("success")


def test_a_resumed_run_goes_on_with_its_table(tmp_path: Path) -> None:
    """The same rows as without the cut: what was logged behind the checkpoint is logged again."""
    log(tmp_path / "whole", 0, range(8))
    log(tmp_path / "cut", 0, range(6))
    log(tmp_path / "cut", 4, range(4, 8))
    assert len(rows(tmp_path / "whole")) == 12
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")
    assert len(list((tmp_path / "cut" / "logs").glob("events.out.tfevents.*"))) == 2


def test_a_run_from_the_beginning_starts_a_new_table(tmp_path: Path) -> None:
    log(tmp_path, 0, range(6))
    log(tmp_path, 0, range(2))
    assert [row[0] for row in rows(tmp_path)] == ["0", "1", "1"]


def test_a_resumed_run_without_logs_begins_them(tmp_path: Path) -> None:
    log(tmp_path, 4, range(4, 6))
    assert [row[0] for row in rows(tmp_path)] == ["4", "5", "5"]


class Service(WandbLogger):
    """A logger of Weights & Biases without its package: the run that it was asked for, and what it was told."""

    def __init__(self, run: str | None) -> None:
        self.run, self.told = run, []  # type: ignore[var-annotated]

    @property
    def version(self) -> str:
        return self.run or "new"

    @property
    def experiment(self) -> Any:
        return self

    def finish(self, exit_code: int) -> None:
        self.told.append(exit_code)

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self.told.append((metrics, step))


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> LoggerOptions:
    monkeypatch.setattr(loggers, "_wandb", lambda options, logs, name, run: (Service(run), f"{options.project}/{name}"))
    return LoggerOptions(name="wandb")


def test_each_choice_has_its_loggers_and_none_is_learned_from(tmp_path: Path) -> None:
    for name, kinds in (("csv", [CSVLogger]), ("none", []), ("tensorboard", [CSVLogger, TensorBoardLogger])):
        assert [type(each) for each in build_loggers(LoggerOptions(name=name), tmp_path)] == kinds
        assert service_line(LoggerOptions(name=name), tmp_path) == []
    assert "logger" not in fixed(TrainOptions()), "a resumed run may log elsewhere"


def test_a_resumed_run_goes_on_in_the_run_of_a_service(wandb: LoggerOptions, tmp_path: Path) -> None:
    asked = []
    for batches in (0, 4, 0):
        _, service = build_loggers(wandb, tmp_path, batches)
        assert isinstance(service, Service)
        asked.append(service.run)
    assert asked == [None, "new", None]
    assert read_json(tmp_path / "logs" / "service.json")["id"] == "new"
    assert service_line(wandb, tmp_path) == [f"logger=wandb: facenet/{tmp_path.name}"]


def test_a_service_is_told_the_result_and_closed(wandb: LoggerOptions, tmp_path: Path) -> None:
    both = table, service = build_loggers(wandb, tmp_path)
    assert isinstance(service, Service)
    with finishing(both):
        log_result(both, {"train": {"steps": 3, "chunk": None}, "encoder": "x"}, 3)
    with pytest.raises(ZeroDivisionError), finishing(both):
        _ = 1 / 0
    assert service.told == [({"result/train.steps": 3}, 3), 0, 1]
    assert not table.experiment.metrics  # type: ignore[attr-defined]


def test_one_rank_logs_to_a_service(wandb: LoggerOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loggers, "is_first_rank", lambda: False)
    assert [type(each) for each in build_loggers(wandb, tmp_path)] == [CSVLogger]
    assert service_line(wandb, tmp_path) == []


def test_a_service_that_is_missing_or_refuses_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise RuntimeError("no API key\nconfigured")

    asked = LoggerOptions(name="mlflow")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"^logger=mlflow: the package is not installed; pip install mlflow$"):
        check_logger(asked)
    check_logger(LoggerOptions())
    monkeypatch.setattr(loggers, "_mlflow", refuse)
    with pytest.raises(ConfigError, match=r"^logger=mlflow: no API key configured; logger=csv"):
        build_loggers(asked, tmp_path)


@pytest.mark.slow  # starts the service's own process
def test_wandb_writes_into_the_run_folder_offline(tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="wandb is no dependency: pip install wandb")
    asked = LoggerOptions(name="wandb", mode="offline")
    runs = []
    for batches in (0, 2):
        made = build_loggers(asked, tmp_path, batches)
        with finishing(made):
            made[1].log_metrics({"loss": 0.5}, batches)
            runs.append(made[1].version)
    assert runs[0] == runs[1]
    assert len(list((tmp_path / "logs" / "wandb").glob(f"offline-run-*-{runs[0]}"))) == 2
    assert "wandb sync" in service_line(asked, tmp_path)[0]


@pytest.mark.filterwarnings("ignore")  # those of its own libraries
@pytest.mark.slow  # makes a database of sixty tables
def test_mlflow_has_a_database_in_the_run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracking = pytest.importorskip("mlflow.tracking", reason="mlflow is no dependency: pip install mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    asked = LoggerOptions(name="mlflow", project="faces", run="first")
    for batches in (0, 2):
        service = build_loggers(asked, tmp_path, batches)[1]
        service.log_hyperparams({"batches": batches})
        service.log_metrics({"loss": 0.5 - batches / 8}, batches)
        service.finalize("success")
    client = tracking.MlflowClient(f"sqlite:///{tmp_path}/logs/mlflow.db")
    run = client.get_run(service.version)
    assert (run.info.run_name, run.info.status, run.data.params) == ("first", "FINISHED", {"batches": "0"})
    assert [(each.step, each.value) for each in client.get_metric_history(service.version, "loss")] == [
        (0, 0.5),
        (2, 0.25),
    ]
