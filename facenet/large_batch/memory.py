"""The memory of a training step, estimated before the step runs.

Tensors that autograd keeps for the backward pass are counted on the meta device. A forward pass computes nothing there.
Letters: B batch.
"""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from facenet.errors import ConfigError

# A step also holds the gradients of a layer's input and output, and reordered copies of them. Together they take up to
# twice the largest activation and a tenth of all activations. Measured peaks: docs/results/large-batches.md.
LARGEST, HEADROOM = 2, 1.1
RUNTIME = 300 * 2**20  # code and buffers that torch loads at the first step
HALF = 0.75  # share of the bytes under autocast; measured on NN4: 0.57 (batch norm) to 0.74 (local response norm)
STATES = {"adamw": 2, "sgd": 1, "adagrad": 1}  # numbers an optimiser keeps for each weight


class StepMemory(NamedTuple):
    """Bytes of a training step, beyond those of a process that has just loaded torch."""

    state: int  # weights, gradients, optimiser states
    batch: int  # stored images
    activations: int  # of the images that pass through the network at a time, gradients of them included

    @property
    def total(self) -> int:
        """Return the sum."""
        return self.state + self.batch + self.activations + RUNTIME


def step_memory(
    model: nn.Module,
    input_size: Sequence[int],
    *,
    batch_size: int,
    chunk_size: int | None = None,
    optimizer: str = "adamw",
    stored_bytes: int = 0,
    half: bool = False,
    ranks: int = 1,
) -> StepMemory:
    """Estimate a step on `batch_size` images of `stored_bytes` each, `chunk_size` of them at a time (None: all).

    `input_size` is the (height, width) of the network's input. `half` means autocast. `batch_size` is that of one rank.
    With several ranks, each of them also holds two contiguous copies of all gradients.
    """
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    images = min(chunk_size or batch_size, batch_size)
    kept, largest = activation_bytes(model, input_size)
    activations = HEADROOM * (kept + LARGEST * largest) * images * (HALF if half else 1)
    copies = 2 + STATES.get(optimizer, 2) + (2 if ranks > 1 else 0)
    return StepMemory(weights * copies, stored_bytes * batch_size, int(activations))


def activation_bytes(model: nn.Module, input_size: Sequence[int]) -> tuple[int, int]:
    """Return the bytes that autograd keeps of one image for the backward pass, and those of the largest tensor.

    They are counted from the shapes. The image is included, a shared storage counts once, weights do not count.
    """
    twin = copy.deepcopy(model).to("meta").train()
    own = {tensor.untyped_storage()._cdata for tensor in (*twin.parameters(), *twin.buffers())}
    few, more = (_kept(twin, torch.empty(batch, 3, *input_size, device="meta"), own) for batch in (2, 4))
    return (sum(more) - sum(few)) // 2, (max(more) - max(few)) // 2


def _kept(model: nn.Module, images: Tensor, own: set[int]) -> list[int]:
    """Return the bytes of each storage that a forward pass saves, without those of the weights."""
    found = {images.untyped_storage()._cdata: images.untyped_storage()}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            found[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = model(images)  # noqa: F841 - keeps the saved tensors alive until they are counted
        return [storage.nbytes() for storage in found.values()]


def choose_chunk(
    model: nn.Module,
    input_size: Sequence[int],
    *,
    batch_size: int,
    budget: int,
    **options: Any,
) -> int | None:
    """Return the largest chunk of images that fits, with chunks of even size; None if the whole batch fits.

    `budget` is in bytes; `options` are those of :func:`step_memory`.

    Raises:
        ConfigError: two images do not fit.
    """
    one = step_memory(model, input_size, batch_size=batch_size, chunk_size=1, **options)
    fits = (budget - one.total + one.activations) // max(1, one.activations)
    if fits >= batch_size:
        return None
    if fits < 2:
        raise ConfigError(
            f"large_batch: two images of {tuple(input_size)} need {(one.total + one.activations) / 1e9:.2f} GB, the"
            f" budget is {budget / 1e9:.2f} GB; raise large_batch.memory_gb, or use a smaller network, input or batch"
        )
    return math.ceil(batch_size / math.ceil(batch_size / fits))


def available_bytes(
    device: torch.device, meminfo: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")
) -> int:
    """Return the bytes that a process can still allocate on a device, within the limit of its container."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            free = min(free, int((cgroup / limit).read_text()) - int((cgroup / used).read_text()))
        except (OSError, ValueError):
            continue  # no such file, or "max"
    return max(0, free)
