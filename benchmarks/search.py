"""Search benchmark: our gallery's `search` beside raw FAISS on the very same index, and what each kind is worth.

Faces of the same people that the gallery does not hold are the queries, so recall is that of queries which no tuning
has seen. Both contestants return arrays of neighbours, one after the other in every repetition; names are timed apart.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.mining import draw_faces, summary
from benchmarks.training import interleave
from facenet.gallery.faiss.file import read_index
from facenet.gallery.faiss.layers import using_threads
from facenet.gallery.gallery import Gallery
from facenet.types import EmbeddingSet, Neighbours

FINGERPRINT = "be" * 32
PATIENCE = 60.0
CHUNK = 100_000  # faces added at a time
K = 10  # neighbours whose recall is told
SPEED = {
    "index": "index",
    "queries/s": "qps",
    "raw FAISS": "raw_qps",
    "time, of raw": "batch_ratio",
    "one query, ms more": "single_more_ms",
    "with names, queries/s": "named_qps",
    "recall@1": "recall_at_1",
    "@10": "recall_at_10",
}
WORTH = {
    "bytes a face": "bytes_per_face",
    "build, s": "build_seconds",
    "open, s": "open_seconds",
    "tuned to": "parameter",
    "rescored, queries/s": "rescored_qps",
    "recall@1": "rescored_recall_at_1",
    "@10": "rescored_recall_at_10",
}


def run(
    *,
    sizes: Sequence[int] = (250_000, 1_000_000),
    kinds: Sequence[str] = ("flat", "ivf_sq8", "ivf_pq", "hnsw"),
    hnsw_to: int = 250_000,
    queries: int = 1000,
    singles: int = 200,
    edits: int = 20,
    repeats: int = 5,
    per_identity: int = 20,
    decay: float = 0.6,
    recall_target: float = 0.99,
    D: int = 128,
    threads: int = 1,
    folder: str = "",
    seed: int = 0,
) -> dict[str, Any]:
    """Measure every kind at every size; `threads` FAISS threads search, and all build.

    `folder` is where the galleries are written and deleted again ("" a temporary one): 0.9 GB for a million faces.
    """
    result: dict[str, Any] = {"threads": threads, "queries": queries, "sizes": {}}
    for size in sizes:
        faces, labels = draw_faces(size + queries, D, per_identity=per_identity, decay=decay, seed=seed)
        vectors, people = faces.numpy(), labels.numpy()
        with tempfile.TemporaryDirectory(prefix="facenet-search-", dir=folder or None) as name:
            place = Path(name) / "gallery"
            entry: dict[str, Any] = {"fill": _fill(place, vectors[:size], people[:size])}
            asked = vectors[size:]
            truth = _exact(vectors[:size], asked, threads)
            chosen = [kind for kind in kinds if kind != "hnsw" or size <= hnsw_to]
            entry["kinds"] = {
                kind: _measure(place, kind, asked, truth, recall_target, singles, repeats, threads) for kind in chosen
            }
            entry["edits"] = _edit(place, asked, edits, threads)
            shutil.rmtree(place)
        result["sizes"][str(size)] = entry
    return result


def tables(result: dict[str, Any]) -> list[tuple[str, tuple[str, ...], list[tuple[Any, ...]]]]:
    """Lay out what :func:`run` returned: (title, header, rows)."""
    found: list[tuple[str, tuple[str, ...], list[tuple[Any, ...]]]] = []
    threads = f"{result['threads']} thread" + "s" * (result["threads"] > 1)
    for size, entry in result["sizes"].items():
        for title, columns in (
            (f"batches of {result['queries']:,}, {threads}", SPEED),
            ("what a kind is worth", WORTH),
        ):
            rows = [(kind, *(told[name] for name in columns.values())) for kind, told in entry["kinds"].items()]
            found.append((f"{int(size):,} faces, {title}", ("kind", *columns), rows))
        edits = entry["edits"]
        rows = [(what, 1000 * edits[what]["seconds"], 1000 * edits[what]["most"]) for what in edits]
        rows.append(("fill, all faces", 1000 * entry["fill"]["seconds"], ""))
        found.append((f"one face of {int(size):,}, milliseconds", ("what", "median", "most"), rows))
    return found


def _fill(place: Path, vectors: np.ndarray, people: np.ndarray) -> dict[str, float]:
    started = time.perf_counter()
    gallery = Gallery.open(place, create=True)
    for start in range(0, len(vectors), CHUNK):
        rows = range(start, min(start + CHUNK, len(vectors)))
        paths = [f"p{people[row]}/{row}.jpg" for row in rows]
        names = [f"p{people[row]}" for row in rows]
        gallery.add(EmbeddingSet(vectors[start : start + CHUNK], paths, names, FINGERPRINT))
    seconds = time.perf_counter() - started
    size = (place / "items.sqlite").stat().st_size
    gallery.close(write_index=False)  # each kind builds its own
    return {"seconds": seconds, "bytes_per_face": size / len(vectors)}


def _exact(vectors: np.ndarray, queries: np.ndarray, threads: int) -> np.ndarray:
    import faiss

    with using_threads(max(threads, faiss.omp_get_max_threads())):
        return np.asarray(faiss.knn(queries, vectors, K)[1]) + 1  # item numbers count from 1


def _measure(
    place: Path,
    kind: str,
    queries: np.ndarray,
    truth: np.ndarray,
    recall_target: float,
    singles: int,
    repeats: int,
    threads: int,
) -> dict[str, Any]:
    with Gallery.open(place) as gallery:
        gallery.configure(kind, recall_target=recall_target)
        started = time.perf_counter()
        gallery.save_cache(force=True)
        build = time.perf_counter() - started
    started = time.perf_counter()
    gallery = Gallery.open(place)
    gallery.search(_asked(queries[:1]), 1)
    opened = time.perf_counter() - started
    with gallery:
        info = gallery.info()
        stored, problem = read_index(place)
        assert stored is not None, problem
        index = stored.built.faiss

        def ours(vectors: np.ndarray, k: int, rescore: bool = False) -> Neighbours:
            return gallery.search(_asked(vectors), k, rescore=rescore, threads=threads)

        with using_threads(threads):
            batches = _compare({"raw": lambda: index.search(queries, K), "ours": lambda: ours(queries, K)}, repeats)
            one = [_single(ours, index, queries[i % len(queries)][None]) for i in range(singles)]
            named = _seconds(lambda: gallery.hits(_asked(queries[:200]), K)) / 200
            fetch = info["index"]["fetch"]
            rescored = _seconds(lambda: ours(queries, K, rescore=True)) if fetch > 1 else None
        told = {
            "index": info["index"]["factory"],
            "parameter": info["index"]["parameter"] + (f", {fetch} candidates" if fetch > 1 else ""),
            "claimed_recall": info["index"]["recall"],
            "bytes_per_face": info["bytes"]["index.faiss"] / info["count"],
            "build_seconds": build,
            "open_seconds": opened,
            "batches": batches,
            "qps": len(queries) / batches["ours"]["seconds"],
            "raw_qps": len(queries) / batches["raw"]["seconds"],
            "batch_ratio": batches["ours"]["seconds"] / batches["raw"]["seconds"],
            "single_ms": statistics.median(mine for mine, _ in one) * 1000,
            "single_raw_ms": statistics.median(raw for _, raw in one) * 1000,
            "named_qps": 1 / named,
            "rescored_qps": len(queries) / rescored if rescored else None,
        }
        told["single_more_ms"] = told["single_ms"] - told["single_raw_ms"]
        told |= _recall(truth, ours(queries, K).rows)
        again = _recall(truth, ours(queries, K, rescore=True).rows) if rescored else {}
        return told | {f"rescored_recall_at_{k}": again.get(f"recall_at_{k}") for k in (1, K)}


def _asked(vectors: np.ndarray) -> EmbeddingSet:
    return EmbeddingSet.unnamed(vectors, FINGERPRINT)


def _compare(contestants: dict[str, Callable[[], object]], repeats: int) -> dict[str, dict[str, float]]:
    return {name: summary(times) for name, times in interleave(contestants, PATIENCE, repeats).items()}


def _single(ours: Callable[[np.ndarray, int], Neighbours], index: Any, query: np.ndarray) -> tuple[float, float]:
    return _seconds(lambda: ours(query, K)), _seconds(lambda: index.search(query, K))


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _recall(truth: np.ndarray, found: np.ndarray) -> dict[str, float]:
    """Share of the k nearest (Q, K) among the first k found."""
    return {f"recall_at_{k}": float((truth[:, :k, None] == found[:, None, :k]).any(2).mean()) for k in (1, K)}


def _edit(place: Path, vectors: np.ndarray, edits: int, threads: int) -> dict[str, dict[str, float]]:
    """Seconds to add one face, to search after it, and to remove it, of a gallery in use."""
    times: dict[str, list[float]] = {"add": [], "search": [], "remove": []}
    with Gallery.open(place) as gallery:
        gallery.search(_asked(vectors[:1]), 1, threads=threads)
        for i in range(edits):
            face = EmbeddingSet(vectors[i : i + 1], [f"new{i}"], ["new"], FINGERPRINT)
            times["add"].append(_seconds(lambda face=face: gallery.add(face)))  # type: ignore[misc]
            times["search"].append(_seconds(lambda face=face: gallery.search(face, 1, threads=threads)))  # type: ignore[misc]
            times["remove"].append(_seconds(lambda i=i: gallery.remove(f"new{i}", by="id")))  # type: ignore[misc]
    return {name: summary(seconds) for name, seconds in times.items()}
