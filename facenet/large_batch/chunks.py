"""The gradient cache: mini-batches of any size, a chunk of images at a time.

The gradient of a loss over all B embeddings reaches the weights through each image on its own. So the batch is first
embedded in chunks without a graph. The loss and its gradient (B, D) are computed on all embeddings at once. Then each
chunk is embedded again, with a graph, and its rows of that gradient are propagated. Memory is that of one chunk, time
one more forward pass. The result is the same if an image's embedding does not depend on its batch mates. Lightning's
gradient accumulation does not do this: it takes the loss of one part at a time, without the negatives of the others.

Letters: B batch, D width. Source: Gao et al. 2021, Scaling deep contrastive learning batch size (arXiv 2101.06983).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from facenet.errors import ConfigError


class Images(Protocol):
    """B images that become floats (b, 3, H, W) slice by slice: a tensor, or uint8 that is converted when sliced."""

    def __len__(self) -> int:
        """Return B."""
        ...

    def __getitem__(self, part: slice, /) -> Tensor:
        """Return the same floats however the batch is sliced."""
        ...


def backward(
    model: nn.Module,
    images: Images,
    loss: Callable[[Tensor], Tensor],
    *,
    chunk_size: int | None = None,
    embed: Callable[[Tensor], Tensor] | None = None,
    scale: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Add the gradient of ``loss(embeddings (B, D))`` to the weights of `model`; return the loss, detached.

    In chunks, random layers draw the same numbers in both passes. Under batch norm a chunk is the group that is
    normalised (ghost batch norm), and the running statistics move once, by the mean of the chunks' statistics. For half
    precision it is called inside ``torch.autocast``; the loss sees the embeddings in the network's own type.

    Args:
        model: The network.
        images: B of them.
        loss: It is called once; parameters of its own get their gradient as usual.
        chunk_size: So many images at most pass through the network at a time, in chunks as equal as possible. None, or
            at least B, is the plain step with one pass.
        embed: Maps images to embeddings in place of `model`: its compiled form.
        scale: Multiplies the loss for half precision (``torch.amp.GradScaler.scale``).

    Raises:
        ConfigError: a chunk size below 1.
    """
    embed = embed or model
    parts = divide(len(images), chunk_size)
    if len(parts) == 1:
        embeddings = embed(images[parts[0]])  # (B, D)
        value, grad = _loss_gradient(loss, embeddings, scale)
        _propagate(embeddings, grad)
        return value
    states = []
    with torch.no_grad(), _statistics_move_once(model) as weigh:
        rows = []
        for number, part in enumerate(parts):
            piece = images[part]
            states.append(_random_state(piece.device))
            weigh(number)
            rows.append(embed(piece))
    value, grad = _loss_gradient(loss, torch.cat(rows), scale)
    del rows
    torch.clear_autocast_cache()  # the weights it cast in the first pass carry no gradient
    with _statistics_stay(model):
        for part, state in zip(parts, states, strict=True):
            piece = images[part]
            with _replay(state, piece.device):
                embedded = embed(piece)
            _propagate(embedded, grad[part])
    return value


def _propagate(embeddings: Tensor, grad: Tensor) -> None:
    """Add the gradients of the weights, each operation in its own type; a frozen network has none."""
    if embeddings.requires_grad:
        with torch.autocast(embeddings.device.type, enabled=False):
            embeddings.backward(grad)


def divide(count: int, chunk_size: int | None) -> list[slice]:
    """Divide `count` rows into as few slices of at most `chunk_size` rows as possible, of nearly equal length.

    >>> divide(7, 3)
    [slice(0, 2, None), slice(2, 4, None), slice(4, 7, None)]
    """
    if chunk_size is not None and chunk_size < 1:
        raise ConfigError(f"large_batch.chunk_size: expected at least 1, got {chunk_size}")
    number = max(1, math.ceil(count / (chunk_size or max(1, count))))
    edges = [count * i // number for i in range(number + 1)]
    return [slice(first, last) for first, last in pairwise(edges)]


def _loss_gradient(
    loss: Callable[[Tensor], Tensor], embeddings: Tensor, scale: Callable[[Tensor], Tensor] | None
) -> tuple[Tensor, Tensor]:
    """Return the loss and the gradient (B, D) of the scaled loss."""
    leaf = embeddings.detach().requires_grad_()
    with torch.enable_grad():
        value = loss(leaf)
        with torch.autocast(leaf.device.type, enabled=False):
            (scale(value) if scale else value).backward()
    return value.detach(), torch.zeros_like(leaf) if leaf.grad is None else leaf.grad


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """Return the batch norms that normalise by the batch and keep running statistics."""
    return [m for m in model.modules() if isinstance(m, _BatchNorm) and m.training and m.running_mean is not None]


@contextmanager
def _statistics_move_once(model: nn.Module) -> Iterator[Callable[[int], None]]:
    """Let batch norms average what they see over the passes inside, then move their statistics once, by that mean.

    The function that is yielded is called before each pass with the pass's number. If a pass fails, nothing moves.
    """
    layers = batch_norms(model)
    before = [tuple(buffer.clone() for buffer in statistics_of(m)) for m in layers]
    momenta = [m.momentum for m in layers]

    def weigh(number: int) -> None:
        for m in layers:
            m.momentum = 1 / (number + 1)  # the running mean of all passes so far

    try:
        yield weigh
        for m, (mean, var, count), momentum in zip(layers, before, momenta, strict=True):
            weight = momentum if momentum is not None else 1 / (float(count) + 1)
            seen_mean, seen_var, _ = statistics_of(m)
            mean.lerp_(seen_mean, weight)
            var.lerp_(seen_var, weight)
            count.add_(1)
    finally:
        for m, moved, momentum in zip(layers, before, momenta, strict=True):
            for buffer, value in zip(statistics_of(m), moved, strict=True):
                buffer.copy_(value)
            m.momentum = momentum


def statistics_of(layer: _BatchNorm) -> list[Tensor]:
    """Return running mean, running variance and number of batches of a layer."""
    return [layer.running_mean, layer.running_var, layer.num_batches_tracked]  # type: ignore[list-item]


@contextmanager
def _statistics_stay(model: nn.Module) -> Iterator[None]:
    """Leave running statistics as they are while passes inside normalise by the batch."""
    layers = batch_norms(model)
    for m in layers:
        m.track_running_stats = False
    try:
        yield
    finally:
        for m in layers:
            m.track_running_stats = True


def _random_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Return the states of the generators that a layer on `device` may draw from."""
    place = _generators(device)
    return torch.get_rng_state(), place.get_rng_state(device) if place else None


@contextmanager
def _replay(state: tuple[Tensor, Tensor | None], device: torch.device) -> Iterator[None]:
    """Draw inside as from `state`; outside, generators go on as if nothing had been drawn."""
    now = _random_state(device)
    _set_random_state(state, device)
    try:
        yield
    finally:
        _set_random_state(now, device)


def _set_random_state(state: tuple[Tensor, Tensor | None], device: torch.device) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        _generators(device).set_rng_state(state[1], device)


def _generators(device: torch.device) -> Any:
    return torch.cuda if device.type == "cuda" else None
