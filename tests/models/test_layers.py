from __future__ import annotations

import pytest
import torch
from torch import nn

from facenet.models.layers import ConvBlock, L2Normalize, L2Pool2d, LocalResponseNorm, Maxout


def test_l2_normalize_is_unit_and_safe_at_zero() -> None:
    x = torch.randn(5, 7, requires_grad=True)
    torch.testing.assert_close(L2Normalize()(x).norm(dim=1), torch.ones(5))
    zero = torch.zeros(1, 7, requires_grad=True)
    L2Normalize()(zero).sum().backward()
    assert zero.grad is not None
    assert float(zero.grad.abs().max()) <= 1.1e4
    assert L2Normalize()(x.half()).dtype == torch.float32
    assert L2Normalize()(x.double()).dtype == torch.float64


def test_l2_pool_is_the_root_of_summed_squares() -> None:
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    windows = nn.functional.unfold(x, 3, padding=1).view(2, 3, 9, 36)
    expected = windows.square().sum(2).sqrt().view(2, 3, 6, 6)
    torch.testing.assert_close(L2Pool2d()(x), expected, atol=1e-5, rtol=1e-5)
    assert L2Pool2d(stride=2)(x).shape == (2, 3, 3, 3)
    zero = torch.zeros(1, 1, 4, 4, requires_grad=True)
    L2Pool2d()(zero).sum().backward()
    assert zero.grad is not None
    assert torch.isfinite(zero.grad).all()


@pytest.mark.parametrize("pieces", [1, 2, 3])
def test_maxout_is_the_largest_of_its_linear_maps(pieces: int) -> None:
    layer, x = Maxout(5, 4, pieces).double(), torch.randn(7, 5, dtype=torch.float64)
    out = layer(x)
    assert out.shape == (7, 4)
    for b in range(7):
        for o in range(4):
            maps = [layer.weight[o * pieces + j] @ x[b] + layer.bias[o * pieces + j] for j in range(pieces)]
            torch.testing.assert_close(out[b, o], max(maps))
    out.sum().backward()
    assert layer.weight.grad is not None
    assert (layer.weight.grad.abs().sum(1) > 0).any()


def test_maxout_of_two_keeps_the_mean_square() -> None:
    torch.manual_seed(0)
    layer = Maxout(400, 2000)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
    nn.init.zeros_(layer.bias)
    x = torch.randn(50, 400)
    assert float(layer(x).detach().square().mean() / x.square().mean()) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize(("edition", "alpha"), [(1, 1e-4 / 5), (2, 1e-4)])
def test_local_response_norm_is_alexnets_formula(edition: int, alpha: float) -> None:
    """b_i = a_i / (2 + alpha sum over 5 channels of a_j^2)^0.75; in edition 1 alpha was divided by 5."""
    a = torch.randn(2, 7, 2, 3, dtype=torch.float64) * 100
    expected = torch.empty_like(a)
    for channel in range(7):
        near = a[:, max(0, channel - 2) : channel + 3].square().sum(1)
        expected[:, channel] = a[:, channel] / (2 + alpha * near) ** 0.75
    torch.testing.assert_close(LocalResponseNorm(edition)(a), expected)


def test_conv_block_halves_rounded_up() -> None:
    for kernel in (1, 3, 5, 7):
        assert ConvBlock(3, 4, kernel, 2)(torch.zeros(2, 3, 35, 29)).shape == (2, 4, 18, 15)
    assert isinstance(ConvBlock(3, 4, 3, norm="lrn").norm, nn.Identity)
    assert ConvBlock(3, 4, 3).conv.bias is None
