"""The smallest net and encoder, and the people and pictures that the kinds of files are made of."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator

import numpy as np
import torch

from facenet.data.preprocess import Preprocess
from facenet.encoders.encoder import Encoder
from facenet.models.build import build_model
from facenet.models.registry import NETS, entry_of
from facenet.models.tables import Conv, NetTable

NAME, SIDE, D = "tiny", 16, 16
TINY = NetTable((SIDE, SIDE), (Conv("conv1", 4, 3, 2),))
OPTIONS = {"embedding_dim": D, "input_size": [SIDE, SIDE], "attention": {"after": "conv1", "num_features": 4}}
POOL = {"key_dim": 4, "num_features": 4, "seed": 0}
PICTURES = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), np.uint8)
PEOPLE = [f"p{number // 3}/{number}" for number in range(30)]


@contextlib.contextmanager
def tiny_net() -> Iterator[None]:
    """Let the smallest net be known by name for a while, in which nothing is warned of."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with NETS.restored(), warnings.catch_warnings():
            NETS.register(NAME, entry_of(TINY))
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def tiny_encoder() -> Encoder:
    """An untrained encoder of 16 dimensions."""
    torch.manual_seed(0)
    model = build_model(NAME, **{**OPTIONS, "input_size": (SIDE, SIDE)})  # type: ignore[arg-type]
    preprocess = Preprocess(size=(SIDE, SIDE))
    people = [{"role": "train", "salt": "ab", "count": 1, "hashes": "0123456789abcdef"}]
    return Encoder(model, NAME, OPTIONS, preprocess, {0.001: 1.1, 0.01: 1.3}, ["cd" * 32], {"people": people})
