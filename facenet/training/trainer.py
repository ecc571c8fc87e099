"""Lightning's Trainer of a run: its device, its options, its logs, and filters for warnings that do not apply here."""

from __future__ import annotations

import contextlib
import inspect
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException

from facenet.errors import ConfigError, FacenetError, nearest
from facenet.training.checkpoints import AtomicCheckpointIO
from facenet.training.loggers import build_loggers
from facenet.training.options import TrainerOptions, TrainOptions

# Options of Lightning's Trainer that contradict ours, and what to use instead.
OURS = {
    **{
        name: f"use trainer.{name}"
        for name in (
            "max_steps", "val_check_interval", "accelerator", "devices", "num_nodes", "strategy", "precision",
            "log_every_n_steps",
        )
    },
    **dict.fromkeys(("max_epochs", "min_epochs", "min_steps", "limit_train_batches"), "use trainer.max_steps"),
    **dict.fromkeys(("check_val_every_n_epoch", "num_sanity_val_steps"), "use trainer.val_check_interval"),
    "fast_dev_run": "use trainer.max_steps=1",
    "overfit_batches": "use loader.repeat_batch=true",
    "sync_batchnorm": "the statistics of all ranks are averaged already",
    "limit_val_batches": "the held-out people are always looked at whole",
    "accumulate_grad_batches": "use optim.accumulate",
    **dict.fromkeys(("gradient_clip_val", "gradient_clip_algorithm"), "use optim.clip_norm"),
    **dict.fromkeys(("enable_progress_bar", "barebones"), "use trainer.progress"),
    "default_root_dir": "use hydra.run.dir",
    "enable_checkpointing": "checkpoints are always written into the run folder",
    "logger": "use logger=NAME, one of tensorboard, csv, wandb, mlflow and none",
    **dict.fromkeys(("callbacks", "plugins"), "it is no plain value"),
    **dict.fromkeys(("use_distributed_sampler", "reload_dataloaders_every_n_epochs"), "use the group sampler"),
}  # fmt: skip


class DeviceSettings(NamedTuple):
    """Values of "auto" on this machine."""

    precision: str  # in Lightning's words
    channels_last: bool
    compile: bool


def resolve_device(options: TrainerOptions) -> DeviceSettings:
    """Resolve the options that are "auto" on this machine.

    The defaults were the fastest in ``benchmark=training``, on a CPU and on CUDA. On CUDA bfloat16 and channels_last
    help together, if the batch fills the card.

    Raises:
        ConfigError: the options ask for a GPU, and there is none.
    """
    cuda, gpu = torch.cuda.is_available(), options.accelerator in ("gpu", "cuda")
    if gpu and not (cuda or torch.backends.mps.is_available()):
        raise ConfigError(f"trainer.accelerator: {options.accelerator!r} asks for a GPU, and there is none; use auto")
    precision = options.precision
    if precision == "auto":
        cuda = cuda and (gpu or options.accelerator == "auto")
        precision = "bf16-mixed" if cuda and torch.cuda.is_bf16_supported() else "32-true"
    channels_last = True if options.channels_last == "auto" else bool(options.channels_last)
    return DeviceSettings(precision, channels_last, options.compile)


def emulated_bf16(precision: str, device: str, cpuinfo: str | Path = "/proc/cpuinfo") -> str:
    """Return a line of warning if a processor has to emulate bfloat16; "" otherwise, or if its flags are unknown."""
    if not precision.startswith("bf16") or device != "cpu":
        return ""
    try:
        lines = Path(cpuinfo).read_text().splitlines()
    except OSError:
        return ""
    flags = {flag for line in lines if line.startswith(("flags", "Features")) for flag in line.split()}
    if not flags or flags & {"avx512_bf16", "amx_bf16", "avx_ne_convert", "bf16"}:
        return ""
    return (
        f"trainer.precision={precision}: this processor has no bfloat16 and emulates it, up to three times slower than"
        " trainer.precision=32-true"
    )


def check_extra(extra: Mapping[str, Any]) -> None:
    """Check the options under ``trainer.extra``.

    Raises:
        ConfigError: an option that contradicts ours (with the one to use instead), or an unknown name.
    """
    known = [name for name in inspect.signature(pl.Trainer).parameters if name not in OURS]
    for name in extra:
        if said := OURS.get(name) or TrainOptions.foreign.get(name):
            raise ConfigError(f"trainer.extra.{name}: {said}")
        if name not in known:
            raise ConfigError(
                f"trainer.extra.{name}: no option of Lightning's Trainer{nearest(name, known)}; known:"
                f" {', '.join(known)}"
            )


def build_trainer(
    options: TrainOptions,
    device: DeviceSettings,
    out: Path,
    *,
    callbacks: Sequence[pl.Callback],
    checkpoints: AtomicCheckpointIO,
    step: int = 0,
) -> pl.Trainer:
    """Build the Trainer of a run; `step` is the step it resumes from.

    Raises:
        ConfigError: a value that Lightning refuses.
    """
    given, accumulate = options.trainer, options.optim.accumulate
    with quiet_lightning():
        loggers = build_loggers(options.logger, out, step * accumulate)
    own: dict[str, Any] = {
        "max_steps": given.max_steps,
        "max_epochs": 1,  # the loader's one pass is the whole run, so a resumed run finds its place by its step
        "val_check_interval": min(given.val_check_interval, given.max_steps) * accumulate,
        "check_val_every_n_epoch": None,
        "callbacks": list(callbacks),
        "plugins": [checkpoints],
        "logger": loggers or False,
        "use_distributed_sampler": False,
        "num_sanity_val_steps": 0,
        "enable_progress_bar": False,
        "accelerator": given.accelerator,
        "devices": list(given.devices) if isinstance(given.devices, tuple) else given.devices,
        "num_nodes": given.num_nodes,
        "strategy": given.strategy,
        "precision": device.precision,
        "log_every_n_steps": given.log_every_n_steps * accumulate,  # Lightning counts batches
    }
    try:
        with quiet_lightning():
            return pl.Trainer(**{"enable_model_summary": False, **given.extra}, **own)
    except (MisconfigurationException, TypeError, ValueError) as error:
        if isinstance(error, FacenetError):
            raise
        raise ConfigError(f"trainer: {str(error)[:300]}") from error


@contextlib.contextmanager
def quiet_lightning() -> Iterator[None]:
    """Silence Lightning's adverts, and by name each warning that does not apply here."""
    loggers = [
        logging.getLogger(name)
        for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch", "lightning.fabric")
    ]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        for text in (
            ".*LeafSpec.*",  # Lightning calls a deprecated function of torch
            ".*does not have many workers.*",  # faces come from RAM
            ".*exists and is not empty.*",
            ".*your dataloader is not resumable.*",  # our loader is, by the batch's number
            ".*number of training batches.*log_every_n_steps.*",
            ".*`srun` command is available.*",  # a single run on the front node of a cluster
        ):
            warnings.filterwarnings("ignore", text)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
