"""Recall that a gallery states of itself beside the recall that new queries find, for each kind of index.

Galleries are drawn with and without near copies. New queries are other pictures of the gallery's people, or of
strangers. Both are measured when the index is built, and again after a share of the faces has been removed and as many
faces of new people added.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.drawn import draw_gallery
from benchmarks.tables import Table
from facenet.gallery.gallery import Gallery
from facenet.options import SEED, option
from facenet.options import Options as BaseOptions
from facenet.types import EmbeddingSet
from facenet.vectors import normalise

FINGERPRINT, K = "ec" * 32, 10
COLUMNS = ("faces", "asked for", "with copies", "edited", "used", "setting", "stated @1", "found @1", "stated @10",
           "found @10", "strangers stated @1", "found @1", "build, s")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Options(BaseOptions):
    """Options of the recall benchmark."""

    sizes: tuple[int, ...] = option((500, 5000, 50_000), least=1, help="faces of the gallery")
    kinds: tuple[str, ...] = option(("flat", "hnsw", "ivf_sq8", "ivf_pq"), help="kinds of index")
    factories: tuple[str, ...] = option(("HNSW16", "IVF8,Flat"), help="FAISS factory strings")
    copies: tuple[int, ...] = option((0, 3), help="near copies of every face")
    noise: float = option(0.01, help="sq_dist of a face and its near copy")
    edited: float = option(0.2, help="share of the faces that edits remove and add")
    queries: int = option(2000, least=1, help="new faces of the gallery's people, and as many of strangers")
    D: int = option(128, least=1, help="embedding width")
    within: float = option(1.0, help="mean sq_dist of two faces of a person")
    recall_target: float = option(0.99, help="recall that an index is tuned to")
    folder: str = option("", help="where galleries are written; empty: a temporary folder")
    seed: int = option(0, **SEED, help="of the embeddings")


def run(options: Options) -> dict[str, Any]:
    """Measure every kind at every size; returns {"rows": [...]} with plain values by the names of `COLUMNS`."""
    rows: list[dict[str, Any]] = []
    for size in options.sizes:
        for copies in options.copies:
            world = draw(size, copies, options)
            for asked in (*options.kinds, *options.factories):
                with tempfile.TemporaryDirectory(prefix="facenet-recall-", dir=options.folder or None) as folder:
                    told = {"faces": size, "asked for": asked, "with copies": copies}
                    rows += [told | row for row in _measured(Path(folder), asked, world, options)]
                    print({key: value for key, value in rows[-1].items() if key != "setting"}, flush=True)
    return {"rows": rows, "worst": max(abs(row["stated @1"] - row["found @1"]) for row in rows)}


def tables(result: dict[str, Any]) -> list[Table]:
    """Lay out what :func:`run` returned."""
    names = [*COLUMNS[:11], "strangers found @1", "build, s"]
    rows = [tuple(row[name] for name in names) for row in result["rows"]]
    return [Table(f"stated and found recall, largest difference {result['worst']:.4f}", COLUMNS, rows)]


def draw(size: int, copies: int, options: Options) -> dict[str, np.ndarray]:
    """Draw faces of the gallery, faces to add, and queries of the same people and of strangers."""
    rng, apart = np.random.default_rng(options.seed), 1 + copies
    base, queries, adds = -(-size // apart), options.queries, int(options.edited * size) // 2
    vectors, _ = draw_gallery(base + queries, options.D, within=options.within, seed=options.seed)
    others, _ = draw_gallery(-(-adds // apart) + queries, options.D, within=options.within, seed=options.seed + 1)

    def copied(rows: np.ndarray, count: int) -> np.ndarray:
        noise = rng.standard_normal((len(rows), apart, options.D), np.float32) * np.sqrt(options.noise / options.D)
        noise[:, 0] = 0
        return normalise((rows[:, None] + noise).reshape(-1, options.D)[:count])

    return {
        "faces": copied(vectors[queries:], size),
        "queries": vectors[:queries],
        "adds": copied(others[queries:], adds),
        "strangers": draw_gallery(queries, options.D, within=options.within, seed=options.seed + 2)[0],
        "added": others[:queries],
    }


def _measured(place: Path, asked: str, world: dict[str, np.ndarray], options: Options) -> list[dict[str, Any]]:
    faces, adds = world["faces"], world["adds"]
    rng, started = np.random.default_rng(options.seed), time.perf_counter()
    with Gallery.open(place, create=True) as gallery:
        gallery.add(_named(faces, "f"))
        kind = {"kind": asked} if asked in options.kinds else {"factory": asked}
        gallery.configure(**kind, recall_target=options.recall_target)
        gallery.save_cache(force=True)
    seconds = time.perf_counter() - started
    rows = [_row(place, faces, world["queries"], world["strangers"]) | {"edited": 0.0, "build, s": seconds}]
    if len(adds):
        gone = rng.permutation(len(faces))[: len(adds)]
        with Gallery.open(place) as gallery:
            gallery.remove([f"f{i}" for i in gone], by="id")
            gallery.add(_named(adds, "g"))
        now = np.concatenate([np.delete(faces, gone, 0), adds])
        new = int(len(world["queries"]) * len(adds) / len(now))
        asks = np.concatenate([world["queries"][new:], world["added"][:new]])
        seconds = time.perf_counter() - started
        rows.append(_row(place, now, asks, world["strangers"]) | {"edited": options.edited, "build, s": seconds})
    return rows


def _row(place: Path, faces: np.ndarray, queries: np.ndarray, strangers: np.ndarray) -> dict[str, Any]:
    """Ask a gallery whose items lie in the order of `faces`."""
    with Gallery.open(place) as gallery:
        index = gallery.info()["index"]
        numbers = np.concatenate([[item.number for item in items] for items, _ in gallery.blocks()])
        found = [_found(gallery, faces, numbers, asked, k) for asked, k in ((queries, 1), (queries, K), (strangers, 1))]
    stated = index["recall"] or {"at_1": 1.0, "at_10": 1.0, "strangers_at_1": 1.0}
    setting = index["parameter"] + (f", {index['fetch']} candidates" if index["fetch"] > 1 else "")
    return {
        "used": index["factory"], "setting": setting, "stated @1": stated["at_1"], "found @1": found[0],
        "stated @10": stated["at_10"], "found @10": found[1], "strangers stated @1": stated["strangers_at_1"],
        "strangers found @1": found[2],
    }  # fmt: skip


def _found(gallery: Gallery, faces: np.ndarray, numbers: np.ndarray, queries: np.ndarray, k: int) -> float:
    """Return the share of the k nearest that a gallery finds; items as near as the k-th count."""
    import faiss

    truth = faiss.knn(queries, faces, k)[0]
    rows = gallery.search(EmbeddingSet.unnamed(queries, FINGERPRINT), k).rows
    place = np.searchsorted(numbers, rows)
    exact = ((faces[place] - queries[:, None]) ** 2).sum(2)
    return float(((exact <= truth[:, -1:] + 1e-5) & (rows >= 0)).mean())


def _named(vectors: np.ndarray, prefix: str) -> EmbeddingSet:
    names = [f"{prefix}{i}" for i in range(len(vectors))]
    return EmbeddingSet(vectors, names, names, FINGERPRINT)
