"""Harmonic embeddings: a new net trained so that its vectors and an old net's can be compared with each other.

Old and new embeddings of a mini-batch enter one triplet pool, which holds each face twice. Semi-hard negatives come
from the whole pool. The paper (Schroff et al. 2015, appendix "Harmonic Embedding") only draws which version sits in
which slot. The default is every combination with at least one new member; `slots` selects some of them.

Letters: B batch, D width, T triplets; pool rows 0 to B - 1 are new, the others old.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from facenet.errors import ConfigError
from facenet.losses.options import SLOTS
from facenet.mining.sorting import pick
from facenet.models.net import Net
from facenet.types import Triplets

NEW, OLD = "n", "o"


class Method(NamedTuple):
    """What the loss is over."""

    pool: bool  # triplets of old and new embeddings, else of the new ones alone
    own: bool  # and the squared L2 distance of each new one to its own old one


METHODS = {
    "harmonic": Method(pool=True, own=False),
    "l2": Method(pool=False, own=True),
    "harmonic_l2": Method(pool=True, own=True),
    "none": Method(pool=False, own=False),  # the control
}


class Pool(NamedTuple):
    """M rows: the new embeddings, then the old ones there are."""

    embeddings: Tensor  # (M, D); no gradient reaches the old ones
    labels: Tensor  # (M,)
    image: Tensor  # (M,) which row of the mini-batch each shows
    new: int  # B


def pool(new: Tensor, labels: Tensor, old: Tensor) -> Pool:
    """Join embeddings (B, D), their labels (B,) and the old embeddings (B, D) of the same images.

    An old embedding that is not a number (an image the old net could not read) is left out.
    """
    there = torch.isfinite(old).all(1).nonzero()[:, 0]
    kept = old.detach()[there].to(new.dtype)
    rows = torch.arange(len(new), device=new.device)
    return Pool(torch.cat([new, kept]), torch.cat([labels, labels[there]]), torch.cat([rows, there]), len(new))


def keep(triplets: Triplets, pooled: Pool, *, slots: Sequence[str] = SLOTS, own_positive: bool = True) -> Triplets:
    """Keep the triplets of a pool whose versions are among `slots`.

    Without `own_positive` an image's own old embedding is not its positive (nor the other way round).
    """
    rows = torch.stack([triplets.anchor, triplets.positive, triplets.negative])  # (3, T)
    old = (rows >= pooled.new).long()
    code = old[0] * 4 + old[1] * 2 + old[2]  # "nno" is 1
    wanted = torch.zeros(8, dtype=torch.bool, device=rows.device)
    wanted[[int(slot.replace(NEW, "0").replace(OLD, "1"), 2) for slot in slots]] = True
    chosen = wanted[code]
    if not own_positive:
        chosen &= pick(pooled.image, triplets.anchor) != pick(pooled.image, triplets.positive)
    place = chosen.nonzero()[:, 0]
    anchor, positive, negative = (pick(row, place) for row in rows)
    return Triplets(anchor, positive, negative, triplets.stats._replace(triplets=len(place)))


def own_distance(new: Tensor, old: Tensor) -> tuple[Tensor, int]:
    """Sum over the images of |new - old|^2, and how many have an old embedding: the L2 baseline."""
    there = torch.isfinite(old).all(1)
    return (new[there] - old.detach()[there].to(new.dtype)).square().sum(), int(there.sum())


def stage(net: Net, *, embedding_alone: bool) -> None:
    """Prepare a net for one of the paper's two stages: its embedding layer alone learns, or all of it.

    What does not learn is in evaluation mode: its batch norms use, and keep, the statistics they have. A batch norm
    that is part of the embedding layer learns with it.
    """
    module = cast(nn.Module, net)
    module.requires_grad_(not embedding_alone)
    net.embedding_layer().requires_grad_()
    module.train(not embedding_alone)
    net.embedding_layer().train()


def freeze_norms(net: Net) -> None:
    """Let batch norms use, and keep, their statistics and weights, but for one that is part of the embedding layer."""
    learning = set(net.embedding_layer().modules())
    for module in cast(nn.Module, net).modules():
        if isinstance(module, _BatchNorm) and module not in learning:
            module.eval().requires_grad_(False)


def reset_embedding_layer(net: Net) -> None:
    """Draw the weights of a net's embedding layer anew, as a fresh net does: N(0, 1 / fan_in), biases 0.

    Batch norm behind it begins anew, too.

    Raises:
        ConfigError: an embedding layer that is not fully connected.
    """
    layer = net.embedding_layer()
    linear, *norms = layer if isinstance(layer, nn.Sequential) and len(layer) else [layer]
    if not isinstance(linear, nn.Linear) or not all(isinstance(norm, _BatchNorm) for norm in norms):
        raise ConfigError(f"harmonic: expected a fully connected embedding layer, got {type(layer).__name__}")
    nn.init.kaiming_normal_(linear.weight, mode="fan_in", nonlinearity="linear")
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)
    for norm in norms:
        cast(_BatchNorm, norm).reset_parameters()
