"""Layers the nets use and torch lacks: unit-length output, L2 pooling, maxout, depthwise joining, centring norm.

Source: Schroff et al. 2015, section 3 (L2 normalisation), table 1 (maxout), table 2 (L2 pooling in Inception rows).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class L2Normalize(nn.Module):
    """Scale rows to unit length: x / max(||x||_2, eps), (B, D) -> (B, D), always in float32.

    `eps` bounds the gradient of a row near zero by 1/eps; torch's own default of 1e-12 lets it reach 1e12.
    """

    def __init__(self, eps: float = 1e-4) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Return unit rows; an all-zero row stays zero."""
        return F.normalize(x.float() if x.dtype != torch.float64 else x, dim=-1, eps=self.eps)

    def extra_repr(self) -> str:
        """Show eps."""
        return f"eps={self.eps}"


class L2Pool2d(nn.Module):
    """Root of the summed squares of each window: sqrt(sum x^2 + eps), (B, C, H, W) -> (B, C, H', W').

    The squares are summed, not averaged: the L2 norm of the window (table 2 of the paper says L2). The output is up
    to `kernel` times as large as the input; the layer behind it is initialised smaller to make up for that. The eps
    keeps the gradient finite if a window is all zero, as ReLU makes many.
    """

    def __init__(self, kernel: int = 3, stride: int = 1, eps: float = 1e-6) -> None:
        super().__init__()
        self.kernel, self.stride, self.eps = kernel, stride, eps

    def forward(self, x: Tensor) -> Tensor:
        """Pool with padding kernel // 2."""
        x = x.float() if x.dtype == torch.float16 else x  # squares above 255 overflow there
        mean = F.avg_pool2d(x * x, self.kernel, self.stride, self.kernel // 2)
        return (mean * self.kernel**2 + self.eps).sqrt()

    def extra_repr(self) -> str:
        """Show the window."""
        return f"kernel={self.kernel}, stride={self.stride}"


class Maxout(nn.Linear):
    """The largest of p linear maps: max_j (W_j x + b_j), (B, C) -> (B, out).

    Source: Goodfellow et al. 2013 (arXiv 1302.4389); the paper's fc1 and fc2 have p=2.
    """

    def __init__(self, c_in: int, c_out: int, pieces: int = 2) -> None:
        super().__init__(c_in, c_out * pieces)
        self.pieces = pieces

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, out)."""
        return super().forward(x).unflatten(-1, (-1, self.pieces)).amax(-1)

    def extra_repr(self) -> str:
        """Show the widths and p."""
        return f"in_features={self.in_features}, out={self.out_features // self.pieces}, pieces={self.pieces}"


class ConvBlock(nn.Module):
    """Convolution, normalisation, activation, with padding kernel // 2 unless told otherwise.

    ``norm="batch"``: convolution without bias, batch norm, ReLU. ``norm="lrn"`` (the paper's nets, which
    normalise in layers of their own): convolution with bias, ReLU. `activation` is "relu", "prelu" (a slope for each
    channel) or "" for none. `eps` is batch norm's.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: int | tuple[int, int],
        stride: int = 1,
        *,
        norm: str = "batch",
        padding: int | None = None,
        groups: int = 1,
        activation: str = "relu",
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        batch = norm == "batch"
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        around = (height // 2, width // 2) if padding is None else padding
        self.conv = nn.Conv2d(c_in, c_out, (height, width), stride, around, groups=groups, bias=not batch)
        self.norm = nn.BatchNorm2d(c_out, eps=eps) if batch else nn.Identity()
        self.activation = {"relu": nn.ReLU(inplace=True), "": nn.Identity()}.get(activation) or nn.PReLU(c_out)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, c_out, H / stride, W / stride), rounded up where it pads."""
        return self.activation(self.norm(self.conv(x)))


class Depthwise(nn.Module):
    """Join a feature map by a learned weight for each channel and position, and batch norm: (B, C, *side) to (B, C).

    Source: the global depthwise convolution of Chen et al. 2018 (arXiv 1804.07573), section 3.2.
    """

    def __init__(self, channels: int, side: tuple[int, int]) -> None:
        super().__init__()
        self.block = ConvBlock(channels, channels, side, padding=0, groups=channels, activation="")

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C)."""
        return self.block(x).flatten(1)


class CentringNorm(nn.BatchNorm1d):
    """Batch norm of embeddings (B, D) that does not learn a scale: its weights stay 1, its shifts learn.

    Source: the last layer of InsightFace's nets.
    """

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__(width, eps=eps)
        del self.weight
        self.register_buffer("weight", torch.ones(width))


class LocalResponseNorm(nn.LocalResponseNorm):
    """Local response normalisation with AlexNet's constants, since the paper prints none.

    b_i = a_i / (k + alpha sum_j a_j^2)^beta over n = 5 neighbouring channels j, k = 2, alpha = 1e-4, beta = 0.75.
    Source: Krizhevsky et al. 2012, section 3.3. torch divides alpha by n. So alpha is 5e-4 here, except in edition 1,
    which passed 1e-4 on to torch.
    """

    def __init__(self, edition: int = 2) -> None:
        super().__init__(size=5, alpha=1e-4 if edition == 1 else 5e-4, beta=0.75, k=2.0)
