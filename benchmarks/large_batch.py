"""Large-batch benchmark: one training step in chunks beside the plain step, in time, peak memory and gradient.

A step is embedding, semi-hard mining, triplet loss and all gradients. Each step runs in a fresh process, in which no
freed memory hides what it takes. Its random images are stored as bytes and become floats when they are needed.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from benchmarks.resources import in_fresh_process, status_bytes
from benchmarks.tables import Table, times
from facenet.encoders.bundle import pick_device
from facenet.errors import ConfigError, choose
from facenet.export.speed import summary
from facenet.large_batch.chunks import backward, divide
from facenet.large_batch.memory import available_bytes, step_memory
from facenet.losses.triplet import triplet_loss
from facenet.mining.online import mine
from facenet.models.build import build_model
from facenet.models.registry import NETS
from facenet.options import Options as BaseOptions
from facenet.options import option

MARGIN = 0.2
SHARE = 0.9  # of the free memory that the plain step may be expected to take
PARTS = (6, 3)  # if the plain step does not fit, it is measured on these parts of the batch and extrapolated
LIMIT = 8e9  # bytes that a large net at a large size should stay below
BYTES = ("extra_bytes", "peak_bytes", "estimate")


@dataclass(frozen=True, kw_only=True)
class Options(BaseOptions):
    """Options of the large-batch benchmark."""

    net: str = option("nn4", help="a net's name")
    batch_size: int = option(1800, least=1, help="faces of the mini-batch")
    chunk_size: int = option(60, least=2, help="faces of a chunk")
    repeats: int = option(1, least=1, help="steps of each kind")
    threads: int | None = option(None, least=1, help="torch's threads; null is what it takes by itself")
    fits: tuple[str, ...] = option(("nn2",), help="nets whose peak in chunks is measured, on the first chunks")
    first: int = option(2, least=1, help="chunks of each pass that `fits` embeds")
    bf16: bool = option(False, help="compute in bfloat16")
    device: str = option("auto", help="auto, cpu, cuda")


class Stored:
    """Bytes (B, 3, H, W) that become floats in [-1, 1] slice by slice: a pattern of each identity, and noise.

    Of noise alone an untrained network makes one point, and the gradient would be a difference of roundings.
    """

    def __init__(self, labels: Tensor, size: Sequence[int], device: torch.device) -> None:
        generator = torch.Generator().manual_seed(0)
        patterns = torch.randint(0, 256, (int(labels.max()) + 1, 3, 6, 6), dtype=torch.float32, generator=generator)
        stored = torch.empty(len(labels), 3, *size, dtype=torch.uint8)
        for image, label in zip(stored, labels.tolist(), strict=True):
            pattern = interpolate(patterns[label, None], tuple(size), mode="bilinear")[0]
            image.copy_((pattern + 32 * torch.randn(image.shape, generator=generator)).clamp_(0, 255))
        self.stored = stored.to(device)

    def __len__(self) -> int:
        """Return B."""
        return len(self.stored)

    def __getitem__(self, part: slice) -> Tensor:
        """Return the floats of some images."""
        return self.stored[part].float().sub_(127.5).div_(127.5).contiguous(memory_format=torch.channels_last)


class FirstChunks:
    """Embed the first `number` chunks of each pass; the others' embeddings are random, with no gradient to speak of."""

    def __init__(self, model: nn.Module, number: int, chunk_count: int) -> None:
        self.model, self.number, self.count, self.calls, self.seconds = model, number, chunk_count, 0, 0.0

    def __call__(self, images: Tensor) -> Tensor:
        """Return unit embeddings (b, D)."""
        self.calls += 1
        if (self.calls - 1) % self.count < self.number:
            embeddings: Tensor = self.model(images)
            return embeddings
        random = torch.randn(len(images), 128, device=images.device)
        return torch.nn.functional.normalize(random, dim=1).requires_grad_(torch.is_grad_enabled())


def step(
    net: str,
    batch_size: int,
    chunk_size: int | None,
    device: torch.device,
    first: int | None = None,
    *,
    bf16: bool = False,
) -> tuple[dict[str, Any], nn.Module]:
    """Take one step; return seconds, bytes and loss, and the network with its gradients.

    `first` limits the chunks that are embedded in each pass, to see the peak of a step that would take long. On a GPU a
    whole step goes before the measured one: kernels are loaded at their first use.
    """
    torch.manual_seed(0)
    model = build_model(net, norm="lrn").train().to(device).to(memory_format=torch.channels_last)
    labels = torch.arange(batch_size) // min(40, max(2, batch_size // 4))
    images, labels = Stored(labels, model.input_size, device), labels.to(device)
    embed = None if first is None else FirstChunks(model, first, len(divide(batch_size, chunk_size)))

    def loss(embeddings: Tensor) -> Tensor:
        return triplet_loss(embeddings, mine(embeddings, labels, margin=MARGIN), margin=MARGIN)

    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
        if device.type == "cuda":
            backward(model, images, loss, chunk_size=chunk_size, embed=embed)
        else:
            model(images[:2]).sum().backward()  # loads what torch loads at the first step
        model.zero_grad(set_to_none=True)
        before = _held(device)
        start = time.perf_counter()
        value = backward(model, images, loss, chunk_size=chunk_size, embed=embed)
        peak = _peak(device)
        seconds = time.perf_counter() - start
    return {"seconds": seconds, "extra_bytes": peak - before, "peak_bytes": peak, "loss": float(value)}, model


