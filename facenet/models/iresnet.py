"""InsightFace's residual nets for faces of 112x112: the backbones of ArcFace.

A block is batch norm, 3x3, batch norm, PReLU, 3x3 (with the stride), batch norm, and the input beside it. The last map
is normalised and flattened; batch norm follows the embedding layer.

Source: Deng et al., ArcFace (CVPR 2019, arXiv 1801.07698), section 3.1; depths as in InsightFace's arcface_torch.
"""

from __future__ import annotations

import functools

from torch import Tensor, nn

from facenet.models.layers import CentringNorm, ConvBlock
from facenet.models.tables import Block, Cost, NetTable


class Residual(nn.Module):
    """One residual block, (B, c_in, H, W) to (B, c_out, H / stride, W / stride)."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(c_in)
        self.first = ConvBlock(c_in, c_out, 3, activation="prelu")
        self.second = ConvBlock(c_out, c_out, 3, stride, activation="")
        self.beside = ConvBlock(c_in, c_out, 1, stride, activation="") if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Add the input, brought to the output's shape by a 1x1 convolution where that differs."""
        return self.second(self.first(self.norm(x))) + self.beside(x)


def _layer(c_in: int, *, c_out: int, depth: int) -> nn.Module:
    """Build a stage of `depth` blocks; the first has stride 2."""
    return nn.Sequential(*(Residual(c_out if i else c_in, c_out, 1 if i else 2) for i in range(depth)))


def _embedding(width: int, dim: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, dim), CentringNorm(dim))


def _table(depths: tuple[int, int, int, int], published: Cost) -> NetTable:
    widths = (64, 128, 256, 512)
    layers = [
        Block(f"layer{i + 1}", functools.partial(_layer, c_out=width, depth=depth), width, stride=2)
        for i, (width, depth) in enumerate(zip(widths, depths, strict=True))
    ]
    stem = Block("stem", functools.partial(ConvBlock, c_out=64, kernel=3, activation="prelu"), 64)
    norm = Block("norm", nn.BatchNorm2d, widths[-1])
    return NetTable((112, 112), (stem, *layers, norm), head="flatten", paper=published, embedding=_embedding, dim=512)


# Published: weights and multiply-adds that InsightFace prints.
NETS: dict[str, NetTable] = {
    "iresnet18": _table((2, 2, 2, 2), Cost(24.0e6, 2.6e9)),
    "iresnet50": _table((3, 4, 14, 3), Cost(43.6e6, 6.3e9)),
    "iresnet100": _table((3, 13, 30, 3), Cost(65.1e6, 12.1e9)),
}
