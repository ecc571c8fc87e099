"""Clustering benchmark: whispers beside the kNN search alone and scikit-learn's average linkage, and their quality.

Centroids of identities have variances rank^-`decay`, noise rank^-`noise_decay` with log-normal sizes (`spread`), since
pictures differ in quality. The mean squared distance is 1.0 within and 2.0 between people. The threshold is calibrated
on a labelled sample of other people. All contestants see the same vectors in one process, one after the other in every
repetition. Ratios are of medians.

At 10,000 faces average linkage at its best thresholds has pairwise F1 .928 and BCubed .933, connected components .751
and .812, whispers at the calibrated threshold .959 and .962.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.drawn import draw_gallery
from benchmarks.resources import extra_bytes, limited_threads, peak_above
from benchmarks.tables import TIMES, Table, megabytes, times
from facenet import neighbours as knn
from facenet.clustering.clusters import NEIGHBOURS, cluster, scores
from facenet.clustering.threshold import Calibration, calibrate_clustering, describe
from facenet.evaluation.thresholds import threshold_for
from facenet.export.speed import summary, time_in_turns
from facenet.gallery.faiss.layers import using_threads
from facenet.options import Options as BaseOptions
from facenet.options import option

PATIENCE = 10.0  # seconds: what takes four times as long is run once
DRAWN = ("D", "per_identity", "decay", "noise_decay", "spread")  # options of draw_gallery
SHOWN = ("pairwise_f1", "bcubed_f1", "nmi", "clusters", "identities")


@dataclass(frozen=True, kw_only=True)
class Options(BaseOptions):
    """Options of the clustering benchmark."""

    sizes: tuple[int, ...] = option((10_000, 50_000, 200_000), least=1, help="faces; a million takes one run")
    sample: int = option(5_000, least=1, help="labelled faces of other people, for the threshold")
    repeats: int = option(5, least=1, help="timed calls of each contestant, at most")
    linkage_to: int = option(10_000, least=0, help="faces to which average linkage is measured")
    search_to: int = option(200_000, least=0, help="faces to which the search alone is measured; above, ours runs once")
    memory: bool = option(True, help="measure memory, in a process of its own")
    D: int = option(128, least=1, help="embedding width")
    per_identity: int = option(20, least=1, help="faces of a person")
    decay: float = option(0.8, help="exponent of the centroids' spectrum")
    noise_decay: float = option(0.25, help="exponent of the noise's spectrum")
    spread: float = option(0.45, help="deviation of the log size of an image's noise")
    threads: int | None = option(
        None, least=1, help="of search and products; null is FAISS's own. Whispers and scikit-learn use one"
    )


def run(options: Options) -> dict[str, Any]:
    """Measure every size; returns plain numbers in nested objects, seconds and bytes.

    ``calibration``: what the labelled sample gave, and its `seconds`. ``sizes.<N>``: `ours`
    (:func:`facenet.clustering.cluster`), to `search_to` faces `graph` (our kNN search alone) and `faiss` (plain FAISS,
    exact to 50,000 faces, above with as many cells, as many looked into), each with `seconds` (median), `least`,
    `most`, `runs`; `graph_ratio`, `search_ratio` of ours to those; the `threshold` and the scores of ours, and
    `extra_bytes` (peak resident memory of one call in a fresh process above the level before it). To `linkage_to`
    faces `linkage`: scikit-learn's `seconds`, its `best` scores, and `linkage_ratio` (its time / ours).
    """
    drawn = {name: getattr(options, name) for name in DRAWN}
    with _limited(options.threads) as threads:
        start = time.perf_counter()
        calibration = calibrate_clustering(*draw_gallery(options.sample, seed=1, **drawn), threads=threads)
        seconds = time.perf_counter() - start
        result: dict[str, Any] = {"threads": threads, **drawn, "sizes": {}}
        result["calibration"] = {**describe(calibration), "seconds": seconds}
        for count in options.sizes:
            vectors, labels = draw_gallery(count, **drawn)
            searches = count <= options.search_to
            entry = _measure(vectors, labels, calibration, options.repeats, threads, searches=searches)
            if count <= options.linkage_to:
                entry["linkage"] = _linkage(vectors, labels)
                entry["linkage_ratio"] = entry["linkage"]["seconds"] / entry["ours"]["seconds"]
            call = (measure_memory, count, entry["threshold"], threads, drawn)
            entry["extra_bytes"] = extra_bytes(*call) if options.memory else None
            result["sizes"][str(count)] = entry
        return result


def tables(result: dict[str, Any]) -> list[Table]:
    """Lay out what :func:`run` returned."""
    speed: list[tuple[Any, ...]] = []
    quality: list[tuple[Any, ...]] = []
    for count, entry in result["sizes"].items():
        for name in ("faiss", "graph", "ours", "linkage"):
            if name in entry:
                ratio = entry["ours"]["seconds"] / entry[name]["seconds"]
                speed.append((count, name, *times(entry[name]), f"{ratio:.2f}x"))
        speed.append((count, "extra memory of ours", megabytes(entry["extra_bytes"]), "", "", ""))
        quality.append((count, "ours", entry["threshold"], *(entry[name] for name in SHOWN)))
        for name, best in entry.get("linkage", {}).get("best", {}).items():
            quality.append((count, f"linkage, best {name}", best["threshold"], *(best[score] for score in SHOWN)))
    links = f"{result['calibration']['links']:.3g} strangers a face"
    return [
        Table("clustering", ("faces", "what", *TIMES, "ours / this"), speed),
        Table(f"quality, threshold calibrated for {links}", ("faces", "what", "threshold", *SHOWN), quality),
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
    entry: dict[str, Any] = {**time_in_turns(contestants, PATIENCE, repeats)}
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
def _limited(count: int | None) -> Iterator[int]:
    """Hold FAISS and NumPy's BLAS to a number of threads, None to FAISS's own; yields the number."""
    import faiss

    count = count or faiss.omp_get_max_threads()
    with limited_threads(count), using_threads(count):
        yield count


def measure_memory(count: int, threshold: float, threads: int, drawn: dict[str, Any]) -> int:
    """Return the bytes that one call takes above the level before it; for a fresh process."""
    with _limited(threads):
        cluster(draw_gallery(100, **drawn)[0], threshold, method="chinese_whispers")  # loads what it needs
        vectors = draw_gallery(count, **drawn)[0]
        return peak_above(lambda: cluster(vectors, threshold, method="chinese_whispers", threads=threads))
