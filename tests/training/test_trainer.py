from __future__ import annotations

import inspect
import logging
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

from facenet.errors import ConfigError
from facenet.options import build
from facenet.training.checkpoints import AtomicCheckpointIO
from facenet.training.options import TrainerOptions, TrainOptions
from facenet.training.trainer import (
    OURS,
    build_trainer,
    check_extra,
    emulated_bf16,
    quiet_lightning,
    resolve_device,
)


def test_a_processor_without_bf16_is_warned_of(tmp_path: Path) -> None:
    with_, without, nothing = (tmp_path / name for name in ("with", "without", "nothing"))
    with_.write_text("processor : 0\nflags : fpu avx512f avx512_bf16\n")
    without.write_text("processor : 0\nflags : fpu avx512f avx512bw\n")
    assert "no bfloat16 and emulates it" in emulated_bf16("bf16-mixed", "cpu", without)
    for precision, device, file in (
        ("32-true", "cpu", without),
        ("bf16-mixed", "cuda", without),
        ("bf16-mixed", "cpu", with_),
        ("bf16-true", "cpu", nothing),
    ):
        assert not emulated_bf16(precision, device, file)


def test_what_auto_means_on_this_machine() -> None:
    cuda = torch.cuda.is_available()
    assert resolve_device(TrainerOptions(accelerator="cpu")) == ("32-true", True, False)
    assert resolve_device(TrainerOptions()).precision == ("bf16-mixed" if cuda else "32-true")
    chosen = TrainerOptions(accelerator="cpu", precision="bf16-mixed", channels_last=False, compile=True)
    assert resolve_device(chosen) == ("bf16-mixed", False, True)
    with pytest.raises(ConfigError, match=r"precision: unknown name 'bf16' .*known: .*bf16-mixed"):
        TrainerOptions(precision="bf16")
    with pytest.raises(ConfigError, match=r"channels_last: unknown name 'yes'; known: auto"):
        TrainerOptions(channels_last="yes")
    if not cuda:
        with pytest.raises(ConfigError, match=r"trainer\.accelerator: 'gpu' asks for a GPU, and there is none"):
            resolve_device(TrainerOptions(accelerator="gpu"))


def test_options_of_lightning_are_passed_on_or_refused(tmp_path: Path) -> None:
    given = {"max_steps": 3, "accelerator": "cpu", "extra": {"detect_anomaly": True, "enable_model_summary": True}}
    options = build(TrainOptions, {"trainer": given})
    check_extra(options.trainer.extra)
    device = resolve_device(options.trainer)
    trainer = build_trainer(options, device, tmp_path, callbacks=(), checkpoints=AtomicCheckpointIO())
    assert trainer._detect_anomaly
    for name in OURS:
        assert name in inspect.signature(pl.Trainer).parameters, "Lightning has no such option any more"
        with pytest.raises(ConfigError, match=rf"trainer\.extra\.{name}: "):
            check_extra({name: 1})
    broken = build(TrainOptions, {"trainer": {"strategy": "dpp", "accelerator": "cpu"}})
    with pytest.raises(ConfigError, match=r"trainer: .*dpp"):
        build_trainer(broken, device, tmp_path, callbacks=(), checkpoints=AtomicCheckpointIO())


def test_lightning_is_quiet_for_a_while() -> None:
    logger = logging.getLogger("pytorch_lightning")
    before = logger.level
    with quiet_lightning():
        assert logger.level == logging.ERROR
    assert logger.level == before
