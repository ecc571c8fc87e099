"""The options of a training run that takes seconds."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from facenet.options import build
from facenet.training.options import TrainOptions

CONFIG: dict[str, Any] = {
    "model": {"name": "small", "embedding_dim": 16, "norm": "batch", "input_size": [32, 32], "dropout": 0.0},
    "loss": {
        "name": "triplet",
        "margin": 0.2,
        "reduction": "mean",
        "head": {"name": "cosface", "scale": 16.0, "margin": 0.1, "label_smoothing": 0.0},
        "head_share": 0.5,
        "head_weight": 0.25,
    },
    "mining": {"miner": "semi_hard", "select": "nearest", "fallback": "none", "max_triplets": 1000},
    "optim": {
        "name": "adamw",
        "lr": 1e-3,
        "weight_decay": 0.0,
        "momentum": 0.9,
        "schedule": "cosine",
        "warmup_steps": 2,
    },
    "num_classes": 5,
    "total_steps": 10,
}


SYNTHETIC = {
    "train_identities": 24,
    "held_out_identities": 8,
    "evaluation_identities": 8,
    "train_images": [1, 6],
    "held_out_images": [6, 6],
    "evaluation_images": [6, 6],
    "size": 40,
    "difficulty": 0.2,
}


def small_options(cache: Path, **changes: Any) -> TrainOptions:
    """Return the options of a small run; `changes` are values, or dicts of changes to a group of options."""
    base: dict[str, Any] = {
        "seed": 0,
        "init": None,
        "data": {"kind": "synthetic", "crop": 1.0, "synthetic": SYNTHETIC, "cache_dir": str(cache)},
        "preprocess": {"mean": [0.5] * 3, "std": [0.5] * 3, "mirror": True},
        "augment": {"enabled": True, "rotate": 5.0},
        "sampler": {"batch_size": 24, "faces_per_identity": 4, "negative_share": 0.1, "coverage": 5},
        "loader": {"cache": "auto", "workers": 0, "repeat_batch": False},
        "loss": {"name": "triplet", "margin": 0.2},
        **{key: copy.deepcopy(CONFIG[key]) for key in ("model", "mining", "optim")},
        "trainer": {
            "max_steps": 8,
            "val_check_interval": 4,
            "accelerator": "cpu",
            "log_every_n_steps": 2,
            "progress": True,
            "refresh_rate": 1,
        },
    }
    for key, value in changes.items():
        base[key] = {**base.get(key, {}), **value} if isinstance(value, dict) else value
    base["data"].setdefault("seed", base["seed"])
    return build(TrainOptions, base)
