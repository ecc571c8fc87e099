"""Exact gradients across ranks: rows are gathered, losses and gradients are added up.

Letters: B rows of all ranks, b rows of one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from facenet.errors import FacenetError
from facenet.large_batch.chunks import batch_norms, statistics_of


class RankLost(FacenetError):
    """Another process of the job ended, or it can not be reached."""

    exit_code = 1


def world() -> tuple[int, int]:
    """Return this process's rank and the number of ranks; (0, 1) if no process group was started."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def anchor_share(count: int, device: torch.device | None = None) -> Tensor | None:
    """Return the rows of `count` that this rank mines for: every world-th one. None on one process, which mines all.

    Rows of one identity lie side by side in a batch, so all ranks get about the same number of pairs.
    """
    rank, size = world()
    return torch.arange(rank, count, size, device=device) if size > 1 else None


def gather(rows: Tensor) -> Tensor:
    """Return the rows (b, ...) of all ranks as (B, ...), rank 0's first, in the same order everywhere; b may differ.

    The gradient is that of the sum over ranks of what each computes from the rows. All ranks must call this function
    and take part in its backward pass. On one process it returns `rows`.

    Raises:
        RankLost: another rank ended.
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
    """Return the smallest chunk size of all ranks; None (all images at once) if no rank has one. Raises RankLost."""
    size = -largest(-(chunk_size or 2**31), device)
    return None if size == 2**31 else size


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

    It is called once before an optimiser step, after any number of chunks and accumulated mini-batches. Every rank must
    hold gradients for the same weights. On one process nothing happens.

    Raises:
        RankLost: another rank ended.
    """
    size = world()[1]
    if size == 1:
        return
    grads = [p.grad for module in modules for p in module.parameters() if p.grad is not None]
    norms = [layer for module in modules for layer in batch_norms(module)]
    statistics = [buffer for layer in norms for buffer in statistics_of(layer)[:2]]
    for buffer in statistics:
        buffer /= size
    tensors = grads + statistics
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):  # one, as long as the weights are of one type
        alike = [tensor for tensor in tensors if tensor.dtype == dtype]
        summed = add_up(torch.cat([tensor.flatten() for tensor in alike]))
        for tensor, part in zip(alike, summed.split([tensor.numel() for tensor in alike]), strict=True):
            tensor.copy_(part.view(tensor.shape))


@contextmanager
def destroy_process_group_at_end() -> Iterator[None]:
    """Destroy the process group when the block ends, so that the next run of this process can start its own."""
    try:
        yield
    finally:
        if dist.is_available() and dist.is_initialized():
            dist.destroy_process_group()


@contextmanager
def _collective() -> Iterator[None]:
    """Turn a failure of a collective operation into RankLost."""
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
