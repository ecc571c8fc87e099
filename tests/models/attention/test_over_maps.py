"""The block and the pooling head over feature maps: gradients, positions, the average."""

from __future__ import annotations

import pytest
import torch

from facenet.errors import ConfigError
from facenet.models.attention.linear import KERNELS
from facenet.models.attention.over_maps import AttentionBlock, AttentionPool
from facenet.models.options import AttentionOptions


@pytest.mark.parametrize("features", sorted(KERNELS))
@pytest.mark.parametrize("kind", [AttentionBlock, AttentionPool])
def test_block_and_head(kind: type[AttentionBlock] | type[AttentionPool], features: str) -> None:
    torch.manual_seed(0)
    layer = kind(24, AttentionOptions(heads=4, features=features, num_features=16))
    x = torch.randn(3, 24, 5, 6)
    out = layer(x)
    assert out.shape == ((3, 24, 5, 6) if isinstance(layer, AttentionBlock) else (3, layer.out_features))
    (out * torch.randn(out.shape)).sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    torch.testing.assert_close(layer(x[1:2]), out[1:2], atol=1e-5, rtol=1e-4)
    turned = x.flip(-1)
    same = layer(turned).flip(-1) if isinstance(layer, AttentionBlock) else layer(turned)
    assert (same - out).abs().max() > 1e-3, "knows in which column a token is"
    same = layer(x.flip(-2)).flip(-2) if isinstance(layer, AttentionBlock) else layer(x.flip(-2))
    assert (same - out).abs().max() > 1e-3, "knows in which row a token is"
    torch.testing.assert_close(layer.double()(x.double()), out.double(), atol=1e-5, rtol=1e-4)


def test_a_block_is_small_at_first_and_a_head_without_preference_is_the_average() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 16, 6, 6)
    assert (AttentionBlock(16)(x) - x).std() < 0.2
    head = AttentionPool(16, AttentionOptions(position=False), queries=2)
    torch.nn.init.zeros_(head.key.weight)
    per_head = x.mean((2, 3)).unflatten(1, (4, 4))  # (B, heads, C / heads)
    expected = per_head[:, None].expand(-1, 2, -1, -1).flatten(1)
    torch.testing.assert_close(head(x), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", [AttentionBlock, AttentionPool])
def test_layers_refuse_wrong_options(kind: type[AttentionBlock] | type[AttentionPool]) -> None:
    with pytest.raises(ConfigError, match="divisor of the 24 channels"):
        kind(24, AttentionOptions(heads=5))
    with pytest.raises(ConfigError, match="did you mean 'positive'"):
        kind(24, AttentionOptions(features="positiv"))
    with pytest.raises(ConfigError, match=r"attention\.backend"):
        kind(24, AttentionOptions(features="elu", backend="exact"))
