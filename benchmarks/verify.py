"""Verification benchmark: ten folds beside loops over thresholds, all pairs beside the product of their tiles alone.

The loops have the structure of the evaluation most often copied (davidsandberg/facenet): in each fold every one of
400 thresholds for accuracy and ROC, then every one of 4,000 for VAL at FAR, each a pass over the pairs.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.mining import draw_faces, in_fresh_process, status_bytes, summary
from benchmarks.training import interleave
from facenet.evaluation.all_pairs import all_pairs, tiles
from facenet.evaluation.roc import at_far
from facenet.evaluation.verification import common_grid, verify_pairs

FOLDS = 10
LOOP_FAR = 1e-3
PATIENCE = 120.0


def run(
    pairs: int = 6000,
    repeats: int = 9,
    faces: Sequence[int] = (10_000, 50_000),
    rounds: int = 3,
    sorted_faces: int = 10_000,
    far: float = 1e-6,
    D: int = 128,
    per_identity: int = 20,
    threads: int = 1,
    peers: bool = True,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure both; returns plain numbers in nested objects, seconds and bytes.

    ``folds``: `ours` (everything :func:`verify_pairs` reports) and `loops`, each with `seconds` (median),
    `least`, `most`, `runs`; `loops_ratio` (their time / ours) and `equal_folds`: whether the loops reach the same
    accuracy in every fold as ours on their grid. ``all_pairs.<N>``: `product` (the tiles' GEMM and nothing else),
    `ours`, `product_ratio` of ours and `extra_bytes` (peak resident memory of one call in a fresh process above the
    level before it). ``full_sort``: its seconds at `sorted_faces` faces, and whether threshold and counts are equal.
    The tightest figures are those of a machine that does nothing else.
    """
    with _threads(threads):
        result: dict[str, Any] = {"threads": threads, "far": far, "folds": _folds(pairs, repeats, peers, seed)}
        result["all_pairs"] = {}
        for count in faces:
            vectors, labels = _faces(count, D, per_identity, seed)
            measured = _against_product(vectors, labels, far, rounds)
            measured["extra_bytes"] = _extra_bytes(count, D, per_identity, far, threads, seed)
            result["all_pairs"][str(count)] = measured
        if sorted_faces:
            result["full_sort"] = _against_full_sort(*_faces(sorted_faces, D, per_identity, seed), far)
        return result


def tables(result: dict[str, Any]) -> list[tuple[str, tuple[str, ...], list[tuple[Any, ...]]]]:
    """Lay out what :func:`run` returned: (title, header, rows)."""
    folds = result["folds"]
    rows: list[tuple[Any, ...]] = [(name, *_times(folds[name])) for name in ("ours", "loops") if name in folds]
    if "loops" in folds:
        rows.append((f"loops / ours: {folds['loops_ratio']:.0f}x; equal folds: {folds['equal_folds']}", "", "", ""))
    first = (f"{folds['pairs']} pairs, ten folds, everything", ("what", "seconds (median)", "least", "most"), rows)
    rows = []
    for count, entry in result["all_pairs"].items():
        rows += [(count, name, *_times(entry[name]), "") for name in ("product", "ours")]
        extra = f"{entry['extra_bytes'] / 1e6:.0f} MB" if entry["extra_bytes"] is not None else "-"
        rows[-1] = (*rows[-1][:-1], f"{entry['product_ratio']:.2f}x, {extra} more")
    if "full_sort" in result:
        entry = result["full_sort"]
        rows.append((str(entry["faces"]), "full sort", entry["seconds"], "", "", f"equal: {entry['equal']}"))
    header = ("faces", "what", "seconds (median)", "least", "most", "of the product, memory")
    return [first, (f"all pairs, TAR at FAR {result['far']:g}", header, rows)]


def _times(measured: dict[str, float]) -> tuple[float, float, float]:
    return measured["seconds"], measured["least"], measured["most"]


