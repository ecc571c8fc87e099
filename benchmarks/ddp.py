"""Benchmark of ranks: a training step on two processes beside one, mining in shares, and what travels.

Two ranks with one thread each share the mini-batch: each embeds half of it, mines for half of the anchors against all
rows, and the gradients are added up once.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.spawn import start_processes

from benchmarks.drawn import draw_faces, trained_decay
from benchmarks.large_batch import Stored
from benchmarks.resources import limited_threads
from benchmarks.tables import TIMES, Table, times
from facenet.errors import ConfigError, choose
from facenet.export.speed import seconds_of, summary
from facenet.large_batch.chunks import backward
from facenet.large_batch.ranks import anchor_share, destroy_process_group_at_end, gather, synchronise, world
from facenet.losses.objective import triplet_objective
from facenet.mining.online import mine
from facenet.models.build import build_model
from facenet.models.registry import NETS
from facenet.options import Options as BaseOptions
from facenet.options import option

MARGIN, WIDTH = 0.2, 128


@dataclass(frozen=True, kw_only=True)
class Options(BaseOptions):
    """Options of the benchmark of ranks."""

    net: str = option("nns2", help="a net's name")
    batch_size: int = option(360, least=1, help="faces of a mini-batch, over all ranks")
    chunk_size: int = option(60, least=1, help="faces of a chunk")
    mined: int = option(8192, least=1, help="embeddings to mine")
    ranks: int = option(2, least=2, help="processes")
    repeats: int = option(3, least=1, help="timed calls")


def run(options: Options) -> dict[str, Any]:
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
    choose(NETS, options.net, "benchmark.net")
    if options.batch_size % options.ranks or options.batch_size < 4 * options.ranks:
        raise ConfigError("benchmark: expected a batch_size that the ranks divide, of at least 4 faces a rank")
    result: dict[str, Any] = {name: getattr(options, name) for name in ("net", "batch_size", "mined", "ranks")}
    result["step"] = {}
    for name, threads in (("all_threads", None), ("one_thread", 1)):
        with limited_threads(threads):
            step = _Step(options)
            result["step"][name] = summary(_times(step, options.repeats))
    with tempfile.TemporaryDirectory() as folder:
        start_processes(_rank, (folder, options), nprocs=options.ranks, start_method="spawn")
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

    def __init__(self, options: Options) -> None:
        torch.manual_seed(0)
        self.model = build_model(options.net, norm="lrn").train()
        rank, size = world()
        batch_size = options.batch_size
        own = slice(rank * batch_size // size, (rank + 1) * batch_size // size)
        labels = torch.arange(batch_size) // 4
        images = Stored(labels, self.model.input_size, torch.device("cpu"))
        self.images, self.labels = images[own], labels[own]
        self.chunk_size, self.loss = options.chunk_size, 0.0

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
        seconds.append(seconds_of(call))
    return seconds[1:]


def _rank(rank: int, folder: str, options: Options) -> None:
    mined, ranks, repeats = options.mined, options.ranks, options.repeats
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=ranks)
    with destroy_process_group_at_end():
        step = _Step(options)
        result: dict[str, Any] = {"step": summary(_times(step, repeats)), "gradients": step.gradients()}
        loss = torch.tensor(step.loss, dtype=torch.float64)
        dist.all_reduce(loss)
        decay = trained_decay(mined, WIDTH, per_identity=40, margin=MARGIN)
        embeddings, labels = draw_faces(mined, WIDTH, decay=decay)
        share = anchor_share(mined)
        whole = _times(lambda: mine(embeddings, labels, margin=MARGIN) if rank == 0 else None, repeats)
        part = _times(lambda: mine(embeddings, labels, margin=MARGIN, anchors=share), repeats)
        rows = embeddings[: options.batch_size // ranks]
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
    """Lay out what :func:`run` returned."""
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
    rows = [(name, *times(entry)) for name, entry in measured]
    ratios = [
        ("step, one thread / ranks", f"{result['speedup']:.2f}x"),
        ("mining, all anchors / share", f"{result['mining_speedup']:.2f}x"),
        ("loss, ranks against one process", f"{result['loss_difference']:.1e}"),
        ("gradient, ranks against one process", f"{result['gradient_difference']:.1e}"),
        ("the same in float64", f"{result['exact_difference']:.1e}"),
    ]
    return [
        Table(f"{result['net']} on {result['ranks']} ranks", ("what", *TIMES), rows),
        Table("ranks against one process", ("", ""), ratios),
    ]
