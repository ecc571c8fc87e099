"""A small untrained encoder."""

from __future__ import annotations

import torch

from facenet.data.preprocess import Preprocess
from facenet.encoders.encoder import Encoder
from facenet.models.build import build_model

OPTIONS = {"embedding_dim": 16, "norm": "batch", "input_size": [32, 32], "dropout": 0.1}


def make(seed: int = 0, **preprocess: object) -> Encoder:
    torch.manual_seed(seed)
    model = build_model("small", **{**OPTIONS, "input_size": (32, 32)})  # type: ignore[arg-type]
    return Encoder(model, "small", OPTIONS, Preprocess(size=(32, 32), **preprocess))  # type: ignore[arg-type]
