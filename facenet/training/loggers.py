"""Where a run is logged: the table ``logs/metrics.csv``, TensorBoard, or a service whose package is no dependency."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter

from facenet.console import flatten, is_first_rank, plain
from facenet.errors import ConfigError
from facenet.files import read_csv, read_json, write_csv, write_json
from facenet.training.options import LoggerOptions

LOGS = "logs"
SERVICES = ("wandb", "mlflow")
RUN = "service.json"  # in the logs: the run of a service, so that a resumed training goes on in it


def check_logger(options: LoggerOptions) -> None:
    """Check that the package of a service is there, before the data is read.

    Raises:
        ConfigError: it is not installed.
    """
    if options.name in SERVICES and importlib.util.find_spec(options.name) is None:
        raise ConfigError(f"logger={options.name}: the package is not installed; pip install {options.name}")


def build_loggers(options: LoggerOptions, out: Path, batches: int = 0) -> list[Logger]:
    """Return the loggers of a run folder; services have one on rank 0 alone.

    A resumed run appends to the logs. Rows from batch number `batches` on, that of its checkpoint, are dropped. A
    service keeps them, and goes on in the same run.

    Raises:
        ConfigError: a service can not be reached or used.
    """
    if options.name == "none":
        return []
    table = CSVLogger(out, LOGS, "")
    if is_first_rank():
        table._experiment = _ResumedTable(out / LOGS, batches)
    if options.name == "tensorboard":
        return [table, TensorBoardLogger(out, LOGS, "", purge_step=batches or None)]
    return [table, _open_service(options, out, resumed=batches > 0)] if _logs_to_service(options) else [table]


def service_line(options: LoggerOptions, out: Path) -> list[str]:
    """Return the line on where a service shows the run; nothing without one."""
    return [f"logger={options.name}: {read_json(out / LOGS / RUN)['place']}"] if _logs_to_service(options) else []


@contextlib.contextmanager
def finishing(loggers: Sequence[Logger]) -> Iterator[None]:
    """Close the run of Weights & Biases at the end of the block; the next training in this process opens its own."""
    code = 1
    try:
        yield
        code = 0
    finally:
        for logger in loggers:
            if isinstance(logger, WandbLogger):
                logger.experiment.finish(exit_code=code)


def log_result(loggers: Sequence[Logger], metrics: Mapping[str, Any], step: int) -> None:
    """Log the numbers of a finished run as ``result/NAME`` to services."""
    leaves = {f"result/{name}": value for name, value in flatten(plain(metrics))}
    numbers = {name: value for name, value in leaves.items() if isinstance(value, int | float)}
    for logger in loggers:
        if isinstance(logger, WandbLogger | MLFlowLogger):
            logger.log_metrics(numbers, step)


def _logs_to_service(options: LoggerOptions) -> bool:
    return options.name in SERVICES and is_first_rank()


def _open_service(options: LoggerOptions, out: Path, *, resumed: bool) -> Logger:
    """Return the logger of a service with its run open; ``logs/service.json`` names the run."""
    path, name = out / LOGS / RUN, options.run or out.resolve().name
    kept = read_json(path) if resumed and path.is_file() else {}
    run = kept["id"] if kept.get("service") == options.name else None
    try:
        logger, place = (_wandb if options.name == "wandb" else _mlflow)(options, path.parent, name, run)
        write_json(path, {"service": options.name, "id": logger.version, "place": place})
    except ConfigError:
        raise
    except Exception as error:  # of a network, an account, a database: each service has its own kinds
        said = " ".join(str(error).split())[:200] or type(error).__name__
        began = f"; its run is named in {path}: remove the file to begin another" if run else ""
        raise ConfigError(f"logger={options.name}: {said}{began}; logger=csv logs into the run folder alone") from error
    return logger


def _wandb(options: LoggerOptions, logs: Path, name: str, run: str | None) -> tuple[Logger, str]:
    import wandb

    logs.mkdir(parents=True, exist_ok=True)
    opened: Any = wandb.init(
        project=options.project,
        name=name,
        id=run,
        resume="allow",
        dir=logs,
        mode=options.mode,
        settings=wandb.Settings(silent=True),
    )
    opened.define_metric("trainer/global_step")  # as Lightning's logger does if it opens the run
    opened.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    folder = logs / "wandb"  # a resumed run has several parts there
    place = f"wandb sync {folder}/offline-run-*-{opened.id} sends it" if opened.offline else opened.url
    return WandbLogger(project=options.project, save_dir=logs, experiment=opened), place


def _mlflow(options: LoggerOptions, logs: Path, name: str, run: str | None) -> tuple[Logger, str]:
    import mlflow  # noqa: F401 - it sets the level of its log

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logs.mkdir(parents=True, exist_ok=True)
    own = f"sqlite:///{logs.resolve() / 'mlflow.db'}"
    store = options.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or own
    artifacts = (logs / "artifacts").resolve().as_uri() if store == own else None
    given: dict[str, Any] = {"experiment_name": options.project, "run_name": name, "artifact_location": artifacts}
    logger = _ResumedMLFlow(tracking_uri=store, run_id=run, **given)
    place = re.sub("//[^/@]*@", "//", store)  # a password is not shown
    return logger, f"run {logger.run_id} in {place}; mlflow ui --backend-store-uri {place} shows it"


class _ResumedMLFlow(MLFlowLogger):
    """A logger whose resumed run keeps its first parameters: MLflow refuses one that changes."""

    def __init__(self, *, run_id: str | None, **given: Any) -> None:
        super().__init__(run_id=run_id, **given)
        self.resumed = run_id is not None

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Log the parameters of a run that begins."""
        if not self.resumed:
            super().log_hyperparams(*args, **kwargs)


class _ResumedTable(ExperimentWriter):
    """A CSV log that keeps the rows of an earlier run; Lightning's own removes them."""

    def __init__(self, folder: Path, batches: int) -> None:
        super().__init__(str(folder))
        path = Path(self.metrics_file_path)
        if not path.is_file():
            return
        table = read_csv(path, remedy="remove it to begin the log again")
        rows = [row for row in table if row.get("step", "").isdigit() and int(row["step"]) < batches]
        if not rows:
            path.unlink()
            return
        self.metrics_keys = list(rows[0])
        write_csv(path, self.metrics_keys, (row.values() for row in rows))

    def _check_log_dir_exists(self) -> None:
        """Do nothing; Lightning's own removes the rows here."""
