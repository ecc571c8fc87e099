"""Options of a training run: :func:`facenet.train` takes them whole."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from facenet.data.options import AugmentOptions, DataOptions, LoaderOptions, PreprocessOptions, SamplerOptions
from facenet.losses.options import HarmonicOptions, LossOptions, MiningOptions
from facenet.models.options import ModelOptions
from facenet.options import SHARE, Options, option


@dataclass(frozen=True, kw_only=True)
class OptimOptions(Options):
    """Optimiser, schedule, and what happens to a step that is not finite."""

    name: str = option("adamw", choices=("adamw", "sgd", "adagrad"), help="the paper's is adagrad")
    lr: float = option(1e-3, above=0, most=1e6, help="learning rate at its peak")
    weight_decay: float = option(0.05, least=0, help="of weights, not of norms and biases")
    momentum: float = option(0.9, least=0, below=1, help="of sgd; the first beta of adamw")
    schedule: str = option("cosine", choices=("cosine", "step", "constant"), help="of the rate after the warm-up")
    warmup_steps: int = option(20, least=0, help="steps over which the rate rises")
    clip_norm: float | None = option(None, above=0, help="largest norm of the gradient; null is no limit")
    accumulate: int = option(1, least=1, help="batches of a step")
    ema: float | None = option(None, above=0, below=1, help="decay of averaged weights (0.999), which encoders have")
    embedding_first: float = option(0.0, **SHARE, help="share of the steps in which the embedding layer learns alone")
    stage_decay: float = option(1.0, above=0, most=1, help="factor of the rate from a stage to the one before it")
    freeze_norms: bool = option(False, help="batch norms before the embedding layer keep weights and statistics")
    not_finite: str = option("fatal", choices=("fatal", "skip"), resumable=True, help="a step whose loss is not finite")
    not_finite_limit: int = option(10, least=1, resumable=True, help="so many in a row end the run")


@dataclass(frozen=True, kw_only=True)
class LargeBatchOptions(Options):
    """The gradient cache: a mini-batch of any size in chunks."""

    chunk_size: int | str | None = option(
        None, least=2, choices=("auto",), help="images at a time: a number, auto (what fits), null (all)"
    )
    memory_gb: float | None = option(None, above=0, resumable=True, help="budget; null is 80 % of what is free")


@dataclass(frozen=True, kw_only=True)
class TrainerOptions(Options):
    """Where and how long a run computes; Lightning's own options stand under `extra`."""

    max_steps: int = option(400, least=1, help="optimiser steps of the run")
    val_check_interval: int = option(100, least=1, help="steps between two looks at the held-out people")
    monitor: str = option(
        "val_accuracy", choices=("val_accuracy", "val_auc"), help="what chooses the checkpoint; the AUC is steadier"
    )
    accelerator: str = option("auto", resumable=True, help="Lightning's: auto, cpu, gpu")
    devices: int | str | tuple[int, ...] = option(1, resumable=True, help="Lightning's: ranks on this machine")
    num_nodes: int = option(1, least=1, resumable=True, help="machines")
    strategy: str = option("auto", resumable=True, help="Lightning's: auto, ddp, ...")
    precision: str = option(
        "auto", choices=("auto", "32-true", "bf16-mixed", "16-mixed"), help="auto: bf16-mixed on CUDA, else 32-true"
    )
    channels_last: bool | str = option("auto", choices=("auto",), help="memory format of the net: auto, true, false")
    compile: bool = option(False, help="torch.compile; if it fails, one line says so and training goes on")
    log_every_n_steps: int = option(10, least=1, resumable=True, help="steps between two lines of the logs")
    refresh_rate: int = option(10, least=1, resumable=True, help="steps between two changes of the progress bar")
    progress: bool = option(True, resumable=True, help="show progress")
    extra: dict[str, Any] = option({}, help="options of Lightning's Trainer: trainer.extra.NAME=VALUE")


@dataclass(frozen=True, kw_only=True)
class LoggerOptions(Options):
    """Where a run is logged.

    The table logs/metrics.csv, which the report reads, is always written but with none.
    """

    name: str = option(
        "tensorboard",
        choices=("tensorboard", "csv", "wandb", "mlflow", "none"),
        resumable=True,
        help="beside the table; wandb and mlflow are packages to install",
    )
    project: str = option("facenet", resumable=True, help="project of wandb, experiment of mlflow")
    run: str | None = option(None, resumable=True, help="name that wandb or mlflow shows; null: that of the run folder")
    mode: str | None = option(
        None,
        choices=("online", "offline"),
        resumable=True,
        help="of wandb; offline writes into the run folder; null: as WANDB_MODE says, else online",
    )
    tracking_uri: str | None = option(
        None,
        resumable=True,
        help="store of mlflow; null: as MLFLOW_TRACKING_URI says, else a database in the run folder",
    )


@dataclass(frozen=True, kw_only=True)
class ScaleOptions(Options):
    """How large the paper's tables are run, by net."""

    name: str | None = option(None, help="of the scale")
    steps: dict[str, int] = option({}, help="steps of each net")
    check_every: dict[str, int] = option({}, help="val_check_interval of each net")
    drawn: dict[str, int] = option({}, help="side of drawn faces for each net")
    input_size: dict[str, tuple[int, int]] = option({}, help="input of each net")


@dataclass(frozen=True, kw_only=True)
class TrainOptions(Options):
    """All options of a training run."""

    # what users of Lightning type, and what to write instead
    foreign = MappingProxyType(
        {
            **dict.fromkeys(
                ("ckpt_path", "resume_from_checkpoint"),
                "to resume a run write hydra.run.dir=RUN resume=auto; to start from an encoder, init=ENCODER",
            ),
            "logger": "write logger=NAME, one of tensorboard, csv, wandb, mlflow and none",
        }
    )

    table: str | None = option(None, help="table of the paper that this run is of; experiment=table3 sets it")
    scale: ScaleOptions = ScaleOptions()
    fold: int | None = option(None, least=0, help="of LFW's View 2, from 1: experiment=lfw_view2 fold=1")
    seed: int = option(0, least=0, most=2**32 - 1, help="of weights, batches and draws; of the faces: data.seed")
    init: str | None = option(None, help="encoder, file of weights, or timm: where weights start from")
    gate: bool = option(False, help="with init: refuse an encoder not surely better than its start")
    resume: str | None = option(
        None,
        choices=("auto",),
        resumable=True,
        help="auto: keep what is finished in the run folder, go on with the rest",
    )
    data: DataOptions = DataOptions()
    preprocess: PreprocessOptions = PreprocessOptions()
    augment: AugmentOptions = AugmentOptions()
    sampler: SamplerOptions = SamplerOptions()
    loader: LoaderOptions = LoaderOptions()
    model: ModelOptions = ModelOptions()
    mining: MiningOptions = MiningOptions()
    loss: LossOptions = LossOptions()
    optim: OptimOptions = OptimOptions()
    large_batch: LargeBatchOptions = LargeBatchOptions()
    trainer: TrainerOptions = TrainerOptions()
    logger: LoggerOptions = LoggerOptions()
    harmonic: HarmonicOptions = HarmonicOptions()