def _held(device: torch.device) -> int:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    return status_bytes("VmRSS")


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device)
    return status_bytes("VmHWM")


def run(options: Options) -> dict[str, Any]:
    """Measure one net plain and in chunks, and the peak of large nets in chunks; plain numbers, seconds and bytes.

    ``plain`` and ``chunked``: `seconds` (median), `least`, `most`, `runs`, `extra_bytes` (peak above the loaded process
    with network and stored images), `peak_bytes` (of the process), `estimate` (of :mod:`facenet.large_batch.memory`),
    `batch_size`. ``extrapolated``: the plain step did not fit; its numbers are a straight line through parts of the
    batch. ``memory_ratio``, ``time_ratio``, ``gradient_difference`` (norm of the difference over the norm, of steps on
    ``gradient_batch`` images). ``fits.<net>``: the step in chunks of which only the first `first` of each pass were
    embedded, with `seconds_extrapolated`. The two steps take turns.

    Raises:
        ConfigError: an unknown net, or sizes that are no batch.
    """
    net, batch_size, chunk_size = options.net, options.batch_size, options.chunk_size
    for name in (net, *options.fits):
        choose(NETS, name, "benchmark.net")
    if chunk_size >= batch_size:
        raise ConfigError(f"benchmark: expected chunk_size < batch_size, got {chunk_size} and {batch_size}")
    place = pick_device(options.device)
    threads = options.threads or torch.get_num_threads()
    plain_sizes = _plain_sizes(net, batch_size, place, options.bf16)
    with tempfile.TemporaryDirectory() as folder:
        call = _Call(threads, place, Path(folder), options.bf16)
        runs: dict[str, list[dict[str, Any]]] = {"chunked": [], **{f"plain {size}": [] for size in plain_sizes}}
        for _ in range(options.repeats):
            runs["chunked"].append(call(net, batch_size, chunk_size, save="chunked"))
            for size in plain_sizes:
                runs[f"plain {size}"].append(call(net, size, None, save=f"plain {size}"))
        largest = max(plain_sizes)
        if largest < batch_size:
            call(net, largest, chunk_size, save="chunked")
        difference = call.difference("chunked", f"plain {largest}")
        fits = {name: _fits(call, name, batch_size, chunk_size, options.first) for name in options.fits}
    plain = _plain({size: runs[f"plain {size}"] for size in plain_sizes}, net, batch_size, options.bf16)
    chunked = _entry(runs["chunked"], net, batch_size, chunk_size, options.bf16)
    return {
        "device": str(place),
        "threads": threads,
        "bf16": options.bf16,
        "net": net,
        "chunk_size": chunk_size,
        "chunked": chunked,
        "plain": plain,
        "extrapolated": largest < batch_size,
        "gradient_difference": difference,
        "gradient_batch": largest,
        "fits": fits,
        "memory_ratio": plain["extra_bytes"] / chunked["extra_bytes"],
        "time_ratio": chunked["seconds"] / plain["seconds"],
    }


