"""Attention over the positions of a feature map: a residual block, and a pooling head with learned queries.

Letters: B batch, C channels, H W size of the map, h heads, L = H W tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from facenet.errors import ConfigError
from facenet.models.attention.linear import LinearAttention
from facenet.models.options import AttentionOptions
from facenet.options import to_dict


class Positions(nn.Module):
    """Add a learned linear map of sines of the coordinates to a grid of tokens, whatever its size.

    Coordinates run from 0 to 1 over the grid. The 16 numbers are sin and cos of pi f y and of pi f x, f = 1, 2, 4, 8.
    """

    frequencies: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.project = nn.Linear(16, channels, bias=False)
        self.register_buffer("frequencies", torch.tensor((1.0, 2.0, 4.0, 8.0)), persistent=False)

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, H W, C) to the same."""
        frequencies = torch.pi * self.frequencies.float()
        waves = []
        for side in grid:
            angle = (torch.arange(side, device=tokens.device) + 0.5)[:, None] / side * frequencies
            waves.append(torch.cat([angle.sin(), angle.cos()], 1))  # (side, 8)
        rows, columns = waves[0][:, None].expand(*grid, 8), waves[1][None].expand(*grid, 8)
        encoded = torch.cat([rows, columns], -1).flatten(0, 1)  # (H W, 16)
        return tokens + self.project(encoded.to(self.project.weight.dtype))


class _OverPositions(nn.Module):
    """Base of block and head: the positions of a feature map as normalised tokens with coordinates."""

    def __init__(self, channels: int, options: AttentionOptions) -> None:
        super().__init__()
        self.heads = options.heads
        if channels % self.heads:
            raise ConfigError(f"attention.heads: expected a divisor of the {channels} channels, got {self.heads}")
        self.norm = nn.LayerNorm(channels)
        self.positions = Positions(channels) if options.position else None

    def tokens(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the positions of a map (B, C, H, W), plain and normalised, both (B, H W, C)."""
        tokens = x.flatten(2).mT
        normed = self.norm(tokens)
        return tokens, normed if self.positions is None else self.positions(normed, (x.shape[2], x.shape[3]))


class AttentionBlock(_OverPositions):
    """Residual multi-head attention over the positions of a feature map: (B, C, H, W) to the same.

    y = x + gain * proj(attention(qkv(layer_norm(x) + positions))); gain starts at 0.1 for each channel.

    Args:
        channels: C, a multiple of the heads.
        options: Options of the attention; `after` is not read.
        bounded: As for :class:`LinearAttention`.

    Raises:
        ConfigError: heads that do not divide the channels, or as :class:`LinearAttention`.
    """

    def __init__(
        self,
        channels: int,
        options: AttentionOptions = AttentionOptions(),  # noqa: B008
        *,
        bounded: bool = True,
    ) -> None:
        super().__init__(channels, options)
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.attention = _linear_attention(channels // self.heads, options, bounded)
        self.project = nn.Linear(channels, channels, bias=False)
        self.gain = nn.Parameter(torch.full((channels,), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        """Return x plus what its positions see in each other."""
        _, normed = self.tokens(x)
        q, k, v = (_split(part, self.heads) for part in self.qkv(normed).chunk(3, -1))
        seen = self.attention(q, k, v).transpose(1, 2).flatten(2)  # (B, L, C)
        return x + (self.gain * self.project(seen)).mT.reshape(x.shape).to(x.dtype)


class AttentionPool(_OverPositions):
    """Pool a feature map by learned queries: (B, C, H, W) to (B, queries C).

    Each query of a head gives a weight to every position and averages the head's channels with these weights. Equal
    weights are average pooling.

    Args:
        channels: C, a multiple of the heads.
        options: As for :class:`AttentionBlock`.
        queries: Averages taken of each channel.
        key_dim: Width of a head's queries and keys, at most that of its channels.
        bounded: As for :class:`LinearAttention`.
    """

    def __init__(
        self,
        channels: int,
        options: AttentionOptions = AttentionOptions(),  # noqa: B008
        *,
        queries: int = 4,
        key_dim: int = 64,
        bounded: bool = True,
    ) -> None:
        super().__init__(channels, options)
        self.out_features = queries * channels
        dim = min(key_dim, channels // self.heads)
        self.key = nn.Linear(channels, self.heads * dim, bias=False)
        self.query = nn.Parameter(_drawn(self.heads, queries, dim, seed=options.seed))
        self.attention = _linear_attention(dim, options, bounded)

    def forward(self, x: Tensor) -> Tensor:
        """Return the queries' averages side by side."""
        tokens, normed = self.tokens(x)
        keys = _split(self.key(normed), self.heads)
        query = self.query.expand(x.shape[0], -1, -1, -1)
        return self.attention(query, keys, _split(tokens, self.heads)).transpose(1, 2).flatten(1)  # (B, queries C)


def _linear_attention(dim: int, options: AttentionOptions, bounded: bool) -> LinearAttention:
    used = {name: value for name, value in to_dict(options).items() if name not in ("after", "position")}
    return LinearAttention(dim, **used, bounded=bounded)


def _drawn(*shape: int, seed: int) -> Tensor:
    """Draw N(0, 1), the same numbers on every device; the meta device draws nothing."""
    if torch.get_default_device().type == "meta":
        return torch.empty(shape)
    return torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed), device="cpu")


def _split(x: Tensor, heads: int) -> Tensor:
    """(B, L, C) to (B, h, L, C / h)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)
