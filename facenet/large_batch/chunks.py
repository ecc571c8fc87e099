"""Mini-batches of any size: the gradient cache, and exact gradients across ranks.

The gradient of a loss over all B embeddings reaches the weights through each image on its own. So the batch is
embedded in chunks without a graph; the loss and its gradient (B, D) are computed on all embeddings at once; then
each chunk is embedded again, with a graph, and its rows of that gradient are propagated. Memory is that of one chunk,
time one more forward pass, and the result the same where an image's embedding does not depend on its batch mates.

Letters: B batch, D width. Source: Gao et al. 2021, Scaling deep contrastive learning batch size (arXiv 2101.06983).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from facenet.errors import ConfigError, FacenetError


class RankLost(FacenetError):
    """Another process of the job ended, or can not be reached."""

    exit_code = 1


class Images(Protocol):
    """B images that become floats (b, 3, H, W) slice by slice: a tensor, or uint8 that is changed when it is needed."""

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

    `chunk_size` images at most pass through the network at a time, in chunks as equal as possible; None, or at least B,
    is the plain step with one pass. `loss` is called once, with gradients of its own parameters, if it has any, as
    usual. `embed` maps images to embeddings in place of `model` (its compiled form). `scale` multiplies the loss for
    half precision (``torch.amp.GradScaler.scale``).

    In chunks, random layers draw the same in both passes. Under batch norm a chunk is the group that is normalised
    (ghost batch norm), and the running statistics move once, by the mean of the chunks' statistics. Call it inside
    ``torch.autocast`` for half precision; the loss sees the embeddings in the network's own type.

    Raises ConfigError for a chunk size below 1.
    """
    embed = embed or model
    parts = chunks(len(images), chunk_size)
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
    """Add the gradients of the weights; a network that is frozen has none. Each operation goes back in its own type."""
    if embeddings.requires_grad:
        with torch.autocast(embeddings.device.type, enabled=False):
            embeddings.backward(grad)


def chunks(count: int, chunk_size: int | None) -> list[slice]:
    """Divide `count` rows into as few slices of at most `chunk_size` as can be, all of nearly the same length.

    >>> chunks(7, 3)
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


def _batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """The batch norms that normalise by the batch and keep running statistics."""
    return [m for m in model.modules() if isinstance(m, _BatchNorm) and m.training and m.running_mean is not None]


@contextmanager
def _statistics_move_once(model: nn.Module) -> Iterator[Callable[[int], None]]:
    """Let batch norms average what they see over the passes inside, then move by that mean once.

    What is yielded is called with the number of each pass before it. If a pass fails nothing has moved.
    """
    layers = _batch_norms(model)
    before = [tuple(buffer.clone() for buffer in _buffers(m)) for m in layers]
    momenta = [m.momentum for m in layers]

    def weigh(number: int) -> None:
        for m in layers:
            m.momentum = 1 / (number + 1)  # the running mean of all passes so far

    try:
        yield weigh
        for m, (mean, var, count), momentum in zip(layers, before, momenta, strict=True):
            weight = momentum if momentum is not None else 1 / (float(count) + 1)
            seen_mean, seen_var, _ = _buffers(m)
            mean.lerp_(seen_mean, weight)
            var.lerp_(seen_var, weight)
            count.add_(1)
    finally:
        for m, moved, momentum in zip(layers, before, momenta, strict=True):
            for buffer, value in zip(_buffers(m), moved, strict=True):
                buffer.copy_(value)
            m.momentum = momentum


def _buffers(layer: _BatchNorm) -> list[Tensor]:
    """Running mean, running variance, number of batches."""
    return [layer.running_mean, layer.running_var, layer.num_batches_tracked]  # type: ignore[list-item]


@contextmanager
def _statistics_stay(model: nn.Module) -> Iterator[None]:
    layers = _batch_norms(model)
    for m in layers:
        m.track_running_stats = False
    try:
        yield
    finally:
        for m in layers:
            m.track_running_stats = True


def _random_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    """The states of the generators a layer on `device` may draw from."""
    place = _generators(device)
    return torch.get_rng_state(), place.get_rng_state(device) if place else None


@contextmanager
def _replay(state: tuple[Tensor, Tensor | None], device: torch.device) -> Iterator[None]:
    """Draw inside as from `state`, and go on outside as if nothing had been drawn."""
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


def world() -> tuple[int, int]:
    """Return this process's rank and the number of ranks; (0, 1) where no process group was started."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def anchor_share(count: int, device: torch.device | None = None) -> Tensor | None:
    """Return the rows of `count` this rank mines for, every world-th one; None on one process, which mines all.

    Rows of one identity lie side by side in a batch, so that ranks get about the same number of pairs.
    """
    rank, size = world()
    return torch.arange(rank, count, size, device=device) if size > 1 else None