def _plain_sizes(net: str, batch_size: int, device: torch.device, bf16: bool) -> list[int]:
    """Return the whole batch if its plain step fits, else the parts to extrapolate from."""
    model = build_model(net, norm="lrn")
    need = step_memory(model, model.input_size, batch_size=batch_size, half=bf16).total
    if need <= SHARE * available_bytes(device):
        return [batch_size]
    return [max(2, batch_size // part) for part in PARTS]


class _Call:
    """Runs :func:`step` in a fresh process."""

    def __init__(self, threads: int, device: torch.device, folder: Path, bf16: bool) -> None:
        self.threads, self.device, self.folder, self.bf16 = threads, device, folder, bf16

    def __call__(
        self, net: str, batch_size: int, chunk_size: int | None, save: str = "", first: int | None = None
    ) -> dict[str, Any]:
        target = str(self.folder / f"{save}.pt") if save else ""
        arguments = (net, batch_size, chunk_size, str(self.device), self.threads, target, first, self.bf16)
        try:
            result: dict[str, Any] = in_fresh_process(measure_step, *arguments)
        except subprocess.CalledProcessError as error:
            last = (error.stderr.strip().splitlines() or [f"exit {error.returncode}"])[-1]
            raise ConfigError(
                f"benchmark: a step of {batch_size} images of {net} failed ({last}); take a smaller batch"
            ) from error
        return result

    def difference(self, first: str, second: str) -> float:
        """Return |first - second| / |second| of two saved gradients."""
        one, two = (torch.load(self.folder / f"{name}.pt", weights_only=True) for name in (first, second))
        return float((one - two).norm() / two.norm())


def measure_step(
    net: str,
    batch_size: int,
    chunk_size: int | None,
    device: str,
    threads: int,
    target: str,
    first: int | None,
    bf16: bool,
) -> dict[str, Any]:
    """Take a :func:`step` and write its gradient to `target` if that is not empty; for a fresh process."""
    torch.set_num_threads(threads)
    measured, model = step(net, batch_size, chunk_size, torch.device(device), first, bf16=bf16)
    if target:
        gradients = [p.grad.double().flatten().cpu() for p in model.parameters() if p.grad is not None]
        torch.save(torch.cat(gradients), target)
    return measured


def _entry(runs: list[dict[str, Any]], net: str, batch_size: int, chunk_size: int | None, bf16: bool) -> dict[str, Any]:
    model = build_model(net, norm="lrn")
    need = step_memory(model, model.input_size, batch_size=batch_size, chunk_size=chunk_size, half=bf16)
    return {
        "batch_size": batch_size,
        **summary([entry["seconds"] for entry in runs]),
        **{key: max(entry[key] for entry in runs) for key in ("extra_bytes", "peak_bytes")},
        "estimate": need.total,
        "loss": runs[-1]["loss"],
    }


def _plain(runs: dict[int, list[dict[str, Any]]], net: str, batch_size: int, bf16: bool) -> dict[str, Any]:
    """Return what was measured on the whole batch, or the straight line through its parts."""
    entries = {size: _entry(found, net, size, None, bf16) for size, found in runs.items()}
    if batch_size in entries:
        return entries[batch_size]
    (small, low), (large, high) = sorted(entries.items())
    line: Callable[[str], float] = lambda key: (  # noqa: E731
        high[key] + (high[key] - low[key]) * (batch_size - large) / (large - small)
    )
    keys = ("seconds", "least", "most", *BYTES)
    return {**high, "batch_size": batch_size, "measured": [small, large], **{key: line(key) for key in keys}}


def _fits(call: _Call, net: str, batch_size: int, chunk_size: int, first: int) -> dict[str, Any]:
    number = len(divide(batch_size, chunk_size))
    measured = call(net, batch_size, chunk_size, first=min(first, number))
    entry = _entry([measured], net, batch_size, chunk_size, call.bf16)
    return {
        **{key: entry[key] for key in ("batch_size", "extra_bytes", "peak_bytes", "estimate", "seconds")},
        "chunk_size": chunk_size,
        "chunks": number,
        "embedded": min(first, number),
        "seconds_extrapolated": measured["seconds"] * number / min(first, number),
        "under_8_gb": measured["peak_bytes"] < LIMIT,
    }


def tables(result: dict[str, Any]) -> list[Table]:
    """Lay out what :func:`run` returned."""
    rows: list[tuple[Any, ...]] = []
    for name in ("plain", "chunked"):
        entry = result[name]
        shown = f"{name}, chunks of {result['chunk_size']}" if name == "chunked" else name
        if "measured" in entry:
            shown += f", extrapolated from B = {' and '.join(map(str, entry['measured']))}"
        rows.append((result["net"], entry["batch_size"], shown, *times(entry), *_gigabytes(entry)))
    for name, entry in result["fits"].items():
        measured = f"{entry['embedded']} of {entry['chunks']} measured, seconds extrapolated"
        what = f"chunks of {entry['chunk_size']}; {measured}"
        rows.append((name, entry["batch_size"], what, entry["seconds_extrapolated"], "", "", *_gigabytes(entry)))
    ratios = [
        ("peak memory, plain / chunks", f"{result['memory_ratio']:.1f}x"),
        ("time, chunks / plain", f"{result['time_ratio']:.2f}x"),
        (f"gradient, relative difference at B = {result['gradient_batch']}", f"{result['gradient_difference']:.1e}"),
    ]
    header = ("net", "B", "step", "seconds", "least", "most", "peak above start", "peak of process", "estimated")
    precision = "bfloat16" if result["bf16"] else "float32"
    title = f"one training step on {result['device']} in {precision}, {result['threads']} threads"
    return [Table(title, header, rows), Table("chunks against plain", ("", ""), ratios)]


def _gigabytes(entry: dict[str, Any]) -> list[str]:
    return [f"{entry[key] / 1e9:.2f} GB" for key in BYTES]
