"""Inception-style embedding networks as row tables.

NN4 is NN2 (table 2 of Schroff et al. 2015, arXiv 1503.03832) at 96x96 without the 5x5 convolutions of rows 4e,
5a and 5b. NNS2 is a reconstruction: the paper gives its totals and no table. `small` is ours, for two-core
machines. Padding is kernel // 2 everywhere, so that a stride halves the size, rounded up.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from facenet.models.layers import ConvBlock, L2Normalize, L2Pool2d, LocalResponseNorm


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


Stage = Conv | Pool | Norm | Row


class Net(NamedTuple):
    """A network: default input size (H, W), stages, and what joins them to the embedding layer.

    `head` "average" pools over all positions (the paper's), "flatten" keeps them apart.
    """

    input_size: tuple[int, int]
    stages: tuple[Stage, ...]
    head: str = "average"


_NN2_STEM: tuple[Stage, ...] = (
    Conv("conv1", 64, 7, 2),
    Pool("pool1"),
    Norm("norm1"),
    Row("inception_2", 0, 64, 192, 0, 0, "", 0),
    Norm("norm2"),
    Pool("pool2"),
    Row("inception_3a", 64, 96, 128, 16, 32, "max", 32),
    Row("inception_3b", 64, 96, 128, 32, 64, "L2", 64),
    Row("inception_3c", 0, 128, 256, 32, 64, "max", 0, stride=2),
    Row("inception_4a", 256, 96, 192, 32, 64, "L2", 128),
    Row("inception_4b", 224, 112, 224, 32, 64, "L2", 128),
    Row("inception_4c", 192, 128, 256, 32, 64, "L2", 128),
    Row("inception_4d", 160, 144, 288, 32, 64, "L2", 128),
)

NN4 = Net(
    (96, 96),
    (
        *_NN2_STEM,
        Row("inception_4e", 0, 160, 256, 0, 0, "max", 0, stride=2),
        Row("inception_5a", 384, 192, 384, 0, 0, "L2", 128),
        Row("inception_5b", 384, 192, 384, 0, 0, "max", 128),
    ),
)

# A reconstruction. Known are only "tiny Inception", the input and the totals: 4.3 M weights at 20 M multiply-adds, less
# than five uses of a weight per image, where NN4's rows use theirs 9 to 576 times. So the spatial size must fall fast
# (six halvings, to 3x2) and the weights must lie where it is smallest: one wide row at 3x2 and an embedding layer that
# reads all six positions. The widths of the other rows were then adjusted, in eighths, until both totals held.
NNS2 = Net(
    (140, 116),
    (
        Conv("conv1", 8, 3, 2),
        Pool("pool1"),
        Norm("norm1"),
        Row("inception_2", 0, 8, 24, 0, 0, "", 0),
        Norm("norm2"),
        Pool("pool2"),
        Row("inception_3a", 16, 24, 32, 8, 8, "max", 8),
        Row("inception_3b", 0, 16, 32, 8, 16, "max", 0, stride=2),
        Row("inception_4a", 24, 16, 32, 8, 16, "L2", 16),
        Row("inception_4b", 0, 16, 40, 8, 24, "max", 0, stride=2),
        Row("inception_5a", 56, 16, 88, 8, 16, "L2", 32),
        Row("inception_5b", 0, 40, 88, 8, 16, "max", 0, stride=2),
        Row("inception_6a", 2560, 80, 512, 32, 152, "L2", 384),
    ),
    head="flatten",
)

# Ours, for two cores and crops of 48 to 112 pixels: rows of one plain 3x3 convolution each, most of the work at 8x8
# and below, where the weights are; rows that keep their width add their input. Channels are multiples of 8; wider first
# rows would spend half the time in batch norm and ReLU.
SMALL = Net(
    (64, 64),
    (
        Conv("conv1", 24, 5, 2),
        Row("inception_2a", 0, 0, 48, 0, 0, "", 0, stride=2),
        Row("inception_2b", 0, 0, 48, 0, 0, "", 0, skip=True),
        Row("inception_3a", 0, 0, 128, 0, 0, "", 0, stride=2),
        Row("inception_3b", 0, 0, 128, 0, 0, "", 0, skip=True),
        Row("inception_3c", 0, 0, 128, 0, 0, "", 0, skip=True),
        Row("inception_4a", 0, 0, 256, 0, 0, "", 0, stride=2),
        Row("inception_4b", 0, 0, 256, 0, 0, "", 0, skip=True),
    ),
)

INCEPTION_NETS: dict[str, Net] = {"nn4": NN4, "nns2": NNS2, "small": SMALL}


class Inception(nn.Module):
    """One row: parallel branches over the same input, concatenated over channels."""

    def __init__(self, row: Row, c_in: int, *, norm: str) -> None:
        super().__init__()
        self.branches = nn.ModuleList()
        if row.c1x1:
            self.branches.append(ConvBlock(c_in, row.c1x1, 1, row.stride, norm=norm))
        for reduce, width, kernel in ((row.reduce3, row.c3x3, 3), (row.reduce5, row.c5x5, 5)):
            if width:
                first = [ConvBlock(c_in, reduce, 1, norm=norm)] if reduce else []
                last = ConvBlock(reduce or c_in, width, kernel, row.stride, norm=norm)
                self.branches.append(nn.Sequential(*first, last))
        if row.pool:
            kind = {"max": nn.MaxPool2d(3, row.stride, 1), "L2": L2Pool2d(3, row.stride)}[row.pool]
            proj = [ConvBlock(c_in, row.proj, 1, norm=norm)] if row.proj else []
            self.branches.append(nn.Sequential(kind, *proj))
        self.skip = row.skip

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, H, W) -> (B, row.out(c_in), H / stride, W / stride)."""
        outs = [branch(x) for branch in self.branches]
        out = torch.cat(outs, 1) if len(outs) > 1 else outs[0]
        return out + x if self.skip else out


def _stage(stage: Stage, c_in: int, norm: str) -> tuple[nn.Module, int]:
    if isinstance(stage, Conv):
        return ConvBlock(c_in, stage.out, stage.kernel, stage.stride, norm=norm), stage.out
    if isinstance(stage, Pool):
        return nn.MaxPool2d(3, 2, 1), c_in
    if isinstance(stage, Norm):
        return (LocalResponseNorm() if norm == "lrn" else nn.Identity()), c_in
    return Inception(stage, c_in, norm=norm), stage.out(c_in)


class InceptionNet(nn.Module):
    """Images (B, 3, H, W), floats in [-1, 1], to unit embeddings (B, D)."""

    def __init__(
        self, net: Net, *, embedding_dim: int, norm: str, input_size: tuple[int, int] | None, dropout: float
    ) -> None:
        super().__init__()
        self.input_size = input_size or net.input_size
        self.embedding_dim = embedding_dim
        channels = 3
        self.stages = nn.ModuleDict()
        for stage in net.stages:
            self.stages[stage.name], channels = _stage(stage, channels, norm)
        if net.head == "average":
            self.pool: nn.Module = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        else:
            halvings = sum(isinstance(s, Pool) or getattr(s, "stride", 1) == 2 for s in net.stages)
            self.pool = nn.Flatten()
            for size in self.input_size:
                channels *= -(-size // 2**halvings)
        self.dropout = nn.Dropout(dropout)
        self.embedding = nn.Linear(channels, embedding_dim, bias=norm != "batch")
        self.normalize = L2Normalize()
        _initialise(self)

    def features(self, images: Tensor) -> Tensor:
        """Return what the embedding layer reads, (B, C)."""
        x = images
        for stage in self.stages.values():
            x = stage(x)
        return self.pool(x)

    def forward(self, images: Tensor) -> Tensor:
        """Return unit embeddings (B, D) in float32."""
        return self.normalize(self.embedding(self.dropout(self.features(images))))


def _initialise(net: nn.Module) -> None:
    """He initialisation of the convolutions (fit for ReLU), a unit-variance embedding layer, zero biases."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="linear")
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)
