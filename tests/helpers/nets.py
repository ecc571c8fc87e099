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


# Stages of InsightFace's mbf from layers.2 on: kind, input channels, output channels or number of blocks, hidden ones.
MBF = (
    ("down", 128, 128, 128),
    ("rows", 128, 4, 128),
    ("down", 128, 256, 256),
    ("rows", 256, 6, 256),
    ("down", 256, 256, 512),
    ("rows", 256, 2, 256),
)


def mbf_blocks() -> list[tuple[str, int, int, int, int]]:
    """The convolutions of InsightFace's mbf: name, input and output channels, kernel, groups."""
    found = [("layers.0", 3, 128, 3, 1), ("layers.1", 128, 128, 3, 64)]
    for number, (kind, width, size, hidden) in enumerate(MBF, start=2):
        for i in range(size if kind == "rows" else 1):
            at = f"layers.{number}.layers" + (f".{i}.layers" if kind == "rows" else "")
            out = width if kind == "rows" else size
            found += [(f"{at}.0", width, hidden, 1, 1), (f"{at}.1", hidden, hidden, 3, hidden)]
            found.append((f"{at}.2", hidden, out, 1, 1))
    return [*found, ("conv_sep", 256, 512, 1, 1), ("features.layers.0", 512, 512, 7, 512)]


def mbf_weights(seed: int = 0) -> dict[str, Tensor]:
    """Drawn weights of InsightFace's mbf, under its names."""
    parts: dict[str, nn.Module] = {}
    for at, c_in, c_out, kernel, groups in mbf_blocks():
        parts[f"{at}.layers.0"] = nn.Conv2d(c_in, c_out, kernel, groups=groups, bias=False)
        parts[f"{at}.layers.1"] = nn.BatchNorm2d(c_out)
        if at != "features.layers.0" and not (at.startswith("layers.") and at.endswith(".2") and at.count(".") > 1):
            parts[f"{at}.layers.2"] = nn.PReLU(c_out)
    parts |= {"features.layers.2": nn.Linear(512, 512, bias=False), "features.layers.3": nn.BatchNorm1d(512)}
    for part in parts.values():
        shake(part, seed)
        seed += 1
    return {f"{at}.{name}": value for at, part in parts.items() for name, value in part.state_dict().items()}


def insightface_mbf(weights: dict[str, Tensor], x: Tensor) -> Tensor:
    """InsightFace's mbf by its public definition, from weights under its names: unit embeddings (B, 512)."""

    def norm(x: Tensor, at: str) -> Tensor:
        return F.batch_norm(x, *(weights[f"{at}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")))

    def block(x: Tensor, at: str, stride: int = 1, padding: int = 0) -> Tensor:
        kernel = weights[f"{at}.layers.0.weight"]
        x = norm(F.conv2d(x, kernel, None, stride, padding, groups=x.shape[1] // kernel.shape[1]), f"{at}.layers.1")
        slopes = weights.get(f"{at}.layers.2.weight")
        return x if slopes is None else F.prelu(x, slopes)

    def depthwise(x: Tensor, at: str, stride: int) -> Tensor:
        return block(block(block(x, f"{at}.0"), f"{at}.1", stride, 1), f"{at}.2")

    x = block(block(x, "layers.0", 2, 1), "layers.1", 1, 1)
    for number, (kind, _, size, _) in enumerate(MBF, start=2):
        if kind == "down":
            x = depthwise(x, f"layers.{number}.layers", 2)
        for i in range(size if kind == "rows" else 0):
            x = x + depthwise(x, f"layers.{number}.layers.{i}.layers", 1)
    x = block(block(x, "conv_sep"), "features.layers.0").flatten(1)
    return F.normalize(norm(x @ weights["features.layers.2.weight"].T, "features.layers.3"))
