"""Known nets with drawn weights, and InsightFace's iresnet by its public definition."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def shake(net: nn.Module, seed: int = 0) -> None:
    """Draw every weight and statistic, so that none stays at a value that hides a wrong name."""
    drawn = torch.Generator().manual_seed(seed)
    for name, value in net.state_dict().items():
        if value.is_floating_point():
            spread = torch.rand(value.shape, generator=drawn)
            fan = value[0].numel() if value.ndim > 1 else 1
            value.copy_((spread * 2 - 1) * (3 / fan) ** 0.5 if value.ndim > 1 else 0.5 + spread * 0.5)
        assert torch.isfinite(value.float()).all(), name


def given(net: nn.Module, weights: dict[str, Tensor]) -> nn.Module:
    """Load weights under our names; only counters of batches may be absent."""
    result = net.load_state_dict(weights, strict=False)
    assert result.unexpected_keys == []
    assert all(name.endswith("num_batches_tracked") for name in result.missing_keys)
    return net.eval()


def images(size: int, count: int = 2) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1


def insightface_iresnet(weights: dict[str, Tensor], depths: list[int], x: Tensor) -> Tensor:
    """InsightFace's iresnet by its public definition, from weights under its names: unit embeddings (B, 512)."""

    def norm(x: Tensor, name: str) -> Tensor:
        parts = (weights[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *parts, eps=1e-5)

    x = F.prelu(norm(F.conv2d(x, weights["conv1.weight"], padding=1), "bn1"), weights["prelu.weight"])
    for layer, depth in enumerate(depths, start=1):
        for i in range(depth):
            at, stride = f"layer{layer}.{i}", 1 if i else 2
            out = F.conv2d(norm(x, f"{at}.bn1"), weights[f"{at}.conv1.weight"], padding=1)
            out = F.prelu(norm(out, f"{at}.bn2"), weights[f"{at}.prelu.weight"])
            out = norm(F.conv2d(out, weights[f"{at}.conv2.weight"], stride=stride, padding=1), f"{at}.bn3")
            if not i:
                x = norm(F.conv2d(x, weights[f"{at}.downsample.0.weight"], stride=2), f"{at}.downsample.1")
            x = out + x
    x = norm(x, "bn2").flatten(1)
    return F.normalize(norm(F.linear(x, weights["fc.weight"], weights["fc.bias"]), "features"))


def insightface_names(ours: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return our weights of an iresnet under InsightFace's names, written the other way round than `FAMILIES`."""
    names = {"stages.stem.conv": "conv1", "stages.stem.norm": "bn1", "stages.stem.activation": "prelu"}
    names |= {"stages.norm": "bn2", "embedding.0": "fc", "embedding.1": "features"}
    inside = {"norm": "bn1", "first.conv": "conv1", "first.norm": "bn2", "first.activation": "prelu"}
    inside |= {
        "second.conv": "conv2",
        "second.norm": "bn3",
        "beside.conv": "downsample.0",
        "beside.norm": "downsample.1",
    }
    found = {}
    for key, value in ours.items():
        module, _, part = key.rpartition(".")
        if module not in names:
            _, layer, block, rest = module.split(".", 3)
            names[module] = f"{layer}.{block}.{inside[rest]}"
        found[f"{names[module]}.{part}"] = value
    return found
