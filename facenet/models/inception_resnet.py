"""Inception-ResNet-v1, the net of davidsandberg's facenet and of facenet-pytorch, for faces of 160x160.

Convolutions of the stem and those with a stride do not pad, so that 160 pixels become 79, 77, 38, 36, 17, 8 and 3.
Blocks add their branches, mixed by a 1x1 convolution and scaled, to their input.

Source: Szegedy et al., Inception-v4 (AAAI 2017, arXiv 1602.07261), figures 10 to 15; widths as in facenet-pytorch.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facenet.models.layers import ConvBlock
from facenet.models.tables import Block, NetTable

EPS = 1e-3  # of every batch norm
Layer = tuple[int, int | tuple[int, int]]  # output channels and kernel of a convolution
Branches = Sequence[Sequence[Layer]]
_conv = functools.partial(ConvBlock, eps=EPS)


def _chain(c_in: int, layers: Sequence[Layer], *, reduces: bool = False) -> nn.Sequential:
    """Build convolutions one behind the other; the last one of a branch that `reduces` has stride 2 and no padding."""
    found = []
    for i, (out, kernel) in enumerate(layers):
        last = reduces and i == len(layers) - 1
        found.append(_conv(c_in, out, kernel, 2, padding=0) if last else _conv(c_in, out, kernel))
        c_in = out
    return nn.Sequential(*found)


class ScaledResidual(nn.Module):
    """relu(x + scale * mix(branches of x)), (B, C, H, W) to the same; the last block of the net has no ReLU."""

    def __init__(self, channels: int, branches: Branches, scale: float, *, relu: bool = True) -> None:
        super().__init__()
        self.branches = nn.ModuleList(_chain(channels, layers) for layers in branches)
        self.mix = nn.Conv2d(sum(layers[-1][0] for layers in branches), channels, 1)
        self.scale, self.relu = scale, relu

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum."""
        out = x + self.scale * self.mix(torch.cat([branch(x) for branch in self.branches], 1))
        return F.relu(out) if self.relu else out


class Reduction(nn.Module):
    """Halve a map: branches that end with stride 2, beside a max pool, (B, C, H, W) to (B, more, (H - 1) / 2, ...)."""

    def __init__(self, channels: int, branches: Branches) -> None:
        super().__init__()
        self.branches = nn.ModuleList(_chain(channels, layers, reduces=True) for layers in branches)
        self.pool = nn.MaxPool2d(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Return branches and pooled input, concatenated over channels."""
        return torch.cat([*(branch(x) for branch in self.branches), self.pool(x)], 1)


_A: Branches = [[(32, 1)], [(32, 1), (32, 3)], [(32, 1), (32, 3), (32, 3)]]
_B: Branches = [[(128, 1)], [(128, 1), (128, (1, 7)), (128, (7, 1))]]
_C: Branches = [[(192, 1)], [(192, 1), (192, (1, 3)), (192, (3, 1))]]
_TO_B: Branches = [[(384, 3)], [(192, 1), (192, 3), (256, 3)]]
_TO_C: Branches = [[(256, 1), (384, 3)], [(256, 1), (256, 3)], [(256, 1), (256, 3), (256, 3)]]


def _repeated(channels: int, *, branches: Branches, scale: float, count: int) -> nn.Module:
    return nn.Sequential(*(ScaledResidual(channels, branches, scale) for _ in range(count)))


def _valid(name: str, out: int, kernel: int, stride: int = 1) -> Block:
    """Return a convolution of the stem that does not pad."""
    build = functools.partial(_conv, c_out=out, kernel=kernel, stride=stride, padding=0)
    return Block(name, build, out, stride, window=kernel)


def _embedding(width: int, dim: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, dim, bias=False), nn.BatchNorm1d(dim, eps=EPS))


INCEPTION_RESNET_V1 = NetTable(
    (160, 160),
    (
        _valid("conv1", 32, 3, 2),
        _valid("conv2", 32, 3),
        Block("conv3", functools.partial(_conv, c_out=64, kernel=3), 64),
        Block("pool3", lambda channels: nn.MaxPool2d(3, 2), 64, 2, window=3),
        _valid("conv4", 80, 1),
        _valid("conv5", 192, 3),
        _valid("conv6", 256, 3, 2),
        Block("row_a", functools.partial(_repeated, branches=_A, scale=0.17, count=5), 256),
        Block("reduce_a", functools.partial(Reduction, branches=_TO_B), 896, 2, window=3),
        Block("row_b", functools.partial(_repeated, branches=_B, scale=0.1, count=10), 896),
        Block("reduce_b", functools.partial(Reduction, branches=_TO_C), 1792, 2, window=3),
        Block("row_c", functools.partial(_repeated, branches=_C, scale=0.2, count=5), 1792),
        Block("last", functools.partial(ScaledResidual, branches=_C, scale=1.0, relu=False), 1792),
    ),
    embedding=_embedding,
)

NETS: dict[str, NetTable] = {"inception_resnet_v1": INCEPTION_RESNET_V1}
