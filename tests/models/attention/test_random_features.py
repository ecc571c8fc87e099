"""Feature maps: their inner products estimate the kernel, drawn once from a seed, without overflow."""

from __future__ import annotations

import pytest
import torch

from facenet.errors import ConfigError
from facenet.models.attention.random_features import FEATURES, FeatureMap, draw_projection


def product(phi: FeatureMap, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    (vx, sx), (vy, sy) = phi(x[None, None]), phi(y[None, None])
    return ((vx * vy).sum(-1, keepdim=True) * (sx + sy).exp()).flatten()


@pytest.mark.parametrize("orthogonal", [False, True])
@pytest.mark.parametrize("kind", ["sincos", "positive"])
def test_features_estimate_the_softmax_kernel_without_bias(kind: str, orthogonal: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(6, 8, generator=generator) * 0.3, torch.randn(6, 8, generator=generator) * 0.3
    draws = torch.stack([product(FeatureMap(kind, 8, 32, orthogonal=orthogonal, seed=s), x, y) for s in range(400)])
    error = draws.std(0) / 20
    exact = (x * y).sum(-1).exp()
    assert ((draws.mean(0) - exact).abs() < 4 * error + 1e-6).all()
    assert error.max() < 0.05, "the bound above means something"


@pytest.mark.parametrize(("kind", "gain"), [("sincos", 0.3), ("positive", 0.97)])
def test_orthogonal_rows_and_more_features_lower_the_error(kind: str, gain: float) -> None:
    generator = torch.Generator().manual_seed(2)
    x, y = torch.randn(16, 16, generator=generator) / 10, torch.randn(16, 16, generator=generator) / 10
    exact = (x * y).sum(-1).exp()

    def error(features: int, orthogonal: bool) -> float:
        draws = [product(FeatureMap(kind, 16, features, orthogonal=orthogonal, seed=s), x, y) for s in range(150)]
        return float((torch.stack(draws) - exact).square().mean())

    assert error(16, True) < gain * error(16, False)
    assert error(64, False) < 0.4 * error(16, False)


def test_orthogonal_rows_are_orthogonal_with_gaussian_lengths() -> None:
    rows = draw_projection(2, 16, 40, orthogonal=True, seed=0).double()
    block = rows[:, :, :16]
    gram = block.mT @ block
    off = gram - torch.diag_embed(torch.diagonal(gram, dim1=1, dim2=2))
    assert off.abs().max() < 1e-5
    lengths = draw_projection(64, 16, 32, orthogonal=True, seed=0).square().sum(1)
    assert lengths.mean() == pytest.approx(16, rel=0.05)
    assert lengths.std() == pytest.approx((2 * 16) ** 0.5, rel=0.15)


def test_the_seed_fixes_the_draw_and_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, second, other = (FeatureMap("positive", 8, 16, seed=s).projection for s in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert "projection" in FeatureMap("sincos", 8, 16).state_dict(), "stored with the weights"
    heads = FeatureMap("positive", 8, 16, heads=2).projection
    assert not torch.equal(heads[0], heads[1])


@pytest.mark.parametrize("kind", sorted(FEATURES))
def test_widths_bounds_and_large_inputs(kind: str) -> None:
    phi = FeatureMap(kind, 8, 24, heads=2)
    for size in (1e-3, 1.0, 60.0):
        values, log_scale = phi(torch.randn(3, 2, 5, 8) * size)
        assert (values.shape, log_scale.shape) == ((3, 2, 5, phi.width), (3, 2, 5, 1))
        assert torch.isfinite(values).all()
        assert torch.isfinite(log_scale).all()
        if kind != "elu":
            assert values.abs().max() <= 1
        torch.testing.assert_close(phi.values(torch.ones(1, 2, 1, 8)), phi(torch.ones(1, 2, 1, 8))[0])
    assert phi.width == {"sincos": 48, "positive": 24, "elu": 8}[kind]


def test_scale_is_applied_to_the_tokens() -> None:
    x = torch.randn(1, 1, 4, 8)
    for kind in ("sincos", "positive"):
        scaled, plain = FeatureMap(kind, 8, 16, scale=0.5), FeatureMap(kind, 8, 16)
        for ours, theirs in zip(scaled(x), plain(x * 0.5), strict=True):
            torch.testing.assert_close(ours, theirs)


def test_wrong_options_fail_at_the_door() -> None:
    with pytest.raises(ConfigError, match="did you mean 'sincos'"):
        FeatureMap("sincoss", 8, 16)
    with pytest.raises(ConfigError, match="num_features"):
        FeatureMap("positive", 8, 0)
