"""Search benchmark: our gallery's `search` beside raw FAISS on the very same index, and what each kind is worth.

Faces of the same people that the gallery does not hold are the queries, so recall is that of queries which no tuning
has seen. Both contestants return arrays of neighbours, one after the other in every repetition; names are timed apart.
"""

from __future__ import annotations

import functools
import shutil
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.drawn import draw_faces
from benchmarks.tables import Table
from facenet.export.speed import seconds_of, summary, time_in_turns
from facenet.gallery.faiss.file import read_index
from facenet.gallery.faiss.layers import using_threads
from facenet.gallery.gallery import Gallery
from facenet.options import RATE, SEED, option
from facenet.options import Options as BaseOptions
from facenet.types import EmbeddingSet, Neighbours

FINGERPRINT = "be" * 32
PATIENCE = 60.0
CHUNK = 100_000  # faces added at a time
K = 10  # neighbours whose recall is measured
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


@dataclass(frozen=True, kw_only=True)
class Options(BaseOptions):
    """Options of the search benchmark."""

    sizes: tuple[int, ...] = option((250_000, 1_000_000), least=1, help="faces of the gallery")
    kinds: tuple[str, ...] = option(("flat", "ivf_sq8", "ivf_pq", "hnsw"), help="kinds of index")
    hnsw_to: int = option(
        250_000, least=0, help="faces to which a graph is built: a million takes a quarter of an hour"
    )
    queries: int = option(1000, least=1, help="faces that are not in the gallery")
    singles: int = option(200, least=1, help="queries asked one by one")
    edits: int = option(20, least=1, help="faces added and removed one by one")
    repeats: int = option(5, least=1, help="timed batches, at most")
    per_identity: int = option(20, least=1, help="faces of a person")
    decay: float = option(0.6, help="exponent of the embeddings' spectrum")
    recall_target: float = option(0.99, **RATE, help="recall that an approximate index is tuned to")
    D: int = option(128, least=1, help="embedding width")
    threads: int = option(1, least=1, help="FAISS threads that search; building takes all")
    folder: str = option("", help="where the galleries are written (0.9 GB a million faces); empty: a temporary folder")
    seed: int = option(0, **SEED, help="of the embeddings")


def run(options: Options) -> dict[str, Any]:
    """Measure every kind at every size, and delete the galleries."""
    result: dict[str, Any] = {"threads": options.threads, "queries": options.queries, "sizes": {}}
    for size in options.sizes:
        drawn = {"per_identity": options.per_identity, "decay": options.decay, "seed": options.seed}
        faces, labels = draw_faces(size + options.queries, options.D, **drawn)  # type: ignore[arg-type]
        vectors, people = faces.numpy(), labels.numpy()
        with tempfile.TemporaryDirectory(prefix="facenet-search-", dir=options.folder or None) as name:
            place = Path(name) / "gallery"
            entry: dict[str, Any] = {"fill": _fill(place, vectors[:size], people[:size])}
            queries = vectors[size:]
            truth = _exact(vectors[:size], queries, options.threads)
            chosen = [kind for kind in options.kinds if kind != "hnsw" or size <= options.hnsw_to]
            entry["kinds"] = {kind: _measure(place, kind, queries, truth, options) for kind in chosen}
            entry["edits"] = _edit(place, queries, options.edits, options.threads)
            shutil.rmtree(place)
        result["sizes"][str(size)] = entry
    return result


def tables(result: dict[str, Any]) -> list[Table]:
    """Lay out what :func:`run` returned."""
    found: list[Table] = []
    threads = f"{result['threads']} thread" + "s" * (result["threads"] > 1)
    for size, entry in result["sizes"].items():
        for title, columns in (
            (f"batches of {result['queries']:,}, {threads}", SPEED),
            ("what a kind is worth", WORTH),
        ):
            rows = [(kind, *(measured[name] for name in columns.values())) for kind, measured in entry["kinds"].items()]
            found.append(Table(f"{int(size):,} faces, {title}", ("kind", *columns), rows))
        edits = entry["edits"]
        rows = [(what, 1000 * edits[what]["seconds"], 1000 * edits[what]["most"]) for what in edits]
        rows.append(("fill, all faces", 1000 * entry["fill"]["seconds"], ""))
        found.append(Table(f"one face of {int(size):,}, milliseconds", ("what", "median", "most"), rows))
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