def gather(rows: Tensor) -> Tensor:
    """Return the rows (b, ...) of all ranks, rank 0's first, (B, ...), in the same order everywhere; b may differ.

    The gradient is exact: that of the sum over ranks of what each computes from the rows. All ranks must call it, and
    take part in its backward pass. On one process it returns `rows`. Raises RankLost.
    """
    if world()[1] == 1:
        return rows
    gathered: Tensor = _Gather.apply(rows)
    return gathered


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        rank, size = world()
        counts = torch.zeros(size, dtype=torch.int64, device=rows.device)
        counts[rank] = len(rows)
        add_up(counts)
        held = counts.tolist()
        ctx.first, ctx.count = sum(held[:rank]), len(rows)
        padded = rows.new_zeros(max(held), *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in held]
        with _collective():
            dist.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, held, strict=True)])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return add_up(grads[0].clone(memory_format=torch.contiguous_format))[ctx.first : ctx.first + ctx.count]


def add_up(values: Tensor) -> Tensor:
    """Replace `values` by their sum over all ranks, and return them. Raises RankLost."""
    if world()[1] > 1:
        with _collective():
            dist.all_reduce(values)
    return values


def smallest_chunk(chunk_size: int | None, device: torch.device) -> int | None:
    """Return the smallest of the chunk sizes of all ranks; None, which is all images at once, if it is that of all."""
    if world()[1] == 1:
        return chunk_size
    size = torch.tensor(chunk_size or 2**31, device=device)
    with _collective():
        dist.all_reduce(size, dist.ReduceOp.MIN)
    return None if int(size) == 2**31 else int(size)


def largest(number: int, device: torch.device) -> int:
    """Return the largest of the numbers of all ranks. Raises RankLost."""
    if world()[1] == 1:
        return number
    most = torch.tensor(number, device=device)
    with _collective():
        dist.all_reduce(most, dist.ReduceOp.MAX)
    return int(most)


def synchronise(*modules: nn.Module) -> None:
    """Add up the gradients of the weights over all ranks and average running statistics, in one all-reduce.

    Call it once before an optimiser step, after any number of chunks and accumulated mini-batches. Every rank must
    hold gradients for the same weights. On one process it does nothing. Raises RankLost.
    """
    size = world()[1]
    if size == 1:
        return
    grads = [p.grad for module in modules for p in module.parameters() if p.grad is not None]
    norms = [layer for module in modules for layer in _batch_norms(module)]
    statistics = [buffer for layer in norms for buffer in _buffers(layer)[:2]]
    for buffer in statistics:
        buffer /= size
    tensors = grads + statistics
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):  # one, as long as the weights are of one type
        alike = [tensor for tensor in tensors if tensor.dtype == dtype]
        summed = add_up(torch.cat([tensor.flatten() for tensor in alike]))
        for tensor, part in zip(alike, summed.split([tensor.numel() for tensor in alike]), strict=True):
            tensor.copy_(part.view(tensor.shape))


@contextmanager
def leave_at_end() -> Iterator[None]:
    """Leave the process group when the block ends, so that the next run of this process can start its own."""
    try:
        yield
    finally:
        if dist.is_available() and dist.is_initialized():
            dist.destroy_process_group()


@contextmanager
def _collective() -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        rank, size = world()
        raise RankLost(
            f"rank {rank} of {size} lost the others: a process of this job ended or can not be reached"
            f" ({' '.join(str(error).split())[:160]}); see its own message, then run the same command in"
            " the same run folder with resume=auto (hydra.run.dir=RUN)"
        ) from error
