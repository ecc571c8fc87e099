"""Benchmark of ranks: a training step on two processes beside one, mining in shares, and what travels.

Two ranks with one thread each share the mini-batch: each embeds half of it, mines for half of the anchors against all
rows, and the gradients are added up once.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.spawn import start_processes

from benchmarks.large_batch import Stored
from benchmarks.mining import draw_faces, summary, trained_decay
from facenet.errors import ConfigError, choose
from facenet.large_batch.chunks import backward
from facenet.large_batch.ranks import anchor_share, destroy_process_group_at_end, gather, synchronise, world
from facenet.losses.objective import triplet_objective
from facenet.mining.online import mine
from facenet.models.build import build_model
from facenet.models.registry import NETS

MARGIN, WIDTH = 0.2, 128
Table = tuple[str, tuple[str, ...], list[tuple[Any, ...]]]


def run(
    net: str = "nns2", batch_size: int = 360, mined: int = 8192, ranks: int = 2, repeats: int = 3, chunk_size: int = 60
) -> dict[str, Any]:
    """Measure; returns plain numbers in nested objects, seconds.

    ``step.<who>``: forward, mining of all rows, loss, backward and the sum of gradients, for `one_thread` and
    `all_threads` (one process) and `ranks` (one thread each, gloo). ``mine.whole`` and ``mine.share``: mining `mined`
    embeddings for all anchors and for one rank's. ``gather`` and ``synchronise``: what travels in a step.
    ``speedup`` of the ranks against one thread; ``mining_speedup``. ``loss_difference``, ``gradient_difference`` and
    ``exact_difference`` (the gradient's in float64) are relative, of the ranks against one process with one thread. The
    ranks are timed between barriers, after a warm-up, in processes of their own.

    Raises:
        ConfigError: an unknown net, or sizes that do not divide.
    """
    choose(NETS, net, "benchmark.net")
    if ranks < 2 or batch_size % ranks or repeats < 1 or batch_size < 4 * ranks:
        raise ConfigError("benchmark: expected at least 2 ranks, a batch_size they divide, repeats of at least 1")
    before = torch.get_num_threads()
    result: dict[str, Any] = {"net": net, "batch_size": batch_size, "mined": mined, "ranks": ranks, "step": {}}
    try:
        for name, threads in (("all_threads", before), ("one_thread", 1)):
            torch.set_num_threads(threads)
            step = _Step(net, batch_size, chunk_size)
            result["step"][name] = summary(_times(step, repeats))
    finally:
        torch.set_num_threads(before)
    with tempfile.TemporaryDirectory() as folder:
        arguments = (folder, ranks, net, batch_size, chunk_size, mined, repeats)
        start_processes(_rank, arguments, nprocs=ranks, start_method="spawn")
        measured = torch.load(Path(folder) / "0.pt", weights_only=True)
    grads, exact, loss = measured.pop("gradients"), measured.pop("exact"), measured.pop("loss")
    result["step"]["ranks"] = measured.pop("step")
    result |= measured
    result["loss_difference"] = abs(loss - step.loss) / abs(step.loss)
    result["gradient_difference"] = _difference(grads, step.gradients())
    result["exact_difference"] = _difference(exact, step.exact_gradients())
    result["speedup"] = result["step"]["one_thread"]["seconds"] / result["step"]["ranks"]["seconds"]
    result["mining_speedup"] = result["mine"]["whole"]["seconds"] / result["mine"]["share"]["seconds"]
    return result


class _Step:
    """This rank's part of a training step on the same random mini-batch everywhere."""

    def __init__(self, net: str, batch_size: int, chunk_size: int) -> None:
        torch.manual_seed(0)
        self.model = build_model(net, norm="lrn").train()
        rank, size = world()
        own = slice(rank * batch_size // size, (rank + 1) * batch_size // size)
        labels = torch.arange(batch_size) // 4
        images = Stored(labels, self.model.input_size, torch.device("cpu"))
        self.images, self.labels = images[own], labels[own]
        self.chunk_size, self.loss = chunk_size, 0.0

    def __call__(self) -> None:
        self.model.zero_grad()
        self.loss = float(backward(self.model, self.images, self._part, chunk_size=self.chunk_size))
        synchronise(self.model)

    def _part(self, embeddings: Tensor) -> Tensor:
        return triplet_objective(embeddings, self.labels, margin=MARGIN, miner="all_valid", select="all")[0]

    def gradients(self) -> Tensor:
        return torch.cat([p.grad.flatten().double() for p in self.model.parameters() if p.grad is not None])

    def exact_gradients(self) -> Tensor:
        """Take the step once more in float64."""
        self.model.double()
        self.images = self.images.double()
        self()
        return self.gradients()


def _difference(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def _times(call: Callable[[], object], repeats: int) -> list[float]:
    """Time a call, all ranks starting together; the first does not count."""
    seconds = []
    for _ in range(repeats + 1):
        if world()[1] > 1:
            dist.barrier()
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def _rank(
    rank: int, folder: str, ranks: int, net: str, batch_size: int, chunk_size: int, mined: int, repeats: int
) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=ranks)
    with destroy_process_group_at_end():
        step = _Step(net, batch_size, chunk_size)
        result: dict[str, Any] = {"step": summary(_times(step, repeats)), "gradients": step.gradients()}
        loss = torch.tensor(step.loss, dtype=torch.float64)
        dist.all_reduce(loss)
        decay = trained_decay(mined, WIDTH, 40, MARGIN, 0)
        embeddings, labels = draw_faces(mined, WIDTH, decay=decay)
        share = anchor_share(mined)
        whole = _times(lambda: mine(embeddings, labels, margin=MARGIN) if rank == 0 else None, repeats)
        part = _times(lambda: mine(embeddings, labels, margin=MARGIN, anchors=share), repeats)
        rows = embeddings[: batch_size // ranks]
        traffic = {
            "gather": summary(_times(lambda: gather(rows), repeats)),
            "synchronise": summary(_times(lambda: synchronise(step.model), repeats)),
        }
        result |= traffic | {
            "loss": float(loss),
            "mine": {"whole": summary(whole), "share": summary(part)},
            "exact": step.exact_gradients(),
            "weights": sum(p.numel() for p in step.model.parameters()),
        }
        torch.save(result, f"{folder}/{rank}.pt")
        dist.barrier()


def tables(result: dict[str, Any]) -> list[Table]:
    """Lay out what :func:`run` returned: (title, header, rows)."""
    names = {
        "one_thread": "one process, one thread",
        "all_threads": "one process, all threads",
        "ranks": f"{result['ranks']} ranks, one thread each",
    }
    measured = [(f"step of {result['batch_size']}, {names[name]}", entry) for name, entry in result["step"].items()]
    measured += [
        (f"mining {result['mined']}, all anchors", result["mine"]["whole"]),
        (f"mining {result['mined']}, a rank's share", result["mine"]["share"]),
        (f"gather of {result['batch_size']} embeddings", result["gather"]),
        (f"sum of {result['weights']:,} gradients", result["synchronise"]),
    ]
    rows: list[tuple[Any, ...]] = [
        (name, *(entry[key] for key in ("seconds", "least", "most"))) for name, entry in measured
    ]
    ratios = [
        ("step, one thread / ranks", f"{result['speedup']:.2f}x"),
        ("mining, all anchors / share", f"{result['mining_speedup']:.2f}x"),
        ("loss, ranks against one process", f"{result['loss_difference']:.1e}"),
        ("gradient, ranks against one process", f"{result['gradient_difference']:.1e}"),
        ("the same in float64", f"{result['exact_difference']:.1e}"),
    ]
    header = ("what", "seconds (median)", "least", "most")
    return [
        (f"{result['net']} on {result['ranks']} ranks", header, rows),
        ("ranks against one process", ("", ""), ratios),
    ]
