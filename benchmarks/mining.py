"""Mining benchmark: semi-hard selection + triplet loss + backward, beside one B x B x D product and two peers.

All contestants see the same embeddings in one process, one after the other in every repetition; the ratios are of
medians. The floor is the product of the embeddings with themselves written into memory that is already there.
"""

from __future__ import annotations

import gc
import importlib.util
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from facenet.encoders.bundle import pick_device
from facenet.losses.triplet import triplet_loss
from facenet.mining.online import mine
from facenet.vectors import sq_dist_matrix

# Above these sizes a peer takes minutes or does not fit into memory.
PEER_LIMITS = {"pytorch_metric_learning": 1800, "sentence_transformers": 8192}
PATIENCE = 20.0
SEMI_HARD_SHARE = 0.37  # of the pairs, as in training (0.3 to 0.45)


def draw_faces(
    B: int, D: int = 128, *, per_identity: int = 40, decay: float = 0.6, within: float = 1.0, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Draw shuffled unit embeddings (B, D) float32 and labels (B,) with `per_identity` rows of each identity.

    Identity centroid plus noise per image, both with variance proportional to rank^-decay over the D axes. Mean
    squared distance about `within` inside an identity and 2 between identities.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(B) // per_identity
    spectrum = torch.arange(1, D + 1, dtype=torch.float32) ** (-decay / 2)
    centroids = torch.randn((B + per_identity - 1) // per_identity, D, generator=generator) * spectrum
    noise = F.normalize(torch.randn(B, D, generator=generator) * spectrum, dim=1)
    scale = (1 / (1 - within / 2) - 1) ** 0.5
    embeddings = F.normalize(F.normalize(centroids, dim=1)[labels] + scale * noise, dim=1)
    order = torch.randperm(B, generator=generator)
    return embeddings[order], labels[order]


def trained_decay(B: int, D: int, per_identity: int, margin: float, seed: int) -> float:
    """Find by bisection the decay of :func:`draw_faces` that gives the share of semi-hard pairs seen in training."""
    low, high = 0.0, 2.0
    for _ in range(7):
        decay = (low + high) / 2
        embeddings, labels = draw_faces(B, D, per_identity=per_identity, decay=decay, seed=seed)
        stats = mine(embeddings, labels, margin=margin, anchors=torch.arange(min(B, 512))).stats
        low, high = (low, decay) if stats.semi_hard_pairs > SEMI_HARD_SHARE * stats.pairs else (decay, high)
    return (low + high) / 2


def run(
    sizes: Sequence[int] = (600, 1800, 8192),
    repeats: int = 5,
    threads: int = 1,
    D: int = 128,
    per_identity: int = 40,
    margin: float = 0.2,
    peers: bool = True,
    seed: int = 0,
    device: str = "cpu",
) -> dict[str, Any]:
    """Measure every size; returns plain numbers in nested objects, seconds and bytes.

    ``sizes.<B>``: `floor`, `ours` and the peers, each with `seconds` (median), `least`, `most`, `runs`; `floor_ratio`
    of ours, `<peer>_ratio` (their time / ours), `extra_bytes` (peak resident memory of one call in a fresh process,
    above the level before it; None where the system has no /proc), `semi_hard_share`, `triplets` and the `decay`
    the embeddings were drawn with. ``absent``: the peers that are not installed. A peer is left out above its size
    in PEER_LIMITS; whoever has used PATIENCE seconds is not called again. On a GPU (`device`) bytes are those that
    torch allocated there, and a call is timed until the device has done it.
    """
    before, place = torch.get_num_threads(), pick_device(device)
    torch.set_num_threads(threads)
    try:
        absent = [name for name in PEER_LIMITS if not importlib.util.find_spec(name)]
        result: dict[str, Any] = {
            "device": str(place),
            "threads": threads,
            "repeats": repeats,
            "absent": absent,
            "sizes": {},
        }
        for B in sizes:
            wanted = [name for name, limit in PEER_LIMITS.items() if peers and name not in absent and limit >= B]
            decay = trained_decay(B, D, per_identity, margin, seed)
            drawn = draw_faces(B, D, per_identity=per_identity, decay=decay, seed=seed)
            embeddings, labels = (rows.to(place) for rows in drawn)
            measured = _measure(embeddings, labels, margin, repeats, wanted)
            extra = (
                _allocated_bytes(embeddings, labels, margin)
                if place.type == "cuda"
                else _extra_bytes(B, D, per_identity, decay, margin, threads, seed)
            )
            result["sizes"][str(B)] = {**measured, "extra_bytes": extra, "decay": decay}
        return result
    finally:
        torch.set_num_threads(before)


def tables(result: dict[str, Any]) -> list[tuple[str, tuple[str, ...], list[tuple[Any, ...]]]]:
    """Lay out what :func:`run` returned: (title, header, rows)."""
    rows: list[tuple[Any, ...]] = []
    for size, entry in result["sizes"].items():
        for name, measured in entry.items():
            if isinstance(measured, dict):
                ratio = measured["seconds"] / entry["floor"]["seconds"]
                rows.append((size, name, measured["seconds"], measured["least"], measured["most"], f"{ratio:.1f}x"))
        extra = entry.get("extra_bytes")
        rows.append((size, "extra memory of ours", f"{extra / 1e6:.0f} MB" if extra else "-", "", "", ""))
    header = ("B", "what", "seconds (median)", "least", "most", "of the floor")
    return [("mining, loss, backward", header, rows)]


def _measure(embeddings: Tensor, labels: Tensor, margin: float, repeats: int, peers: list[str]) -> dict[str, Any]:
    product = embeddings.new_zeros(len(embeddings), len(embeddings))
    contestants: dict[str, Callable[[], object]] = {
        "floor": lambda: torch.mm(embeddings, embeddings.T, out=product),
        "ours": lambda: _ours(embeddings, labels, margin),
    }
    contestants |= {name: PEERS[name](embeddings, labels, margin) for name in peers}
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(repeats + 1):
        for name, contestant in contestants.items():
            if sum(seconds[name]) < PATIENCE:
                seconds[name].append(_timed(contestant, embeddings.device))
    measured: dict[str, Any] = {name: summary(times[1:] or times) for name, times in seconds.items()}  # warm-up first
    ours = measured["ours"]["seconds"]
    measured["floor_ratio"] = ours / measured["floor"]["seconds"]
    measured |= {f"{name}_ratio": measured[name]["seconds"] / ours for name in peers}
    stats = mine(embeddings, labels, margin=margin).stats
    measured["semi_hard_share"] = stats.semi_hard_pairs / stats.pairs
    measured["triplets"] = stats.triplets
    return measured


def _timed(call: Callable[[], object], device: torch.device) -> float:
    """Time a call in seconds, without Python's garbage collector, whose turn would come while another one is timed."""
    gc.collect()
    gc.disable()
    try:
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start
    finally:
        gc.enable()


def summary(times: list[float]) -> dict[str, float]:
    """Return median, least, most and number of the seconds."""
    return {"seconds": statistics.median(times), "least": min(times), "most": max(times), "runs": len(times)}


def _ours(embeddings: Tensor, labels: Tensor, margin: float) -> None:
    vectors = embeddings.detach().requires_grad_()
    triplet_loss(vectors, mine(vectors, labels, margin=margin), margin=margin).backward()


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


def _allocated_bytes(embeddings: Tensor, labels: Tensor, margin: float) -> int:
    """Return what a call takes on a GPU at its peak."""
    torch.cuda.reset_peak_memory_stats(embeddings.device)
    before = torch.cuda.memory_allocated(embeddings.device)
    _ours(embeddings, labels, margin)
    return torch.cuda.max_memory_allocated(embeddings.device) - before


def _extra_bytes(B: int, D: int, per_identity: int, decay: float, margin: float, threads: int, seed: int) -> int | None:
    return in_fresh_process(f"mining._call_and_measure({B}, {D}, {per_identity}, {decay}, {margin}, {threads}, {seed})")


def in_fresh_process(call: str) -> int | None:
    """Return the bytes that ``<benchmark>.<function>(...)`` tells, where no freed memory hides what it takes.

    None where the system has no /proc.
    """
    if not Path("/proc/self/status").exists():
        return None
    code = f"from benchmarks import {call.partition('.')[0]}; print({call})"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
    return int(done.stdout)


def _call_and_measure(B: int, D: int, per_identity: int, decay: float, margin: float, threads: int, seed: int) -> int:
    torch.set_num_threads(threads)
    _ours(*draw_faces(200, D), margin)  # loads what torch loads on first use
    embeddings, labels = draw_faces(B, D, per_identity=per_identity, decay=decay, seed=seed)
    before = status_bytes("VmRSS")
    _ours(embeddings, labels, margin)
    return status_bytes("VmHWM") - before


def status_bytes(name: str) -> int:
    """Return a memory figure of this process, as VmRSS, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))
