"""The grammar of the row tables that the built-in nets are written in, and the names that their options take.

A net is a table of stages, a way of joining them, fully connected layers if it has any, and an embedding layer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

NORMS = {"batch": "batch norm after every convolution", "lrn": "the paper's local response norm"}
POOLS = {
    "average": "the mean over all positions",
    "flatten": "all positions side by side; fixes the input size",
    "attention": "learned queries over all positions",
}


class Conv(NamedTuple):
    """A plain convolution: output channels, kernel, stride."""

    name: str
    out: int
    kernel: int
    stride: int = 1


class Pool(NamedTuple):
    """A 3x3 max pool of stride 2."""

    name: str


class Norm(NamedTuple):
    """A normalisation layer of the paper's: LRN under ``norm="lrn"``, nothing under ``norm="batch"``."""

    name: str


class Row(NamedTuple):
    """One Inception row with the columns of table 2; a width of 0 leaves the branch out.

    A reduce width of 0 lets the convolution read the row's input. `pool` is the kind of the 3x3 pooling branch
    ("max", "L2" or "" for none); `proj` its 1x1 projection, 0 passes the pooled channels on. The `stride`
    sits in the 3x3 and 5x5 convolutions and in the pooling. `skip` adds the row's input to its output.
    """

    name: str
    c1x1: int
    reduce3: int
    c3x3: int
    reduce5: int
    c5x5: int
    pool: str
    proj: int
    stride: int = 1
    skip: bool = False

    def out(self, c_in: int) -> int:
        """Output channels for `c_in` input channels."""
        pooled = (self.proj or c_in) if self.pool else 0
        return self.c1x1 + self.c3x3 + self.c5x5 + pooled


class Full(NamedTuple):
    """A fully connected maxout layer after the joining: output width, pieces p of which the largest counts."""

    name: str
    out: int
    pieces: int = 2


Stage = Conv | Pool | Norm | Row


class Cost(NamedTuple):
    """Weights of convolutions and fully connected layers without biases, and their multiply-adds for one image."""

    params: float
    macs: float


class NetTable(NamedTuple):
    """A network: default input size (H, W), stages, what joins them to what follows, fully connected layers.

    `head` is a key of `POOLS`. `paper` holds the totals to meet, `printed` the figures the paper prints by layer.
    """

    input_size: tuple[int, int]
    stages: tuple[Stage, ...]
    head: str = "average"
    full: tuple[Full, ...] = ()
    paper: Cost | None = None
    printed: Mapping[str, Cost] = {}

    @property
    def shrink(self) -> int:
        """By how much the strides divide the input's sides, which is also the least side they allow."""
        strides = (2 if isinstance(stage, Pool) else getattr(stage, "stride", 1) for stage in self.stages)
        return math.prod(strides)
