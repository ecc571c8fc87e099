"""Linear attention as layers: multi-head attention with streaming, a block, a pooling head, and TrackPool.

Sources: Peng et al., Random Feature Attention (ICLR 2021); Katharopoulos et al., Transformers are RNNs (ICML 2020).
Letters: B batch, h heads, L tokens, D width of a head, M width of a value, R random features. Features and sums are
float32 also under autocast.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

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

KERNELS = {**FEATURES, "softmax": "the exact softmax; backend=auto leaves it above CROSSOVER tokens"}
BACKENDS = {
    "auto": "exact softmax up to CROSSOVER tokens where features=softmax, else random features",
    "exact": "torch's scaled_dot_product_attention (features=softmax alone)",
    "linear": "random features, whatever the number of tokens",
}
HOTTEST = 100.0  # a learned temperature goes no further: beyond, features of unlike tokens underflow
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
        temperature: Where that starts.
        backend: A key of `BACKENDS`.
        seed: Of the projection, which is drawn once and stored with the weights.

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
        self.log_temperature = nn.Parameter(torch.full((heads,), math.log(temperature))) if normalise else None
        self.extra_macs = 0  # multiply-adds of the last call, for one sample

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None = None, causal: bool = False) -> Tensor:
        """Return (B, h, L, M) in v's type; `mask` (B, L') is True where a key counts. Nothing to see gives 0."""
        kind, (h, queries, D), (tokens, M) = v.dtype, q.shape[1:], v.shape[2:]
        if causal and queries != tokens:
            raise ValueError(f"causal attention: expected as many queries as keys, got {queries} and {tokens}")
        if tokens == 0:
            return v.new_zeros(len(q), h, queries, M)
        if mask is not None:  # what is not there may be anything, also NaN
            k, v = (x.masked_fill(~mask[:, None, :, None], 0) for x in (k, v))
        with _full_precision(q):
            q, k, v = self._normed(q), self._normed(k), _wide(v)
            if self.exact(tokens, causal=causal):
                self.extra_macs = h * queries * tokens * (D + M)
                return _softmax(q, k, v, mask, causal, self.scale**2).to(kind)
            cost = attention_macs(tokens, D, M, self.phi.num_features, causal, features=self.phi.kind, queries=queries)
            self.extra_macs = h * cost.total
            if causal:
                return causal_attention(self.phi, q, k, v, mask=mask)[0].to(kind)
            return bidirectional_attention(self.phi, q, k, v, mask=mask).to(kind)

    def exact(self, tokens: int, *, causal: bool = False) -> bool:
        """Tell whether this number of keys is attended to by the exact softmax."""
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

        `valid` (B,) is False where this sample has no token: its state stays, and `out` is what q sees in it.
        """
        with _full_precision(q):
            q, k, wide = (x[:, :, None] for x in (self._normed(q), self._normed(k), _wide(v)))
            mask = None if valid is None else valid[:, None]
            if mask is not None:
                k, wide = (x.masked_fill(~mask[:, None, :, None], 0) for x in (k, wide))
            out, state = causal_attention(self.phi, q, k, wide, mask=mask, state=state)
        return out[:, :, 0].to(v.dtype), state

    def _normed(self, x: Tensor) -> Tensor:
        x = _wide(x)
        if self.log_temperature is None:
            return x
        length = (self.log_temperature.clamp(max=math.log(HOTTEST)) / 2).exp().to(x.dtype)
        return F.normalize(x, dim=-1, eps=1e-4) * length.view(-1, *[1] * (x.ndim - 2))


def _full_precision(like: Tensor) -> AbstractContextManager[object]:
    """Keep autocast out; there is none on the meta device, where only shapes are counted."""
    return nullcontext() if like.is_meta else torch.autocast(like.device.type, enabled=False)


