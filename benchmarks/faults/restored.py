"""Checkpoints as a fault campaign changes them: a tiny run is cut off, and what is left of it is gone on from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.faults.outcomes import Kind
from benchmarks.faults.tiny import NAME, OPTIONS, PICTURES
from facenet.files import sha256_file
from facenet.training.callbacks import TrainingProgress
from facenet.training.checkpoints import AtomicCheckpointIO, Restoring, check_states, read_checkpoint
from facenet.training.module import TripletModule

STEPS = 2


def run_of(folder: Path, steps: int, *callbacks: pl.Callback) -> tuple[pl.Trainer, TripletModule, Any]:
    """A run of so many steps that saves into a folder: trainer, module and batches."""
    torch.manual_seed(0)
    module = TripletModule(
        model={"name": NAME, **OPTIONS},
        loss={"name": "triplet", "margin": 0.2, "reduction": "mean"},
        mining={"miner": "semi_hard", "select": "nearest", "fallback": "none"},
        optim={"name": "adamw", "lr": 0.01, "schedule": "constant", "warmup_steps": 0},
        num_classes=2,
        total_steps=STEPS + 1,
    )
    images = torch.from_numpy(np.concatenate([PICTURES] * 6)).permute(0, 3, 1, 2) / 127.5 - 1
    faces = TensorDataset(images + torch.randn(len(images), 1, 1, 1), torch.arange(len(images)) % 2)
    kept = ModelCheckpoint(folder, filename="last", enable_version_counter=False, every_n_train_steps=STEPS)
    trainer = pl.Trainer(
        max_steps=steps,
        max_epochs=1,
        accelerator="cpu",
        devices=1,
        logger=False,
        callbacks=[TrainingProgress(enabled=False), *callbacks, kept],
        plugins=[AtomicCheckpointIO()],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
    )
    return trainer, module, DataLoader(faces, batch_size=4)


def _make(folder: Path) -> None:
    trainer, module, data = run_of(folder, STEPS)
    trainer.fit(module, data)


def _use(folder: Path) -> Any:
    """Go on for a step; the effect is the weights then, and what the checkpoint held."""
    last = folder / "last.ckpt"
    saved, restoring = read_checkpoint(last), Restoring()
    trainer, module, data = run_of(folder / "on", STEPS + 1, restoring)
    check_states(module, trainer, saved)
    with restoring.blame(last):
        trainer.fit(module, data, ckpt_path=last, weights_only=True)
    return module.state_dict(), saved.content


def _again(folder: Path, changed: str) -> None:
    if changed == "last.ckpt":
        (folder / "last.ckpt.sha256").write_text(sha256_file(folder / "last.ckpt"))


CHECKPOINTS = Kind(_make, _use, _again, "last.*", "last.ckpt")
