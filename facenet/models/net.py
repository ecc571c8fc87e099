"""What a net is, and the network that is built from a row table.

Padding is kernel // 2, so that a stride halves the size, rounded up, as every size-out of the paper does; a stage of a
net of others may leave it out.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from facenet.errors import ConfigError, DataError, choose
from facenet.models.attention.over_maps import AttentionBlock, AttentionPool
from facenet.models.layers import ConvBlock, Depthwise, L2Normalize, L2Pool2d, LocalResponseNorm, Maxout
from facenet.models.options import EDITION, AttentionOptions
from facenet.models.tables import FIXED, NORMS, POOLS, Block, Conv, NetTable, Norm, Pool, Row, Stage
from facenet.options import build, to_dict


@runtime_checkable
class Net(Protocol):
    """What a registered net keeps to, beside being an ``nn.Module``.

    Calling it maps images (B, 3, H, W), floats in [-1, 1], to unit embeddings (B, D).
    """

    embedding_dim: int  # D
    input_size: tuple[int, int]  # (H, W) it was built for

    def embedding_layer(self) -> nn.Module:
        """Return the layer whose output is the embedding before it is scaled to unit length."""
        ...


class Inception(nn.Module):
    """One row: parallel branches over the same input, concatenated over channels."""

    def __init__(self, row: Row, c_in: int, *, norm: str) -> None:
        super().__init__()
        self.branches = nn.ModuleList()
        self.columns: dict[str, str] = {}  # where a layer lies in `branches` -> its column in table 2
        if row.c1x1:
            self.columns["0"] = "1x1"
            self.branches.append(ConvBlock(c_in, row.c1x1, 1, row.stride, norm=norm))
        for reduce, width, kernel in ((row.reduce3, row.c3x3, 3), (row.reduce5, row.c5x5, 5)):
            if width:
                first = [ConvBlock(c_in, reduce, 1, norm=norm)] if reduce else []
                last = ConvBlock(reduce or c_in, width, kernel, row.stride, norm=norm)
                column = f"{kernel}x{kernel}"
                self._add([*first, last], [f"{column} reduce", column] if first else [column])
        if row.pool:
            kind = {"max": nn.MaxPool2d(3, row.stride, 1), "L2": L2Pool2d(3, row.stride)}[row.pool]
            proj = [ConvBlock(c_in, row.proj, 1, norm=norm)] if row.proj else []
            self._add([kind, *proj], ["pool", "pool proj"])
        self.skip = row.skip

    def _add(self, modules: list[nn.Module], columns: list[str]) -> None:
        self.columns |= {f"{len(self.branches)}.{i}": name for i, name in enumerate(columns)}
        self.branches.append(nn.Sequential(*modules))

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, H, W) -> (B, row.out(c_in), H / stride, W / stride)."""
        outs = [branch(x) for branch in self.branches]
        out = torch.cat(outs, 1) if len(outs) > 1 else outs[0]
        return out + x if self.skip else out