class Positions(nn.Module):
    """Add a learned linear map of sines of the coordinates to a grid of tokens, whatever its size.

    Coordinates run from 0 to 1 over the grid; for f = 1, 2, 4, 8: sin and cos of pi f y and of pi f x, 16 numbers.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.project = nn.Linear(16, channels, bias=False)

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, H W, C) to the same."""
        frequencies = torch.pi * 2.0 ** torch.arange(4, device=tokens.device)
        waves = []
        for side in grid:
            angle = (torch.arange(side, device=tokens.device) + 0.5)[:, None] / side * frequencies
            waves.append(torch.cat([angle.sin(), angle.cos()], 1))  # (side, 8)
        rows, columns = waves[0][:, None].expand(*grid, 8), waves[1][None].expand(*grid, 8)
        encoded = torch.cat([rows, columns], -1).flatten(0, 1)  # (H W, 16)
        return tokens + self.project(encoded.to(self.project.weight.dtype))


class _OverPositions(nn.Module):
    """What the block and the head share: a feature map's positions as normed tokens that know where they are."""

    def __init__(self, channels: int, heads: int, position: bool) -> None:
        super().__init__()
        if heads < 1 or channels % heads:
            raise ConfigError(f"attention.heads: expected a divisor of the {channels} channels, got {heads}")
        self.heads = heads
        self.norm = nn.LayerNorm(channels)
        self.positions = Positions(channels) if position else None

    def tokens(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) to its positions as they are and normed, both (B, H W, C)."""
        tokens = x.flatten(2).mT
        normed = self.norm(tokens)
        return tokens, normed if self.positions is None else self.positions(normed, (x.shape[2], x.shape[3]))


class AttentionBlock(_OverPositions):
    """Residual multi-head attention over the positions of a feature map: (B, C, H, W) to the same.

    y = x + gain * proj(attention(qkv(layer_norm(x) + positions))), gain starting at 0.1 for each channel.

    Args:
        channels: C, a multiple of `heads`.
        heads: h.
        features, num_features, orthogonal, normalise, backend, seed: as in :class:`LinearAttention`.
        position: Add where a token is to what it is.

    Raises:
        ConfigError: heads that do not divide the channels, or what LinearAttention refuses.
    """

    def __init__(
        self,
        channels: int,
        *,
        heads: int = 4,
        features: str = "positive",
        num_features: int = 64,
        orthogonal: bool = True,
        normalise: bool = True,
        position: bool = True,
        backend: str = "auto",
        seed: int = 0,
    ) -> None:
        super().__init__(channels, heads, position)
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.attention = LinearAttention(
            channels // heads,
            heads=heads,
            features=features,
            num_features=num_features,
            orthogonal=orthogonal,
            normalise=normalise,
            backend=backend,
            seed=seed,
        )
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

    Each query of each head weighs the positions by its own kernel and averages the head's channels with these
    weights; with equal weights it is average pooling.

    Args:
        channels: C, a multiple of `heads`.
        queries: Averages taken of each channel.
        key_dim: Width of a head's queries and keys, at most that of its channels.
        heads, features, num_features, orthogonal, normalise, position, backend, seed: as in :class:`AttentionBlock`.
    """

    def __init__(
        self,
        channels: int,
        *,
        queries: int = 4,
        key_dim: int = 64,
        heads: int = 4,
        features: str = "positive",
        num_features: int = 64,
        orthogonal: bool = True,
        normalise: bool = True,
        position: bool = True,
        backend: str = "auto",
        seed: int = 0,
    ) -> None:
        super().__init__(channels, heads, position)
        self.out_features = queries * channels
        dim = min(key_dim, channels // heads)
        self.key = nn.Linear(channels, heads * dim, bias=False)
        self.query = nn.Parameter(_drawn(heads, queries, dim, seed=seed))
        self.attention = LinearAttention(
            dim,
            heads=heads,
            features=features,
            num_features=num_features,
            orthogonal=orthogonal,
            normalise=normalise,
            backend=backend,
            seed=seed,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the queries' averages side by side."""
        tokens, normed = self.tokens(x)
        keys = _split(self.key(normed), self.heads)
        query = self.query.expand(x.shape[0], -1, -1, -1)
        return self.attention(query, keys, _split(tokens, self.heads)).transpose(1, 2).flatten(1)  # (B, queries C)


class TrackState(NamedTuple):
    """A track so far: its attention sums, and the sum and number of its frames."""

    attention: State
    total: Tensor  # (B, D)
    frames: Tensor  # (B, 1), how many


class TrackPool(nn.Module):
    """Fold the face embeddings of a video track into one template, frame by frame at constant cost.

    template_t = unit(sum_{i <= t} w(q_t, k_i) e_i), with w(q, k) the kernel, k_i = key(e_i), and q_t made of the mean
    of the frames so far: a frame counts by what it shows and by how it agrees with the others. The query changes
    with each frame, so exact softmax would have to visit all earlier frames again; the sums of linear attention
    need not. Temperature and query start so that the template starts close to the mean.

    Args:
        dim: Width D of the embeddings.
        key_dim: Width of queries and keys.
        features: A key of `FEATURES`; exact softmax can not be streamed.
        num_features, seed: as in :class:`LinearAttention`.

    Raises:
        ConfigError: an unknown name or a number below 1.
    """

    def __init__(
        self, dim: int, *, key_dim: int = 32, features: str = "positive", num_features: int = 64, seed: int = 0
    ) -> None:
        super().__init__()
        choose(FEATURES, features, "pool.features")
        for name, value in (("dim", dim), ("key_dim", key_dim), ("num_features", num_features)):
            if value < 1:
                raise ConfigError(f"pool.{name}: expected at least 1, got {value}")
        self.dim = dim
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.key = nn.Sequential(nn.Linear(dim, 2 * key_dim), nn.GELU(), nn.Linear(2 * key_dim, key_dim))
            self.query = nn.Linear(dim, key_dim)
        self.attention = LinearAttention(
            key_dim,
            features=features,
            num_features=num_features,
            normalise=True,
            temperature=0.25,
            backend="linear",
            seed=seed,
        )

    def forward(self, frames: Tensor, mask: Tensor | None = None) -> Tensor:
        """Fold whole tracks: unit frames (B, L, D), mask (B, L) True where a frame is, to unit templates (B, D).

        A track without frames gives zeros.
        """
        frames, there = _there(frames, mask)
        mean = frames.sum(1) / there.sum(1).clamp(min=1)
        q, k, v = self._parts(mean[:, None], frames)
        return _unit(self.attention(q, k, v, mask=mask)[:, 0, 0])

    def prefixes(self, frames: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the template after each frame, (B, L, D) to (B, L, D), as streaming would give them."""
        frames, there = _there(frames, mask)
        mean = frames.cumsum(1) / there.cumsum(1).clamp(min=1)
        q, k, v = self._parts(mean, frames)
        return _unit(self.attention(q, k, v, mask=mask, causal=True)[:, 0])

    def start(self, batch: int) -> TrackState:
        """Return the state of `batch` tracks without frames."""
        like = self.query.weight.detach()
        return TrackState(
            self.attention.start(batch, self.dim, like=like), like.new_zeros(batch, self.dim), like.new_zeros(batch, 1)
        )

    def step(self, frame: Tensor, state: TrackState, valid: Tensor | None = None) -> tuple[Tensor, TrackState]:
        """Add one frame (B, D) to each track: template (B, D) and the new state; `valid` (B,) False skips a track."""
        frame, there = _there(frame, valid)
        total, frames = state.total + frame, state.frames + there
        q, k, v = self._parts((total / frames.clamp(min=1))[:, None], frame[:, None])
        out, attention = self.attention.step(q[:, :, 0], k[:, :, 0], v[:, :, 0], state.attention, valid=valid)
        return _unit(out[:, 0]), TrackState(attention, total, frames)

    def _parts(self, mean: Tensor, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.query(mean)[:, None], self.key(frames)[:, None], frames[:, None]


def _drawn(*shape: int, seed: int) -> Tensor:
    """N(0, 1), the same on every device; nothing is drawn on the meta device."""
    if torch.get_default_device().type == "meta":
        return torch.empty(shape)
    return torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed), device="cpu")


def _split(x: Tensor, heads: int) -> Tensor:
    """(B, L, C) to (B, h, L, C / h)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def _there(frames: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the frames (..., D) with zeros where none is, and 1 or 0 for each (..., 1)."""
    if mask is None:
        return frames, torch.ones_like(frames[..., :1])
    return frames.masked_fill(~mask[..., None], 0), mask[..., None].to(frames.dtype)


def _unit(x: Tensor) -> Tensor:
    return F.normalize(x, dim=-1, eps=1e-4)


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
