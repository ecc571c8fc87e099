"""A net of two layers, as fast as reading pictures is, for benchmarks of what lies around a net: a plugin."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from facenet.data.preprocess import Preprocess
from facenet.encoders.bundle import save_bundle
from facenet.encoders.encoder import Encoder
from facenet.models.registry import register_net

NET = "benchmark_tiny"


class Tiny(nn.Module):
    """One convolution and one linear layer."""

    def __init__(self, embedding_dim: int, input_size: tuple[int, int]) -> None:
        super().__init__()
        self.embedding_dim, self.input_size = embedding_dim, tuple(input_size)
        self.features = nn.Sequential(nn.Conv2d(3, 8, 4, stride=4), nn.ReLU(), nn.Flatten())
        self.embedding = nn.Linear(8 * (input_size[0] // 4) ** 2, embedding_dim)

    def forward(self, images: Tensor) -> Tensor:
        """Return unit vectors (B, D)."""
        return nn.functional.normalize(self.embedding(self.features(images)), eps=1e-6)

    def embedding_layer(self) -> nn.Module:
        """Return the last layer."""
        return self.embedding


def build_tiny(**options: Any) -> nn.Module:
    """Build the net from the options of a registered one."""
    return Tiny(options["embedding_dim"], options["input_size"])


register_net(NET, build_tiny, input_size=(16, 16))


def make_encoder(folder: str, dim: int, side: int) -> None:
    """Write an encoder with the net, which reads pictures of `side` x `side` pixels."""
    torch.manual_seed(0)
    settings = {"embedding_dim": dim, "input_size": [side, side]}
    preprocess = Preprocess(size=(side, side), mirror=False)
    save_bundle(Encoder(Tiny(dim, (side, side)), NET, settings, preprocess), folder)
