"""The same gallery in a folder and in databases: verdicts, recall, speed, building, bytes.

Every verdict is compared with that of an exact gallery in a folder. Thresholds are the distances of the answers: each
query is a tie. Queries are faces of the same people that the gallery does not hold.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.drawn import draw_faces
from benchmarks.tables import Table
from facenet.gallery.batches import add_in_batches
from facenet.gallery.engines.places import is_address
from facenet.gallery.gallery import Gallery
from facenet.gallery.search import Hit
from facenet.options import RATE, SEED, option
from facenet.options import Options as BaseOptions
from facenet.types import EmbeddingSet

FINGERPRINT = "ec" * 32
KINDS = {
    "folder": ("flat", "hnsw", "ivf_sq8"),
    "postgresql": ("flat", "hnsw"),
    "postgres": ("flat", "hnsw"),
    "milvus": ("flat", "hnsw", "ivf"),
}
COLUMNS = ("engine", "kind", "recall@1", "verdicts that differ", "queries/s", "one query, ms", "add, faces/s",
           "index, s", "bytes a face")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Options(BaseOptions):
    """Options of the engine benchmark."""

    places: tuple[str, ...] = option((), help="addresses of new galleries in databases, beside a folder")
    faces: int = option(100_000, least=1, help="of the gallery")
    queries: int = option(1000, least=1, help="new faces of the gallery's people")
    D: int = option(128, least=1, help="embedding width")
    per_identity: int = option(10, least=2, help="faces of a person")
    recall_target: float = option(0.99, **RATE, help="recall that an approximate index is tuned to")
    singles: int = option(100, least=1, help="queries that are asked alone")
    seed: int = option(0, **SEED, help="of the embeddings")


def run(options: Options) -> dict[str, Any]:
    """Fill a gallery at each place and ask it; returns {"rows": [...]} with plain values by the names of `COLUMNS`."""
    drawn = draw_faces(options.faces + options.queries, options.D, per_identity=options.per_identity, seed=options.seed)
    vectors, people = drawn[0].numpy(), [f"p{one}" for one in drawn[1].tolist()]
    names = [f"f{row}" for row in range(options.faces)]
    given = EmbeddingSet(vectors[: options.faces], names, people[: options.faces], FINGERPRINT)
    asked = EmbeddingSet.unnamed(vectors[options.faces :], FINGERPRINT)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="facenet-engines-") as folder:
        exact: list[Hit] = []
        for place in (str(Path(folder) / "gallery"), *options.places):
            engine = place.partition(":")[0] if is_address(place) else "folder"
            with Gallery.open(place, create=True) as gallery:
                started = time.perf_counter()
                add_in_batches(gallery, given)
                rate = options.faces / (time.perf_counter() - started)
                for kind in KINDS[engine]:
                    row = {"engine": engine, "kind": kind, "add, faces/s": rate}
                    answers, measured = _measured(gallery, kind, asked, options)
                    exact = exact or answers
                    rows.append({**row, **measured, **_compared(answers, exact)})
                    print(rows[-1], flush=True)
    return {"rows": rows}


def tables(result: dict[str, Any]) -> list[Table]:
    """Lay out what :func:`run` returned."""
    rows = [tuple(row[name] for name in COLUMNS) for row in result["rows"]]
    return [Table("one gallery in each engine", COLUMNS, rows)]


def _measured(gallery: Gallery, kind: str, asked: EmbeddingSet, options: Options) -> tuple[list[Hit], dict[str, Any]]:
    """Build an index of a kind and ask; returns the nearest face of each query, and what it cost."""
    gallery.configure(kind, recall_target=options.recall_target)
    started = time.perf_counter()
    gallery.save_cache(force=True)
    gallery.hits(asked.subset(range(1)), 1)
    built = time.perf_counter() - started
    started = time.perf_counter()
    answers = [hits[0] for hits in gallery.hits(asked, 1)]
    batch = len(asked) / (time.perf_counter() - started)
    seconds = []
    for row in range(min(options.singles, len(asked))):
        started = time.perf_counter()
        gallery.hits(asked.subset([row]), 1)
        seconds.append(time.perf_counter() - started)
    size = sum(gallery.info()["bytes"].values()) / len(gallery)
    return answers, {
        "queries/s": batch, "one query, ms": 1000 * median(seconds), "index, s": built, "bytes a face": size or None,
    }  # fmt: skip


def _compared(answers: Sequence[Hit], exact: Sequence[Hit]) -> dict[str, Any]:
    """Compare the nearest faces with those of the exact gallery, at thresholds that are their distances."""
    same = [(ours, true) for ours, true in zip(answers, exact, strict=True) if ours.id == true.id]
    thresholds = np.array([true.sq_dist for true in exact])
    differ = sum(int(np.sum((ours.sq_dist <= thresholds) != (true.sq_dist <= thresholds))) for ours, true in same)
    return {"recall@1": len(same) / len(exact), "verdicts that differ": differ}