def _folds(pairs: int, repeats: int, peers: bool, seed: int) -> dict[str, Any]:
    """Time everything on drawn pairs, half of them same, in ten folds."""
    rng = np.random.default_rng(seed)
    same = np.tile(np.repeat([True, False], pairs // (2 * FOLDS)), FOLDS)
    folds = np.repeat(np.arange(FOLDS), pairs // FOLDS)
    distances = np.where(same, rng.normal(1.0, 0.3, len(same)), rng.normal(1.7, 0.3, len(same))).clip(0, 4)
    contestants: dict[str, Callable[[], object]] = {"ours": lambda: verify_pairs(distances, same, folds)}
    if peers:
        contestants["loops"] = lambda: loops(distances, same, folds)
    measured: dict[str, Any] = {"pairs": len(same), **_measure(contestants, repeats)}
    if peers:
        measured["loops_ratio"] = measured["loops"]["seconds"] / measured["ours"]["seconds"]
        ours = verify_pairs(distances, same, folds, grid=common_grid(400)).fold_accuracies
        measured["equal_folds"] = list(ours) == loops(distances, same, folds)["accuracies"]
    return measured


def loops(distances: np.ndarray, same: np.ndarray, folds: np.ndarray) -> dict[str, Any]:
    """Evaluate P pairs by passes over them for each fold and threshold: fold accuracies, ROC, and VAL at FAR 1e-3."""
    coarse, fine = common_grid(400), common_grid(4000)
    assert coarse is not None
    assert fine is not None
    accuracies, curves, values = [], [], []
    for fold in np.unique(folds):
        train, held = folds != fold, folds == fold
        scores = [_rates(t, distances[train], same[train])[2] for t in coarse]
        curves.append([_rates(t, distances[held], same[held])[:2] for t in coarse])
        accuracies.append(_rates(coarse[int(np.argmax(scores))], distances[held], same[held])[2])
    for fold in np.unique(folds):
        train, held = folds != fold, folds == fold
        fars = np.asarray([_rates(t, distances[train], same[train])[1] for t in fine])
        threshold = np.interp(LOOP_FAR, fars, fine) if fars.max() >= LOOP_FAR else 0.0
        values.append(_rates(float(threshold), distances[held], same[held])[:2])
    return {"accuracies": accuracies, "roc": np.mean(curves, 0), "val": float(np.mean(values, 0)[0])}


def _rates(threshold: float, distances: np.ndarray, same: np.ndarray) -> tuple[float, float, float]:
    """Return VAL, FAR and accuracy at one threshold, from one pass over the pairs."""
    accepted = np.less(distances, threshold)
    true_accepts = np.sum(np.logical_and(accepted, same))
    false_accepts = np.sum(np.logical_and(accepted, np.logical_not(same)))
    true_rejects = np.sum(np.logical_and(np.logical_not(accepted), np.logical_not(same)))
    val, far = true_accepts / np.sum(same), false_accepts / np.sum(np.logical_not(same))
    return float(val), float(far), float(true_accepts + true_rejects) / distances.size


def _faces(count: int, D: int, per_identity: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    embeddings, labels = draw_faces(count, D, per_identity=per_identity, seed=seed)
    return embeddings.numpy(), labels.numpy()


def _against_product(vectors: np.ndarray, labels: np.ndarray, far: float, rounds: int) -> dict[str, Any]:
    def product() -> None:
        for _ in tiles(vectors):
            pass

    measured: dict[str, Any] = _measure(
        {"product": product, "ours": lambda: all_pairs(vectors, labels, (far,))}, rounds
    )
    measured["product_ratio"] = measured["ours"]["seconds"] / measured["product"]["seconds"]
    return measured


def _measure(contestants: dict[str, Callable[[], object]], repeats: int) -> dict[str, Any]:
    return {name: summary(times) for name, times in interleave(contestants, PATIENCE, repeats).items()}


def _against_full_sort(vectors: np.ndarray, labels: np.ndarray, far: float) -> dict[str, Any]:
    """Sort every distance at once, and compare threshold and counts with the tail's."""
    start = time.perf_counter()
    distances = np.maximum(2 - 2 * (vectors @ vectors.T), 0)
    upper = np.triu(np.ones(distances.shape, bool), 1)
    same = labels[:, None] == labels[None]
    right, wrong = np.sort(distances[upper & same]), np.sort(distances[upper & ~same])
    want = at_far(right, wrong, far)
    seconds = time.perf_counter() - start
    found = all_pairs(vectors, labels, (far,)).val_at_far[far]
    counts = [int(np.searchsorted(side, np.float32(want["threshold"]), side="right")) for side in (right, wrong)]
    equal = counts == [found["accepted_same"], found["accepted_different"]] and want["val"] == found["val"]
    return {
        "faces": len(vectors),
        "seconds": seconds,
        "equal": bool(equal),
        "val": found["val"],
        "threshold_difference": abs(found["threshold"] - want["threshold"]),
    }


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Hold torch and NumPy's BLAS to a number of threads."""
    from threadpoolctl import threadpool_limits  # comes with scikit-learn

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with threadpool_limits(limits=count):
            yield
    finally:
        torch.set_num_threads(before)


def _extra_bytes(count: int, D: int, per_identity: int, far: float, threads: int, seed: int) -> int | None:
    return in_fresh_process(f"verify.call_and_measure({count}, {D}, {per_identity}, {far}, {threads}, {seed})")


def call_and_measure(count: int, D: int, per_identity: int, far: float, threads: int, seed: int) -> int:
    """Return the bytes that one call takes above the level before it; the process must be a fresh one."""
    with _threads(threads):
        all_pairs(*_faces(200, D, per_identity, seed), (0.1,))  # loads what is loaded on first use
        vectors, labels = _faces(count, D, per_identity, seed)
        with suppress(OSError, AttributeError):  # what drawing left must not hide what the call takes
            ctypes.CDLL(None).malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        before = status_bytes("VmRSS")
        all_pairs(vectors, labels, (far,))
        return status_bytes("VmHWM") - before
