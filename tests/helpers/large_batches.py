"""Small nets, a batch and its loss, for training steps in chunks and on ranks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from facenet.losses.triplet import triplet_loss
from facenet.mining.online import mine
from facenet.models.layers import L2Normalize

B, MARGIN = 14, 0.3
MINING = {"miner": "all_valid", "select": "all"}


def plain_net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, 8), L2Normalize())


def dropout_net() -> nn.Module:
    return nn.Sequential(
        plain_net()[0], nn.Dropout(0.4), nn.Flatten(), nn.Dropout(0.2), nn.Linear(216, 8), L2Normalize()
    )


def norm_net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(216, 8),
        nn.BatchNorm1d(8),
        L2Normalize(),
    )


NETS: dict[str, Callable[[], nn.Module]] = {"plain": plain_net, "dropout": dropout_net, "norm": norm_net}


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    return NETS[name]().double().train()


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(B, 3, 8, 8, generator=generator, dtype=torch.float64), torch.arange(B) % 4


def objective(labels: Tensor) -> Callable[[Tensor], Tensor]:
    def loss(embeddings: Tensor) -> Tensor:
        return triplet_loss(embeddings, mine(embeddings, labels, margin=MARGIN, **MINING), margin=MARGIN)  # type: ignore[arg-type]

    return loss


def gradients(model: nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
