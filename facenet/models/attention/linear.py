"""Multi-head linear attention as a layer, with streaming.

Sources: Peng et al., Random Feature Attention (ICLR 2021); Katharopoulos et al., Transformers are RNNs (ICML 2020).
Letters: B batch, h heads, L tokens, D width of a head, M width of a value, R random features. Features and sums are
float32 also under autocast.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facenet.errors import ConfigError, choose
from facenet.models.attention.forms import (
    NOTHING,
    State,
    attention_macs,
    bidirectional_attention,
    causal_attention,
)
from facenet.models.attention.random_features import FEATURES, FeatureMap

KERNELS = {**FEATURES, "softmax": "the exact softmax; above CROSSOVER tokens backend=auto estimates it"}
BACKENDS = {
    "auto": "exact softmax up to CROSSOVER tokens if features=softmax, else random features",
    "exact": "torch's scaled_dot_product_attention (features=softmax alone)",
    "linear": "random features, whatever the number of tokens",
}
LONGEST = {"positive": 10.0, "sincos": 1.0}  # scaled norm of a query or key that random features can stand
HOTTEST = 100.0  # limit of a learned temperature
CROSSOVER = {"bidirectional": 256, "causal": 1024}  # tokens up to which exact softmax is faster (benchmark=attention)


class LinearAttention(nn.Module):
    """Multi-head attention on q (B, h, L, D), k (B, h, L', D), v (B, h, L', M), without projections of its own.

    Args:
        dim: D.
        heads: h.
        features: A key of `KERNELS`.
        num_features: R.
        orthogonal: Orthogonal rows of the random projection.
        normalise: Scale q and k to unit length times a learned temperature of the head: the kernel is then
            exp(temperature * cos(q, k)).
        temperature: Initial value of the learned temperature.
        backend: A key of `BACKENDS`.
        seed: Seed of the projection, which is drawn once and stored with the weights.
        bounded: Shorten scaled queries and keys above `LONGEST`, each by itself, before their random features are made,
            and let no temperature exceed its square. Beyond it the features of "positive" underflow, and the
            denominators of "sincos" cross zero. The exact softmax has no bound.

    Raises:
        ConfigError: an unknown name, backend="exact" for a kernel that is not the softmax, or no temperature above 0.
    """

    def __init__(
        self,
        dim: int,
        *,
        heads: int = 1,
        features: str = "positive",
        num_features: int = 64,
        orthogonal: bool = True,
        normalise: bool = False,
        temperature: float = 2.0,
        backend: str = "auto",
        seed: int = 0,
        bounded: bool = True,
    ) -> None:
        super().__init__()
        choose(KERNELS, features, "attention.features")
        choose(BACKENDS, backend, "attention.backend")
        if backend == "exact" and features != "softmax":
            raise ConfigError(f"attention.backend: 'exact' computes features='softmax', got features={features!r}")
        if temperature <= 0:
            raise ConfigError(f"attention.temperature: expected a number above 0, got {temperature}")
        self.features, self.backend, self.heads = features, backend, heads
        kind = "positive" if features == "softmax" else features
        self.scale = 1.0 if normalise else dim**-0.25
        self.phi = FeatureMap(kind, dim, num_features, heads=heads, orthogonal=orthogonal, scale=self.scale, seed=seed)
        self.longest = LONGEST.get(kind) if bounded else None
        self.hottest = min(HOTTEST, self.longest**2) if self.longest else HOTTEST
        start = temperature if temperature < self.hottest else self.hottest / 2  # at the limit it would not learn
        self.log_temperature = nn.Parameter(torch.full((heads,), math.log(start))) if normalise else None
        self.extra_macs = 0  # multiply-adds of the last call, for one sample

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None = None, causal: bool = False) -> Tensor:
        """Return (B, h, L, M) in v's type; `mask` (B, L') is True for keys that count. A query without keys gives 0."""
        kind, (h, queries, D), (tokens, M) = v.dtype, q.shape[1:], v.shape[2:]
        if causal and queries != tokens:
            raise ValueError(f"causal attention: expected as many queries as keys, got {queries} and {tokens}")
        if tokens == 0:
            return v.new_zeros(len(q), h, queries, M)
        if mask is not None:  # masked values may be NaN
            k, v = (x.masked_fill(~mask[:, None, :, None], 0) for x in (k, v))
        with _full_precision(q):
            q, k, v = self._normed(q), self._normed(k), _wide(v)
            if self.exact(tokens, causal=causal):
                self.extra_macs = h * queries * tokens * (D + M)
                return _softmax(q, k, v, mask, causal, self.scale**2).to(kind)
            q, k = self._shortened(q), self._shortened(k)
            cost = attention_macs(tokens, D, M, self.phi.num_features, causal, features=self.phi.kind, queries=queries)
            self.extra_macs = h * cost.total
            if causal:
                return causal_attention(self.phi, q, k, v, mask=mask)[0].to(kind)
            return bidirectional_attention(self.phi, q, k, v, mask=mask).to(kind)

    def exact(self, tokens: int, *, causal: bool = False) -> bool:
        """Whether the exact softmax is computed for this number of keys."""
        if self.features != "softmax":
            return False
        return self.backend == "exact" or (
            self.backend == "auto" and tokens <= CROSSOVER["causal" if causal else "bidirectional"]
        )

    def start(self, batch: int, value_dim: int, *, like: Tensor | None = None) -> State:
        """Return the state before the first token; `like` gives device and type, by default those of the weights.

        Raises:
            ConfigError: exact softmax, which has no state of fixed size.
        """
        if self.features == "softmax" and self.backend != "linear":
            raise ConfigError(
                f"attention.backend: {self.backend!r} takes the exact softmax, which can not be streamed at constant"
                " cost; use backend='linear' or features='positive'"
            )
        if like is None:
            like = next(iter((*self.buffers(), *self.parameters(), torch.zeros(()))))
        sums = like.new_zeros(batch, self.heads, self.phi.width, value_dim + 1)
        return State(sums, sums.new_full((batch, self.heads, 1, 1), NOTHING))

    def step(
        self, q: Tensor, k: Tensor, v: Tensor, state: State, *, valid: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Stream one token: q, k (B, h, D), v (B, h, M) to out (B, h, M), at a cost that does not grow.

        `valid` (B,) is False for samples without a token: their state stays, and `out` is what q sees in it.
        """
        with _full_precision(q):
            q, k = (self._shortened(self._normed(x)) for x in (q, k))
            q, k, wide = (x[:, :, None] for x in (q, k, _wide(v)))
            mask = None if valid is None else valid[:, None]
            if mask is not None:
                k, wide = (x.masked_fill(~mask[:, None, :, None], 0) for x in (k, wide))
            out, state = causal_attention(self.phi, q, k, wide, mask=mask, state=state)
        return out[:, :, 0].to(v.dtype), state

    def _normed(self, x: Tensor) -> Tensor:
        x = _wide(x)
        if self.log_temperature is None:
            return x
        length = (self.log_temperature.clamp(max=math.log(self.hottest)) / 2).exp().to(x.dtype)
        return F.normalize(x, dim=-1, eps=1e-4) * length.view(-1, *[1] * (x.ndim - 2))

    def _shortened(self, x: Tensor) -> Tensor:
        """Shorten tokens above `longest`; normalised ones never are."""
        if self.longest is None or self.log_temperature is not None:
            return x
        longest = self.longest / self.scale
        norm = x.norm(dim=-1, keepdim=True).clamp(min=longest / 2)  # a zero has a gradient
        return x * (longest / norm).clamp(max=1)


def _full_precision(like: Tensor) -> AbstractContextManager[object]:
    """Switch autocast off; the meta device, which only counts shapes, has none."""
    return nullcontext() if like.is_meta else torch.autocast(like.device.type, enabled=False)


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _softmax(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, scale: float) -> Tensor:
    """Exact softmax attention of q and k; a query without keys gives 0."""
    if mask is None:
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=scale)
    seen = mask[:, None, None, :].expand(-1, 1, q.shape[2], -1)
    if causal:
        seen = seen & torch.ones(seen.shape[-2:], dtype=torch.bool, device=q.device).tril()
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=scale)
    return torch.where(seen.any(-1, keepdim=True), out, out.new_zeros(()))