def _measure(place: Path, kind: str, queries: np.ndarray, truth: np.ndarray, options: Options) -> dict[str, Any]:
    with Gallery.open(place) as gallery:
        gallery.configure(kind, recall_target=options.recall_target)
        build = seconds_of(lambda: gallery.save_cache(force=True))
    started = time.perf_counter()
    with Gallery.open(place) as gallery:
        gallery.search(_embedded(queries[:1]), 1)
        opened = time.perf_counter() - started
        info = gallery.info()
        fetch = info["index"]["fetch"]
        return {
            "index": info["index"]["factory"],
            "parameter": info["index"]["parameter"] + (f", {fetch} candidates" if fetch > 1 else ""),
            "claimed_recall": info["index"]["recall"],
            "bytes_per_face": info["bytes"]["index.faiss"] / info["count"],
            "build_seconds": build,
            "open_seconds": opened,
            **_speed(gallery, place, queries, truth, options, rescores=fetch > 1),
        }


def _embedded(vectors: np.ndarray) -> EmbeddingSet:
    return EmbeddingSet.unnamed(vectors, FINGERPRINT)


def _speed(
    gallery: Gallery, place: Path, queries: np.ndarray, truth: np.ndarray, options: Options, *, rescores: bool
) -> dict[str, Any]:
    """Measure ours beside raw FAISS on the gallery's own index: batches, single queries, names, rescoring, recall."""
    stored, problem = read_index(place)
    assert stored is not None, problem
    index = stored.built.faiss

    def ours(vectors: np.ndarray, k: int, rescore: bool = False) -> Neighbours:
        return gallery.search(_embedded(vectors), k, rescore=rescore, threads=options.threads)

    def single(number: int) -> tuple[float, float]:
        query = queries[number % len(queries)][None]
        return seconds_of(lambda: ours(query, K)), seconds_of(lambda: index.search(query, K))

    with using_threads(options.threads):
        contestants = {"raw": lambda: index.search(queries, K), "ours": lambda: ours(queries, K)}
        batches = time_in_turns(contestants, PATIENCE, options.repeats)
        singles = [single(number) for number in range(options.singles)]
        named = seconds_of(lambda: gallery.hits(_embedded(queries[:200]), K)) / 200
        rescored = seconds_of(lambda: ours(queries, K, rescore=True)) if rescores else None
    single_ms, raw_ms = (1000 * statistics.median(side) for side in zip(*singles, strict=True))
    again = _recall(truth, ours(queries, K, rescore=True).rows) if rescored else {}
    return {
        "batches": batches,
        "qps": len(queries) / batches["ours"]["seconds"],
        "raw_qps": len(queries) / batches["raw"]["seconds"],
        "batch_ratio": batches["ours"]["seconds"] / batches["raw"]["seconds"],
        "single_ms": single_ms,
        "single_raw_ms": raw_ms,
        "single_more_ms": single_ms - raw_ms,
        "named_qps": 1 / named,
        "rescored_qps": len(queries) / rescored if rescored else None,
        **_recall(truth, ours(queries, K).rows),
        **{f"rescored_recall_at_{k}": again.get(f"recall_at_{k}") for k in (1, K)},
    }


def _recall(truth: np.ndarray, found: np.ndarray) -> dict[str, float]:
    """Share of the k nearest (Q, K) among the first k found."""
    return {f"recall_at_{k}": float((truth[:, :k, None] == found[:, None, :k]).any(2).mean()) for k in (1, K)}


def _edit(place: Path, vectors: np.ndarray, edits: int, threads: int) -> dict[str, dict[str, float]]:
    """Time adding one face, a search after it, and removing it, in a gallery in use."""
    times: dict[str, list[float]] = {"add": [], "search": [], "remove": []}
    with Gallery.open(place) as gallery:
        gallery.search(_embedded(vectors[:1]), 1, threads=threads)
        for i in range(edits):
            face = EmbeddingSet(vectors[i : i + 1], [f"new{i}"], ["new"], FINGERPRINT)
            times["add"].append(seconds_of(functools.partial(gallery.add, face)))
            times["search"].append(seconds_of(functools.partial(gallery.search, face, 1, threads=threads)))
            times["remove"].append(seconds_of(functools.partial(gallery.remove, f"new{i}", by="id")))
    return {name: summary(seconds) for name, seconds in times.items()}
