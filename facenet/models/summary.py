"""What a network consists of and costs: layer, output shape, weights, multiply-adds, beside the paper's figures.

Counted as in Schroff et al. 2015, tables 1 and 2: weights of convolutions and fully connected layers without biases and
norms; one multiply-add (MAC) for each weight and each position it is applied to. Attention adds its products of
activations, which have no weights. Measured on the module itself, with forward hooks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from facenet.models.layers import L2Normalize, L2Pool2d, Maxout
from facenet.models.net import EmbeddingNet, Inception, Net
from facenet.models.tables import Cost

RESNET50 = Cost(25.6e6, 4.1e9)  # at 224x224, for scale (He et al. 2016)
KINDS: dict[type[nn.Module], str] = {  # the first that fits
    nn.Conv2d: "conv",
    Maxout: "maxout",
    nn.Linear: "fully connected",
    nn.MaxPool2d: "max pool",
    L2Pool2d: "L2 pool",
    nn.AdaptiveAvgPool2d: "average pool",
    nn.Flatten: "concat",
    nn.LocalResponseNorm: "LRN",
    L2Normalize: "L2",
}


class Layer(NamedTuple):
    """One layer: its output shape without the batch, its cost, and the paper's printed cost if there is one."""

    name: str
    kind: str
    shape: tuple[int, ...]
    params: int
    macs: int
    paper_params: float | None = None
    paper_macs: float | None = None


def summarise(model: nn.Module, input_size: tuple[int, int] | None = None) -> list[Layer]:
    """List the layers of a net in the order they run on one image (3, H, W); None is the size it was built for.

    Layers are those of `KINDS` and attention, also in a net from outside.

    Raises:
        DataError: the net can not take this size.
    """
    layers: list[Layer] = []
    seen: set[int] = set()
    names = {module: name for name, module in model.named_modules()}

    def record(module: nn.Module, inputs: object, out: Tensor) -> None:
        kind = next((label for known, label in KINDS.items() if isinstance(module, known)), None)
        kind = "attention" if hasattr(module, "extra_macs") else kind
        if kind is None:
            return
        params, macs = cost(module, out)
        params = 0 if id(module) in seen else params  # weights used twice are there once
        seen.add(id(module))
        name = _readable(names[module], model)
        shape = tuple(out.shape[1:] if out.shape[0] == 1 else out.shape)  # positions are encoded without a batch
        layers.append(Layer(name, _kind(module, kind), shape, params, macs))

    hooks = [module.register_forward_hook(record) for module in names]
    training = model.training
    device = next(model.parameters()).device
    size = input_size or cast(Net, model).input_size
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, 3, *size, device=device))
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return layers


def cost(module: nn.Module, out: Tensor) -> tuple[int, int]:
    """Weights of a layer, and its multiply-adds for the one image of `out`: weights times positions.

    A module that applies no layer of its own but multiplies activations says how often in ``extra_macs``.
    """
    if not isinstance(module, nn.Conv2d | nn.Linear):
        extra = getattr(module, "extra_macs", 0)
        return 0, extra if isinstance(extra, int) else 0
    weights = module.weight.numel()
    channels = out.shape[1] if isinstance(module, nn.Conv2d) else out.shape[-1]
    return weights, weights * (out.numel() // channels)


def total(layers: Sequence[Layer]) -> Cost:
    """Add up weights and multiply-adds."""
    return Cost(sum(layer.params for layer in layers), sum(layer.macs for layer in layers))


def beside(layers: Sequence[Layer], printed: Mapping[str, Cost]) -> list[Layer]:
    """Put the paper's printed figures (by layer name) beside the measured ones."""
    found = ((layer, printed.get(layer.name)) for layer in layers)
    return [layer._replace(paper_params=f.params, paper_macs=f.macs) if f else layer for layer, f in found]


def amount(number: float | None) -> str:
    """Write a count as the paper does.

    >>> amount(9408), amount(102_760_448), amount(1.6e9), amount(0), amount(None)
    ('9.408K', '102.8M', '1.6B', '0', '-')
    """
    if number is None:
        return "-"
    for unit, size in (("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if number >= size:
            return f"{number / size:.4g}{unit}"
    return str(int(number))


def _kind(module: nn.Module, kind: str) -> str:
    """Add what the paper's tables print: kernel and stride, or the number of maxout pieces."""
    if isinstance(module, nn.Conv2d):
        return f"{kind} {module.kernel_size[0]}x{module.kernel_size[1]}/{module.stride[0]}"
    if isinstance(module, nn.MaxPool2d):
        return f"{kind} {module.kernel_size}x{module.kernel_size}/{module.stride}"
    if isinstance(module, L2Pool2d):
        return f"{kind} {module.kernel}x{module.kernel}/{module.stride}"
    return f"{kind} p={module.pieces}" if isinstance(module, Maxout) else kind


def _readable(path: str, model: nn.Module) -> str:
    """Turn a module's path into the paper's name, for instance "inception_3a 3x3 reduce" or "fc1"."""
    if not isinstance(model, EmbeddingNet):
        return path
    path = re.sub(r"^(stages|full)\.|\.conv$", "", path)
    stage, _, layer = path.partition(".branches.")
    row = dict(model.stages.items()).get(stage)
    return f"{stage} {row.columns[layer]}" if isinstance(row, Inception) and layer else path
