"""Mining benchmark: semi-hard selection + triplet loss + backward, beside one B x B x D product and two peers.

All contestants see the same embeddings in one process, one after the other in every repetition. Ratios are of medians.
The floor is the product of the embeddings with themselves, written into memory that is there already.
"""

from __future__ import annotations

import functools
import gc
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.drawn import draw_faces, trained_decay
from benchmarks.resources import extra_bytes, limited_threads, peak_above
from benchmarks.tables import TIMES, Table, megabytes, times
from facenet.encoders.bundle import pick_device
from facenet.export.speed import seconds_of, time_in_turns
from facenet.losses.triplet import triplet_loss
from facenet.mining.online import mine
from facenet.options import Options as BaseOptions
from facenet.options import option
from facenet.vectors import sq_dist_matrix

# Above these sizes a peer takes minutes or does not fit into memory.
PEER_LIMITS = {"pytorch_metric_learning": 1800, "sentence_transformers": 8192}
PATIENCE = 20.0  # seconds of each contestant at each size
D, PER_IDENTITY, MARGIN = 128, 40, 0.2


@dataclass(frozen=True, kw_only=True)
class Options(BaseOptions):
    """Options of the mining benchmark."""

    sizes: tuple[int, ...] = option((600, 1800, 8192), least=1, help="batch sizes B")
    repeats: int = option(5, least=1, help="timed calls of each contestant, at most")
    threads: int = option(1, least=1, help="torch's threads")
    peers: bool = option(True, help="measure pytorch-metric-learning and sentence-transformers too, if installed")
    memory: bool = option(True, help="measure memory, in a process of its own")
    device: str = option("cpu", help="cpu, cuda, auto")


def run(options: Options) -> dict[str, Any]:
    """Measure every size; returns plain numbers in nested objects, seconds and bytes.

    ``sizes.<B>``: `floor`, `ours` and the peers, each with `seconds` (median), `least`, `most`, `runs`; `floor_ratio`
    of ours, `<peer>_ratio` (their time / ours), `extra_bytes` (peak memory of one call above the level before it),
    `semi_hard_share`, `triplets`, and the `decay` the embeddings were drawn with. ``absent``: the peers that are not
    installed. A peer is left out above its size in PEER_LIMITS. On a GPU `extra_bytes` is what torch allocated there,
    else None if the system has no /proc.
    """
    place = pick_device(options.device)
    with limited_threads(options.threads):
        absent = [name for name in PEER_LIMITS if not importlib.util.find_spec(name)]
        result: dict[str, Any] = {"device": str(place), "threads": options.threads, "repeats": options.repeats}
        result |= {"absent": absent, "sizes": {}}
        for B in options.sizes:
            known = [name for name in PEER_LIMITS if options.peers and name not in absent]
            decay = trained_decay(B, D, per_identity=PER_IDENTITY, margin=MARGIN)
            embeddings, labels = (rows.to(place) for rows in draw_faces(B, D, per_identity=PER_IDENTITY, decay=decay))
            peers = [name for name in known if PEER_LIMITS[name] >= B]
            entry = _measure(embeddings, labels, options.repeats, peers)
            extra = None
            if options.memory and place.type == "cuda":
                extra = _allocated_bytes(embeddings, labels)
            elif options.memory:
                extra = extra_bytes(measure_memory, B, decay, options.threads)
            result["sizes"][str(B)] = {**entry, "extra_bytes": extra, "decay": decay}
        return result


def tables(result: dict[str, Any]) -> list[Table]:
    """Lay out what :func:`run` returned."""
    rows: list[tuple[Any, ...]] = []
    for size, entry in result["sizes"].items():
        for name, measured in entry.items():
            if isinstance(measured, dict):
                ratio = measured["seconds"] / entry["floor"]["seconds"]
                rows.append((size, name, *times(measured), f"{ratio:.1f}x"))
        rows.append((size, "extra memory of ours", megabytes(entry["extra_bytes"]), "", "", ""))
    return [Table("mining, loss, backward", ("B", "what", *TIMES, "of the floor"), rows)]


def _measure(embeddings: Tensor, labels: Tensor, repeats: int, peers: list[str]) -> dict[str, Any]:
    product = embeddings.new_zeros(len(embeddings), len(embeddings))
    contestants: dict[str, Callable[[], object]] = {
        "floor": lambda: torch.mm(embeddings, embeddings.T, out=product),
        "ours": lambda: _ours(embeddings, labels),
    }
    contestants |= {name: PEERS[name](embeddings, labels, MARGIN) for name in peers}
    time_of = functools.partial(_seconds, device=embeddings.device)
    measured: dict[str, Any] = {**time_in_turns(contestants, PATIENCE, repeats, patience=1.0, time_of=time_of)}
    ours = measured["ours"]["seconds"]
    measured["floor_ratio"] = ours / measured["floor"]["seconds"]
    measured |= {f"{name}_ratio": measured[name]["seconds"] / ours for name in peers}
    stats = mine(embeddings, labels, margin=MARGIN).stats
    measured["semi_hard_share"] = stats.semi_hard_pairs / stats.pairs
    measured["triplets"] = stats.triplets
    return measured


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    """Time a call until its device is done, without Python's garbage collector, whose turn would come in another's."""

    def whole() -> None:
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    gc.collect()
    gc.disable()
    try:
        return seconds_of(whole)
    finally:
        gc.enable()


def _ours(embeddings: Tensor, labels: Tensor) -> None:
    vectors = embeddings.detach().requires_grad_()
    triplet_loss(vectors, mine(vectors, labels, margin=MARGIN), margin=MARGIN).backward()


def _pytorch_metric_learning(embeddings: Tensor, labels: Tensor, margin: float) -> Callable[[], object]:
    from pytorch_metric_learning import distances, losses, miners

    distance = distances.LpDistance(power=2, normalize_embeddings=False)
    miner = miners.TripletMarginMiner(margin=margin, type_of_triplets="semihard", distance=distance)
    loss = losses.TripletMarginLoss(margin=margin, distance=distance)

    def step() -> None:
        vectors = embeddings.detach().requires_grad_()
        loss(vectors, labels, miner(vectors, labels)).backward()

    return step


def _sentence_transformers(embeddings: Tensor, labels: Tensor, margin: float) -> Callable[[], object]:
    from sentence_transformers.losses import BatchSemiHardTripletLoss

    loss = BatchSemiHardTripletLoss(model=None, distance_metric=lambda v: sq_dist_matrix(v, v), margin=margin)

    def step() -> None:
        vectors = embeddings.detach().requires_grad_()
        loss.batch_semi_hard_triplet_loss(labels, vectors).backward()

    return step


PEERS = {
    "pytorch_metric_learning": _pytorch_metric_learning,
    "sentence_transformers": _sentence_transformers,
}


def _allocated_bytes(embeddings: Tensor, labels: Tensor) -> int:
    """Return what a call takes on a GPU at its peak."""
    torch.cuda.reset_peak_memory_stats(embeddings.device)
    before = torch.cuda.memory_allocated(embeddings.device)
    _ours(embeddings, labels)
    return torch.cuda.max_memory_allocated(embeddings.device) - before


def measure_memory(B: int, decay: float, threads: int) -> int:
    """Return the bytes that one call takes above the level before it; for a fresh process."""
    torch.set_num_threads(threads)
    _ours(*draw_faces(200, D))  # loads what torch loads on first use
    embeddings, labels = draw_faces(B, D, per_identity=PER_IDENTITY, decay=decay)
    return peak_above(lambda: _ours(embeddings, labels))
