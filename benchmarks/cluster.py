"""Clustering benchmark: whispers beside the kNN search alone and scikit-learn's average linkage, and their quality.

The faces are drawn: identity centroids with a decaying spectrum, and noise whose size differs from image to image, as
faces do in quality. The threshold is calibrated on a labelled sample of other people. All contestants see the same
vectors in one process, one after the other in every repetition; the ratios are of medians.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.mining import in_fresh_process, status_bytes, summary
from benchmarks.training import interleave
from facenet import neighbours as knn
from facenet.clustering.clusters import NEIGHBOURS, cluster, scores
from facenet.clustering.threshold import Calibration, calibrate, describe
from facenet.evaluation.thresholds import threshold_for

PATIENCE = 10.0  # seconds: what takes four times as long is run once
CHUNK = 1 << 16  # rows drawn at a time
SHOWN = ("pairwise_f1", "bcubed_f1", "nmi", "clusters", "identities")


def draw_gallery(
    count: int,
    D: int = 128,
    *,
    per_identity: int = 20,
    decay: float = 0.8,
    noise_decay: float = 0.25,
    spread: float = 0.45,
    within: float = 1.0,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw unit vectors (N, D) float32 of shuffled identities, and the identity of each (N,).

    Identity centroid plus noise per image, with variances proportional to rank^-decay and rank^-noise_decay over the
    axes; the size of an image's noise is log-normal with deviation `spread`, and such that the mean squared distance
    inside an identity is about `within`; it is 2 between identities.
    """
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(count) // per_identity)
    spectrum = np.arange(1, D + 1, dtype=np.float32)
    people = -(-count // per_identity)
    centroids = _unit(rng.standard_normal((people, D), dtype=np.float32) * spectrum ** (-decay / 2))
    size = np.exp(spread * rng.standard_normal(count, dtype=np.float32))
    low, high = 0.0, 10.0
    for _ in range(40):  # the mean cosine of a face and its centroid is the root of that of two faces
        scale = (low + high) / 2
        near = np.mean(1 / np.sqrt(1 + (scale * size) ** 2)) ** 2 > 1 - within / 2
        low, high = (scale, high) if near else (low, scale)
    vectors = np.empty((count, D), np.float32)
    for start in range(0, count, CHUNK):
        rows = slice(start, start + CHUNK)
        noise = _unit(rng.standard_normal((len(labels[rows]), D), dtype=np.float32) * spectrum ** (-noise_decay / 2))
        vectors[rows] = _unit(centroids[labels[rows]] + np.float32(scale) * size[rows, None] * noise)
    return vectors, labels


def _unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def run(
    sizes: Sequence[int] = (10_000, 50_000, 200_000),
    sample: int = 5_000,
    repeats: int = 5,
    linkage_to: int = 10_000,
    search_to: int = 200_000,
    memory: bool = True,
    D: int = 128,
    per_identity: int = 20,
    decay: float = 0.8,
    noise_decay: float = 0.25,
    spread: float = 0.45,
    threads: int | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure every size; returns plain numbers in nested objects, seconds and bytes.

    ``calibration``: what the labelled sample gave, and its `seconds`. ``sizes.<N>``: `ours`
    (:func:`facenet.clustering.cluster`), to `search_to` faces `graph` (our kNN search alone) and `faiss` (plain FAISS,
    exact to 50,000 faces, above with as many cells, as many looked into), each with `seconds` (median), `least`,
    `most`, `runs`; `graph_ratio`, `search_ratio` of ours to those; the `threshold` and the scores of ours, and
    `extra_bytes` (peak resident memory of one call in a fresh process above the level before it). To `linkage_to`
    faces `linkage`: scikit-learn's `seconds`, its `best` scores, and `linkage_ratio` (its time / ours).
    """
    drawn: dict[str, Any] = {
        "D": D,
        "per_identity": per_identity,
        "decay": decay,
        "noise_decay": noise_decay,
        "spread": spread,
    }
    with _threads(threads) as threads:
        start = time.perf_counter()
        calibration = calibrate(*draw_gallery(sample, seed=seed + 1, **drawn), threads=threads)
        seconds = time.perf_counter() - start
        result: dict[str, Any] = {"threads": threads, **drawn, "sizes": {}}
        result["calibration"] = {**describe(calibration), "seconds": seconds}
        for count in sizes:
            vectors, labels = draw_gallery(count, seed=seed, **drawn)
            entry = _measure(vectors, labels, calibration, repeats, threads, searches=count <= search_to)
            if count <= linkage_to:
                entry["linkage"] = _linkage(vectors, labels)
                entry["linkage_ratio"] = entry["linkage"]["seconds"] / entry["ours"]["seconds"]
            entry["extra_bytes"] = None
            if memory:
                call = f"cluster.call_and_measure({count}, {entry['threshold']}, {threads}, {seed}, **{drawn})"
                entry["extra_bytes"] = in_fresh_process(call)
            result["sizes"][str(count)] = entry
        return result


def tables(result: dict[str, Any]) -> list[tuple[str, tuple[str, ...], list[tuple[Any, ...]]]]:
    """Lay out what :func:`run` returned: (title, header, rows)."""
    times: list[tuple[Any, ...]] = []
    quality: list[tuple[Any, ...]] = []
    for count, entry in result["sizes"].items():
        for name in ("faiss", "graph", "ours", "linkage"):
            if name in entry:
                found = entry[name]
                ratio = entry["ours"]["seconds"] / found["seconds"]
                times.append((count, name, found["seconds"], found["least"], found["most"], f"{ratio:.2f}x"))
        extra = entry["extra_bytes"]
        times.append((count, "extra memory of ours", "-" if extra is None else f"{extra / 1e6:.0f} MB", "", "", ""))
        quality.append((count, "ours", entry["threshold"], *(entry[name] for name in SHOWN)))
        for name, best in entry.get("linkage", {}).get("best", {}).items():
            quality.append((count, f"linkage, best {name}", best["threshold"], *(best[score] for score in SHOWN)))
    links = f"{result['calibration']['links']:.3g} strangers a face"
    return [
        ("clustering", ("faces", "what", "seconds (median)", "least", "most", "ours / this"), times),
        (f"quality, threshold calibrated for {links}", ("faces", "what", "threshold", *SHOWN), quality),
    ]


def _measure(
    vectors: np.ndarray, labels: np.ndarray, calibration: Calibration, repeats: int, threads: int, *, searches: bool
) -> dict[str, Any]:
    threshold = threshold_for(len(vectors), calibration.thresholds, links=calibration.links).sq_dist
    found: list[np.ndarray] = []

    def ours() -> None:
        found[:] = [cluster(vectors, threshold, method="chinese_whispers", threads=threads)]

    contestants: dict[str, Callable[[], object]] = {"ours": ours}
    if searches:
        search = _plain_search(vectors, NEIGHBOURS + 1, threads)
        contestants = {
            "faiss": search,
            "graph": lambda: knn.knn_graph(vectors, NEIGHBOURS, threads=threads),
            "ours": ours,
        }
    entry: dict[str, Any] = {name: summary(times) for name, times in interleave(contestants, PATIENCE, repeats).items()}
    for name, ratio in (("graph", "graph_ratio"), ("faiss", "search_ratio")):
        if searches:
            entry[ratio] = entry["ours"]["seconds"] / entry[name]["seconds"]
    return {**entry, "threshold": threshold, **scores(found[0], labels)}


def _plain_search(vectors: np.ndarray, k: int, threads: int) -> Callable[[], object]:
    """Return FAISS's own way to the k nearest of every vector, built and searched at each call."""
    import faiss

    def exact() -> None:
        index = faiss.IndexFlatL2(vectors.shape[1])
        index.add(vectors)
        index.search(vectors, k)

    if len(vectors) <= knn.EXACT_TO:
        return exact
    cells = knn.cells_for(len(vectors))

    def build() -> Any:
        index: Any = faiss.index_factory(vectors.shape[1], f"IVF{cells},SQfp16")
        index.cp.niter, index.cp.max_points_per_centroid = knn.ROUNDS, knn.POINTS
        index.train(vectors)
        index.add(vectors)
        return index

    cells_looked_into = knn.cells_needed(build(), vectors, k, knn.RECALL, threads, 0)

    def inverted() -> None:
        index = build()
        index.nprobe = cells_looked_into
        index.search(vectors, k)

    return inverted


def _linkage(vectors: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Time scikit-learn's average linkage on squared distances, and score it at each of many thresholds."""
    from scipy.cluster.hierarchy import fcluster
    from sklearn.cluster import AgglomerativeClustering

    start = time.perf_counter()
    model = AgglomerativeClustering(None, metric="sqeuclidean", linkage="average", distance_threshold=1.0).fit(vectors)
    seconds = time.perf_counter() - start
    tree = np.column_stack((model.children_, model.distances_, np.zeros(len(model.children_)))).astype(float)
    found = []
    for threshold in np.arange(0.8, 1.8, 0.02).tolist():
        found.append({"threshold": threshold, **scores(fcluster(tree, threshold, "distance"), labels)})
    best = {name: max(found, key=lambda one: one[name]) for name in ("pairwise_f1", "bcubed_f1")}
    return {**summary([seconds]), "best": best}


@contextmanager
def _threads(count: int | None) -> Iterator[int]:
    """Hold FAISS and NumPy's BLAS to a number of threads, FAISS's own where None; yields it."""
    import faiss
    from threadpoolctl import threadpool_limits  # comes with scikit-learn

    before = faiss.omp_get_max_threads()
    count = before if count is None else count
    faiss.omp_set_num_threads(count)
    try:
        with threadpool_limits(limits=count):
            yield count
    finally:
        faiss.omp_set_num_threads(before)


def call_and_measure(count: int, threshold: float, threads: int, seed: int, **drawn: Any) -> int:
    """Return the bytes that one call takes above the level before it; the process must be a fresh one."""
    with _threads(threads):
        cluster(draw_gallery(100, seed=seed, **drawn)[0], threshold, method="chinese_whispers")  # loads what it needs
        vectors = draw_gallery(count, seed=seed, **drawn)[0]
        with suppress(OSError, AttributeError):  # what drawing left must not hide what the call takes
            ctypes.CDLL(None).malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        before = status_bytes("VmRSS")
        cluster(vectors, threshold, method="chinese_whispers", threads=threads)
        return status_bytes("VmHWM") - before
