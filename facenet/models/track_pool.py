"""TrackPool: the face embeddings of a video track folded into one template by streaming linear attention.

Letters: B batch, L frames, D embedding width.
Source: Katharopoulos et al., Transformers are RNNs (ICML 2020).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facenet.errors import ConfigError, choose
from facenet.models.attention.forms import State
from facenet.models.attention.linear import LinearAttention
from facenet.models.attention.random_features import FEATURES


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
        num_features, seed, bounded: as in :class:`LinearAttention`.

    Raises:
        ConfigError: an unknown name or a number below 1.
    """

    def __init__(
        self,
        dim: int,
        *,
        key_dim: int = 32,
        features: str = "positive",
        num_features: int = 64,
        seed: int = 0,
        bounded: bool = True,
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
            bounded=bounded,
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


def _there(frames: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the frames (..., D) with zeros where none is, and 1 or 0 for each (..., 1)."""
    if mask is None:
        return frames, torch.ones_like(frames[..., :1])
    return frames.masked_fill(~mask[..., None], 0), mask[..., None].to(frames.dtype)


def _unit(x: Tensor) -> Tensor:
    return F.normalize(x, dim=-1, eps=1e-4)