class EmbeddingNet(nn.Module):
    """Images (B, 3, H, W), floats in [-1, 1], to unit embeddings (B, D).

    Args:
        net: The row table.
        embedding_dim: D.
        norm: "batch" or "lrn".
        input_size: (H, W); None is the table's. A net that flattens positions accepts this size alone.
        dropout: Share of features dropped before the embedding layer while training.
        attention: Values of :class:`~facenet.models.options.AttentionOptions`.
        pool: A key of `POOLS` in place of the table's.
        edition: See :class:`~facenet.models.options.ModelOptions`.

    Raises:
        ConfigError: an input smaller than the strides allow, or an unknown stage, option or pool.
    """

    def __init__(
        self,
        net: NetTable,
        *,
        embedding_dim: int,
        norm: str,
        input_size: tuple[int, int] | None = None,
        dropout: float = 0.0,
        attention: Mapping[str, Any] | None = None,
        pool: str | None = None,
        edition: int = EDITION,
    ) -> None:
        super().__init__()
        pool, self.edition = pool or net.head, edition
        choose(NORMS, norm, "model.norm")
        choose(POOLS, pool, "model.pool")
        self.input_size, self.least = input_size or net.input_size, net.least
        self.any_size = pool not in FIXED
        self.embedding_dim = embedding_dim
        if min(self.input_size) < self.least:
            raise ConfigError(
                f"model.input_size: expected sides of at least {self.least}, of which one position is left, got"
                f" {list(self.input_size)}"
            )
        widths = self._build_stages(net, norm)
        options, self.attention = _attention(attention, widths, pool, edition)
        self.after = options.after
        channels = widths[net.stages[-1].name]
        positions = [net.positions(side) for side in self.input_size]
        self.pool, width = _pool(pool, channels, positions, options, edition)
        self.full = nn.Sequential()
        for layer in net.full:
            self.full.add_module(layer.name, Maxout(width, layer.out, layer.pieces))
            width = layer.out
        self.dropout = nn.Dropout(dropout)
        plain = functools.partial(nn.Linear, bias=norm != "batch")
        self.embedding = (net.embedding or plain)(width, embedding_dim)
        self.normalize = L2Normalize()
        if not next(self.parameters()).is_meta:  # weights of a file follow; torch draws on "meta" in seconds of imports
            for part in (self.stages, self.full, self.embedding):  # attention layers are initialised by themselves
                _initialise(part)

    def _build_stages(self, net: NetTable, norm: str) -> dict[str, int]:
        """Fill `stages` and return the output channels of each."""
        widths, channels = {}, 3
        self.stages = nn.ModuleDict()
        for stage in net.stages:
            self.stages[stage.name], channels = _stage(stage, channels, norm, self.edition)
            widths[stage.name] = channels
        return widths

    def features(self, images: Tensor) -> Tensor:
        """Return what the embedding layer reads, (B, C).

        Raises:
            DataError: images of a shape this net can not take.
        """
        self._check(images)
        x = images
        for name, stage in self.stages.items():
            x = stage(x)
            if self.attention is not None and name == self.after:
                x = self.attention(x)
        return self.full(self.pool(x))

    def forward(self, images: Tensor) -> Tensor:
        """Return unit embeddings (B, D) in float32."""
        return self.normalize(self.embedding(self.dropout(self.features(images))))

    def embedding_layer(self) -> nn.Module:
        """Return the last layer with weights, together with its batch norm if it has one."""
        return self.embedding

    def _check(self, images: Tensor) -> None:
        if images.ndim != 4 or images.shape[1] != 3:
            raise DataError(f"images: expected (batch, 3, height, width), got {tuple(images.shape)}")
        size = tuple(images.shape[2:])
        if not self.any_size and size != tuple(self.input_size):
            height, width = self.input_size
            raise DataError(
                f"images: expected {height}x{width}, got {size[0]}x{size[1]}; the net was built for one size,"
                f" resize the images or build it with model.input_size=[{size[0]},{size[1]}] or model.pool=average"
            )
        if min(size) < self.least:
            raise DataError(
                f"images: expected sides of at least {self.least}, of which one position is left, got"
                f" {size[0]}x{size[1]}; resize the images"
            )


def _stage(stage: Stage, c_in: int, norm: str, edition: int) -> tuple[nn.Module, int]:
    if isinstance(stage, Block):
        return stage.build(c_in), stage.out
    if isinstance(stage, Conv):
        return ConvBlock(c_in, stage.out, stage.kernel, stage.stride, norm=norm), stage.out
    if isinstance(stage, Pool):
        return nn.MaxPool2d(3, 2, 1), c_in
    if isinstance(stage, Norm):
        return (LocalResponseNorm(edition) if norm == "lrn" else nn.Identity()), c_in
    return Inception(stage, c_in, norm=norm), stage.out(c_in)


def _attention(
    values: Mapping[str, Any] | None, widths: dict[str, int], pool: str, edition: int
) -> tuple[AttentionOptions, AttentionBlock | None]:
    """Return the options of these values, and the block that comes after the stage `after`, if there is one."""
    options = build(AttentionOptions, values or {}, "model.attention.")
    if options.after is not None:
        width = choose(widths, options.after, "model.attention.after")
        return options, AttentionBlock(width, options, bounded=edition > 1)
    defaults = to_dict(AttentionOptions())
    changed = ", ".join(name for name, value in to_dict(options).items() if value != defaults[name])
    if changed and pool != "attention":
        raise ConfigError(
            f"model.attention: {changed} given, but there is no attention to apply it to; set model.attention.after"
            f" to a stage ({', '.join(widths)}) or model.pool=attention"
        )
    return options, None


def _pool(
    kind: str, channels: int, positions: list[int], options: AttentionOptions, edition: int
) -> tuple[nn.Module, int]:
    """Build what joins a map (B, channels, *positions) to the next layer, and its output width."""
    if kind == "attention":
        pool = AttentionPool(channels, options, bounded=edition > 1)
        return pool, pool.out_features
    if kind == "depthwise":
        return Depthwise(channels, (positions[0], positions[1])), channels
    if kind == "average":
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), channels
    return nn.Flatten(), channels * positions[0] * positions[1]


def _initialise(net: nn.Module) -> None:
    """Draw weights that keep the mean square of activations, and set biases to zero.

    Before ReLU, which halves the mean square, they are He's N(0, 2 / fan_in). Before nothing and before maxout of two
    pieces they are N(0, 1 / fan_in): of two independent a and b, max^2 + min^2 = a^2 + b^2, so the larger keeps the
    mean square of either. L2 pooling adds up a window of squares; a convolution behind it starts smaller by the root of
    their number.
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="linear")
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    for pooled in net.modules():
        if isinstance(pooled, nn.Sequential) and len(pooled) > 1 and isinstance(pooled[0], L2Pool2d):
            block = pooled[1]
            assert isinstance(block, ConvBlock)
            with torch.no_grad():
                block.conv.weight /= pooled[0].kernel
