"""TrackPool: streaming against folding at once, and what it can learn."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from facenet.errors import ConfigError
from facenet.models.track_pool import TrackPool


def track(batch: int = 4, length: int = 9, dim: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    frames = F.normalize(torch.randn(batch, length, dim, generator=generator), dim=-1)
    return frames, torch.arange(length) < torch.tensor([length, 5, 1, 3])[:, None]


def test_track_pool_streams_what_it_folds_at_once() -> None:
    pool = TrackPool(16, key_dim=8, num_features=16)
    torch.nn.init.normal_(pool.query.weight)  # far from the mean it starts at
    frames, mask = track()
    whole, prefixes = pool(frames, mask), pool.prefixes(frames, mask)
    state = pool.start(4)
    for i in range(frames.shape[1]):
        template, state = pool.step(frames[:, i], state, mask[:, i])
        torch.testing.assert_close(template, prefixes[:, i], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(template, whole, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(prefixes[2, 0], frames[2, 0])  # one frame is its own template
    torch.testing.assert_close(pool(frames[1:2, :5]), whole[1:2], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(whole.norm(dim=-1), torch.ones(4))


def test_track_pool_starts_near_the_mean_and_can_be_trained_away_from_it() -> None:
    pool = TrackPool(16, key_dim=8)
    frames, mask = track()
    mean = F.normalize((frames * mask[..., None]).sum(1), dim=-1)
    assert ((pool(frames, mask) * mean).sum(-1) > 0.99).all()
    optimizer = torch.optim.Adam(pool.parameters(), 0.02)
    for _ in range(40):
        loss = (pool(frames[:1]) - frames[:1, 2]).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for name, parameter in pool.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    assert loss < 0.5 * (mean[0] - frames[0, 2]).square().sum()
    assert not pool(frames, torch.zeros_like(mask)).any(), "no frames, no template"
    assert not pool(frames[:, :0]).any()
    spoilt = torch.where(mask[..., None], frames, torch.nan)
    torch.testing.assert_close(pool(spoilt, mask), pool(frames, mask))
    torch.testing.assert_close(pool.prefixes(spoilt, mask), pool.prefixes(frames, mask))


def test_wrong_options_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"pool\.key_dim"):
        TrackPool(16, key_dim=0)
    with pytest.raises(ConfigError, match=r"pool\.features: unknown name 'softmax'"):
        TrackPool(16, features="softmax")
