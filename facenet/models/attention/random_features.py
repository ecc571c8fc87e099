"""Feature maps phi whose inner products stand for an attention kernel, drawn once from a seed and stored.

Sources: sin and cos, Peng et al., Random Feature Attention (ICLR 2021); positive features, Choromanski et al.,
Rethinking Attention with Performers (ICLR 2021); elu + 1, Katharopoulos et al., Transformers are RNNs (ICML 2020).
Letters: B batch, h heads, L tokens, D width of a head, R random features, F width of phi.

The softmax kernel of q and k is exp(q.k / sqrt(D)) = exp(x_q.x_k) with x = D^(-1/4) q, the scaled token. A feature has
two parts, phi(x) = values * exp(log_scale), with one log_scale for a token. So nothing overflows, and a sum over tokens
may choose its own divisor.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facenet.errors import ConfigError, choose

FEATURES = {
    "sincos": "random Fourier features, 2 R wide: estimates softmax, best for scaled norms up to 1",
    "positive": "exponential random features, R wide: estimates softmax, denominators stay positive",
    "elu": "elu(x) + 1, D wide: a kernel of its own",
}


def draw_projection(heads: int, dim: int, num_features: int, *, orthogonal: bool, seed: int) -> Tensor:
    """Draw rows w ~ N(0, I), (h, D, R) float32, each head its own.

    With `orthogonal`, rows are orthogonal in blocks of D and have the length of a Gaussian vector. Each row alone is
    still N(0, I), so estimates stay unbiased, with less variance. The meta device draws nothing.
    """
    if torch.get_default_device().type == "meta":
        return torch.empty(heads, dim, num_features)
    generator = torch.Generator("cpu").manual_seed(seed)
    if not orthogonal:
        return torch.randn(heads, dim, num_features, generator=generator, device="cpu")
    blocks = []
    for _ in range(math.ceil(num_features / dim)):
        q, r = torch.linalg.qr(torch.randn(heads, dim, dim, generator=generator, dtype=torch.float64, device="cpu"))
        blocks.append(q * torch.diagonal(r, dim1=1, dim2=2).sign()[:, None])  # without the signs q is not uniform
    lengths = torch.randn(heads, dim, num_features, generator=generator, dtype=torch.float64, device="cpu").norm(
        dim=1, keepdim=True
    )
    return (torch.cat(blocks, 2)[..., :num_features] * lengths).float()


class FeatureMap(nn.Module):
    """phi of scale * tokens for each head: tokens (B, h, L, D) to values (B, h, L, F) and log_scale (B, h, L, 1).

    - "sincos": phi(x) = exp(|x|^2 / 2) [sin(w_r.x), cos(w_r.x)] / sqrt(R), F = 2 R
    - "positive": phi(x) = exp(w_r.x - |x|^2 / 2) / sqrt(R), F = R
    - "elu": phi(x) = elu(x) + 1, F = D

    The first two satisfy E[phi(x).phi(y)] = exp(x.y) over the draw of w_r ~ N(0, I).

    Raises:
        ConfigError: an unknown kind or a number below 1.
    """

    projection: Tensor | None

    def __init__(
        self,
        kind: str,
        dim: int,
        num_features: int,
        *,
        heads: int = 1,
        orthogonal: bool = True,
        scale: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        choose(FEATURES, kind, "attention.features")
        for name, value in (("dim", dim), ("num_features", num_features), ("heads", heads)):
            if value < 1:
                raise ConfigError(f"attention.{name}: expected at least 1, got {value}")
        self.kind, self.dim, self.num_features, self.scale = kind, dim, num_features, scale
        self.width = {"sincos": 2 * num_features, "positive": num_features, "elu": dim}[kind]
        drawn = None
        if kind != "elu":
            drawn = draw_projection(heads, dim, num_features, orthogonal=orthogonal, seed=seed)
        self.register_buffer("projection", drawn)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return (values, log_scale); values lie in [-1, 1], those of "elu" above 0."""
        values, top = self._values(tokens)
        if self.kind == "elu":
            return values, tokens.new_zeros(*tokens.shape[:-1], 1)
        half = tokens.square().sum(-1, keepdim=True) * (self.scale**2 / 2)
        log_scale = half if top is None else top - half
        return values, log_scale - math.log(self.num_features) / 2

    def values(self, tokens: Tensor) -> Tensor:
        """Return the values alone; the ratio cancels the scale of a query."""
        return self._values(tokens)[0]

    def _values(self, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        if self.projection is None:
            return F.elu(tokens * self.scale) + 1, None
        projected = tokens @ (self.projection * self.scale).to(tokens.dtype)  # (B, h, L, R)
        if self.kind == "sincos":
            return torch.cat([projected.sin(), projected.cos()], -1), None
        top = projected.detach().amax(-1, keepdim=True)  # cancels, so it needs no gradient
        return projected.sub_(top).exp_(), top

    def extra_repr(self) -> str:
        """Show the kind and widths."""
        return f"{self.kind}, dim={self.dim}, width={self.width}"
