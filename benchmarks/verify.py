"""Verification benchmark: ten folds beside loops over thresholds, all pairs beside the product of their tiles alone.

The loops have the structure of the evaluation most often copied (davidsandberg/facenet): in each fold every one of
400 thresholds for accuracy and ROC, then every one of 4,000 for VAL at FAR, each a pass over the pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.drawn import draw_faces
from benchmarks.resources import extra_bytes, limited_threads, peak_above
from benchmarks.tables import TIMES, Table, megabytes, times
from facenet.evaluation.all_pairs import all_pairs, tiles
from facenet.evaluation.roc import at_far
from facenet.evaluation.verification import common_grid, verify_pairs
from facenet.export.speed import seconds_of, time_in_turns
from facenet.options import RATE, option
from facenet.options import Options as BaseOptions

FOLDS = 10
LOOP_FAR = 1e-3
PATIENCE = 120.0
D, PER_IDENTITY = 128, 20


@dataclass(frozen=True, kw_only=True)
class Options(BaseOptions):
    """Options of the verification benchmark."""

    pairs: int = option(6000, least=20, help="pairs in ten folds")
    repeats: int = option(9, least=1, help="timed calls on the folds, at most")
    faces: tuple[int, ...] = option((10_000, 50_000), least=1, help="faces, for all pairs")
    rounds: int = option(3, least=1, help="timed calls on all pairs, at most")
    sorted_faces: int = option(10_000, least=0, help="faces of the full sort; 0: none")
    far: float = option(1e-6, **RATE, help="false accept rate of all pairs")
    threads: int = option(1, least=1, help="of torch and NumPy")
    peers: bool = option(True, help="measure the loops over thresholds too")
    memory: bool = option(True, help="measure memory, in a process of its own")


def run(options: Options) -> dict[str, Any]:
    """Measure both; returns plain numbers in nested objects, seconds and bytes.

    ``folds``: `ours` (everything :func:`verify_pairs` reports) and `loops`, each with `seconds` (median),
    `least`, `most`, `runs`; `loops_ratio` (their time / ours) and `equal_folds`: whether the loops reach the same
    accuracy in every fold as ours on their grid. ``all_pairs.<N>``: `product` (the tiles' GEMM and nothing else),
    `ours`, `product_ratio` of ours and `extra_bytes` (peak resident memory of one call in a fresh process above the
    level before it). ``full_sort``: its seconds at `sorted_faces` faces, and whether threshold and counts are equal.
    The tightest figures are those of a machine that does nothing else.
    """
    with limited_threads(options.threads):
        result: dict[str, Any] = {"threads": options.threads, "far": options.far}
        result |= {"folds": _folds(options.pairs, options.repeats, options.peers), "all_pairs": {}}
        for count in options.faces:
            measured = _against_product(*_faces(count), options.far, options.rounds)
            call = (measure_memory, count, options.far, options.threads)
            measured["extra_bytes"] = extra_bytes(*call) if options.memory else None
            result["all_pairs"][str(count)] = measured
        if options.sorted_faces:
            result["full_sort"] = _against_full_sort(*_faces(options.sorted_faces), options.far)
        return result


def tables(result: dict[str, Any]) -> list[Table]:
    """Lay out what :func:`run` returned."""
    folds = result["folds"]
    rows: list[tuple[Any, ...]] = [(name, *times(folds[name])) for name in ("ours", "loops") if name in folds]
    if "loops" in folds:
        rows.append((f"loops / ours: {folds['loops_ratio']:.0f}x; equal folds: {folds['equal_folds']}", "", "", ""))
    first = Table(f"{folds['pairs']} pairs, ten folds, everything", ("what", *TIMES), rows)
    rows = []
    for count, entry in result["all_pairs"].items():
        rows.append((count, "product", *times(entry["product"]), ""))
        cost = f"{entry['product_ratio']:.2f}x, {megabytes(entry['extra_bytes'])} more"
        rows.append((count, "ours", *times(entry["ours"]), cost))
    if "full_sort" in result:
        entry = result["full_sort"]
        rows.append((str(entry["faces"]), "full sort", entry["seconds"], "", "", f"equal: {entry['equal']}"))
    header = ("faces", "what", *TIMES, "of the product, memory")
    return [first, Table(f"all pairs, TAR at FAR {result['far']:g}", header, rows)]


def _folds(pairs: int, repeats: int, peers: bool) -> dict[str, Any]:
    """Time everything on drawn pairs, half of them same, in ten folds."""
    rng = np.random.default_rng(0)
    same = np.tile(np.repeat([True, False], pairs // (2 * FOLDS)), FOLDS)
    folds = np.repeat(np.arange(FOLDS), pairs // FOLDS)
    distances = np.where(same, rng.normal(1.0, 0.3, len(same)), rng.normal(1.7, 0.3, len(same))).clip(0, 4)
    contestants: dict[str, Callable[[], object]] = {"ours": lambda: verify_pairs(distances, same, folds)}
    if peers:
        contestants["loops"] = lambda: loops(distances, same, folds)
    measured: dict[str, Any] = {"pairs": len(same), **time_in_turns(contestants, PATIENCE, repeats)}
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


def _faces(count: int) -> tuple[np.ndarray, np.ndarray]:
    embeddings, labels = draw_faces(count, D, per_identity=PER_IDENTITY)
    return embeddings.numpy(), labels.numpy()


def _against_product(vectors: np.ndarray, labels: np.ndarray, far: float, rounds: int) -> dict[str, Any]:
    def product() -> None:
        for _ in tiles(vectors):
            pass

    contestants = {"product": product, "ours": lambda: all_pairs(vectors, labels, (far,))}
    measured: dict[str, Any] = {**time_in_turns(contestants, PATIENCE, rounds)}
    measured["product_ratio"] = measured["ours"]["seconds"] / measured["product"]["seconds"]
    return measured


def _against_full_sort(vectors: np.ndarray, labels: np.ndarray, far: float) -> dict[str, Any]:
    """Sort every distance at once, and compare threshold and counts with the tail's."""
    sides: list[np.ndarray] = []

    def full_sort() -> None:
        distances = np.maximum(2 - 2 * (vectors @ vectors.T), 0)
        upper = np.triu(np.ones(distances.shape, bool), 1)
        same = labels[:, None] == labels[None]
        sides[:] = [np.sort(distances[upper & same]), np.sort(distances[upper & ~same])]
        at_far(sides[0], sides[1], far)

    seconds = seconds_of(full_sort)
    want = at_far(sides[0], sides[1], far)
    found = all_pairs(vectors, labels, (far,)).val_at_far[far]
    counts = [int(np.searchsorted(side, np.float32(want["threshold"]), side="right")) for side in sides]
    equal = counts == [found["accepted_same"], found["accepted_different"]] and want["val"] == found["val"]
    return {
        "faces": len(vectors),
        "seconds": seconds,
        "equal": bool(equal),
        "val": found["val"],
        "threshold_difference": abs(found["threshold"] - want["threshold"]),
    }


def measure_memory(count: int, far: float, threads: int) -> int:
    """Return the bytes that one call takes above the level before it; for a fresh process."""
    with limited_threads(threads):
        all_pairs(*_faces(200), (0.1,))  # loads what is loaded on first use
        vectors, labels = _faces(count)
        return peak_above(lambda: all_pairs(vectors, labels, (far,)))
