from __future__ import annotations

import torch
from torch import nn

from facenet.models.layers import ConvBlock, L2Normalize, L2Pool2d


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


def test_conv_block_halves_rounded_up() -> None:
    for kernel in (1, 3, 5, 7):
        assert ConvBlock(3, 4, kernel, 2)(torch.zeros(2, 3, 35, 29)).shape == (2, 4, 18, 15)
    assert isinstance(ConvBlock(3, 4, 3, norm="lrn").norm, nn.Identity)
    assert ConvBlock(3, 4, 3).conv.bias is None
