"""Nets for phones, for faces of 112x112: MobileFaceNet, and the MobileNet that SFace is.

Both separate a convolution into one of each channel (depthwise, 3x3) and one of each position (1x1). MobileFaceNet's
blocks widen, filter and narrow, and add their input; its last map is joined by a learned weight for each position.

Sources: Chen et al., MobileFaceNets (2018, arXiv 1804.07573), table 1. MobileNet: Howard et al. (2017, arXiv
1704.04861), table 1, with PReLU, without the first stride; so it is in SFace's file, and in InsightFace (fmobilenet).
"""

from __future__ import annotations

import functools

from torch import Tensor, nn

from facenet.models.layers import CentringNorm, ConvBlock
from facenet.models.tables import Block, Cost, NetTable

_conv = functools.partial(ConvBlock, activation="prelu")


class Bottleneck(nn.Module):
    """Widen to `hidden` channels, filter each, narrow to c_out: (B, c_in, H, W) to (B, c_out, H / stride, ...)."""

    def __init__(self, c_in: int, hidden: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.widen = _conv(c_in, hidden, 1)
        self.filter = _conv(hidden, hidden, 3, stride, groups=hidden)
        self.narrow = ConvBlock(hidden, c_out, 1, activation="")
        self.skip = stride == 1

    def forward(self, x: Tensor) -> Tensor:
        """Add the input where the size stays."""
        out = self.narrow(self.filter(self.widen(x)))
        return out + x if self.skip else out


class Separable(nn.Module):
    """A separated 3x3 convolution: one of each channel, then 1x1, (B, c_in, H, W) to (B, c_out, H / stride, ...)."""

    def __init__(self, c_in: int, c_out: int, stride: int, eps: float) -> None:
        super().__init__()
        self.depthwise = _conv(c_in, c_in, 3, stride, groups=c_in, eps=eps)
        self.pointwise = _conv(c_in, c_out, 1, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """Filter the channels, then mix them."""
        return self.pointwise(self.depthwise(x))


def _repeated(c_in: int, *, hidden: int, count: int) -> nn.Module:
    return nn.Sequential(*(Bottleneck(c_in, hidden, c_in, 1) for _ in range(count)))


def _mobilefacenet(width: int, published: Cost | None = None) -> NetTable:
    """Return the table of a net whose first maps have `width` channels; the paper's 64, InsightFace's mbf 128."""

    def down(name: str, hidden: int, out: int) -> Block:
        return Block(name, functools.partial(Bottleneck, hidden=hidden, c_out=out, stride=2), out, stride=2)

    def same(name: str, hidden: int, out: int, count: int) -> Block:
        return Block(name, functools.partial(_repeated, hidden=hidden, count=count), out)

    stages = (
        Block("conv1", functools.partial(_conv, c_out=width, kernel=3, stride=2), width, stride=2),
        Block("conv2", functools.partial(_conv, c_out=width, kernel=3, groups=64), width),
        down("down3", 128, width),
        same("row3", 128, width, 4),
        down("down4", 256, 2 * width),
        same("row4", 256, 2 * width, 6),
        down("down5", 512, 2 * width),
        same("row5", 256, 2 * width, 2),
        Block("conv6", functools.partial(_conv, c_out=512, kernel=1), 512),
    )
    return NetTable((112, 112), stages, head="depthwise", paper=published, embedding=_normed)


def _normed(width: int, dim: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, dim, bias=False), nn.BatchNorm1d(dim))


# Output channels and stride of the separated convolutions; SFace's batch norms have eps of their own.
_SEPARATED = (
    *((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)), *[(512, 1)] * 5, (1024, 2), (1024, 1)
)  # fmt: skip
_EPS, _LAST_EPS = 1e-3, 2e-5


def _separated() -> tuple[Block, ...]:
    first = Block("conv1", functools.partial(_conv, c_out=32, kernel=3, eps=_EPS), 32)
    rows = [
        Block(f"conv{i}", functools.partial(Separable, c_out=out, stride=stride, eps=_EPS), out, stride=stride)
        for i, (out, stride) in enumerate(_SEPARATED, start=2)
    ]
    return first, *rows, Block("norm", functools.partial(nn.BatchNorm2d, eps=_LAST_EPS), 1024)


def _centred(width: int, dim: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, dim), CentringNorm(dim, eps=_LAST_EPS))


NETS: dict[str, NetTable] = {
    "mobilefacenet": _mobilefacenet(64, Cost(0.99e6, 221e6)),
    "mbf": _mobilefacenet(128),
    "fmobilenet": NetTable((112, 112), _separated(), head="flatten", embedding=_centred),
}
