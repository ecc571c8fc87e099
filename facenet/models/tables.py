"""The grammar of the row tables that the built-in nets are written in, and the names that their options take.

A net is a table of stages, a way of joining them, fully connected layers if it has any, and an embedding layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import nn

NORMS = {"batch": "batch norm after every convolution", "lrn": "the paper's local response norm"}
POOLS = {
    "average": "the mean over all positions",
    "flatten": "all positions side by side; fixes the input size",
    "depthwise": "a learned weight for each channel and position, and batch norm; fixes the input size",
    "attention": "learned queries over all positions",
}
FIXED = ("flatten", "depthwise")  # those that fix the input size


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


class Block(NamedTuple):
    """A stage of another kind: a function that builds it for its input channels, its output channels, its stride.

    It pads as the others do, so that a stride halves the size, rounded up; or, with `window`, it does not pad at all,
    and its windows of that many pixels end where the map ends.
    """

    name: str
    build: Callable[[int], nn.Module]
    out: int
    stride: int = 1
    window: int = 0


Stage = Conv | Pool | Norm | Row | Block


class Cost(NamedTuple):
    """Weights of convolutions and fully connected layers without biases, and their multiply-adds for one image."""

    params: float
    macs: float


class NetTable(NamedTuple):
    """A network: default input size (H, W), stages, what joins them to what follows, fully connected layers.

    `head` is a key of `POOLS`. `paper` holds the totals to meet, `printed` the figures the paper prints by layer.
    `embedding` builds the embedding layer of an input and an output width; None is a fully connected layer. `dim` is
    the embedding width that the totals are for.
    """

    input_size: tuple[int, int]
    stages: tuple[Stage, ...]
    head: str = "average"
    full: tuple[Full, ...] = ()
    paper: Cost | None = None
    printed: Mapping[str, Cost] = {}
    embedding: Callable[[int, int], nn.Module] | None = None
    dim: int = 128

    @property
    def least(self) -> int:
        """The least side of an input, which the stages bring to one position."""
        side = 1
        for stage in reversed(self.stages):
            stride, window = _steps(stage)
            side = (side - 1) * stride + window if window else side * stride
        return side

    def positions(self, side: int) -> int:
        """How many positions of the last stage lie along a side of the input."""
        for stage in self.stages:
            stride, window = _steps(stage)
            side = (side - window) // stride + 1 if window else -(-side // stride)
        return side


def _steps(stage: Stage) -> tuple[int, int]:
    """Return the stride of a stage and the side of its unpadded window, 0 if it is padded."""
    return 2 if isinstance(stage, Pool) else getattr(stage, "stride", 1), getattr(stage, "window", 0)
