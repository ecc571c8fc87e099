"""A gallery that is backfilled while it is searched: does it answer all the while, and as rightly as before?

New vectors are random, five of each person around a centre. The old ones are the new ones with a little noise, as of a
worse encoder, which the record of the new one lists. Threads ask with new vectors of known people, with the methods of
`Gallery`; an answer is right if its nearest face is that person's.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.serving import EACH, served
from benchmarks.tables import Table, quantiles
from facenet.data.preprocess import Preprocess
from facenet.encoders.bundle import save_bundle
from facenet.encoders.encoder import Encoder
from facenet.errors import FacenetError
from facenet.gallery.gallery import Gallery
from facenet.models.build import build_model
from facenet.options import Options as BaseOptions
from facenet.options import option
from facenet.service.client import connect
from facenet.types import EmbeddingSet
from facenet.vectors import normalise

OLD, D = "0d" * 32, 64
SPREAD, NOISE, QUERY = 0.8, 0.3, 0.9  # of a person's faces, of old vectors, of queries; relative to unit length
LEAST = 20  # answers before and after
STAGES = ("before", "during", "after")


@dataclass(frozen=True, kw_only=True)
class Options(BaseOptions):
    """Options of the backfill under load."""

    faces: int = option(100_000, least=100, help="faces of the gallery")
    clients: int = option(4, least=1, help="threads that search")
    seconds: float = option(10.0, above=0, help="of searching before and after")
    batch: int = option(500, least=1, help="items that are replaced in a transaction")
    threads: int = option(2, least=1, help="of the service")


def run(options: Options) -> dict[str, Any]:
    """Search before, during and after the backfill; returns searches, errors and right answers of each stage."""
    encoder = make_encoder()
    old, new, queries = make_faces(options.faces, encoder.fingerprint)
    stages: list[Searched] = []
    with tempfile.TemporaryDirectory(prefix="facenet-service-") as name:
        folder = Path(name)
        save_bundle(encoder, folder / "encoder")
        with Gallery.open(folder / "g", create=True) as gallery:
            gallery.add(old)
            gallery.threshold()
        with served(folder / "g", str(folder / "encoder"), f"threads={options.threads}", out=folder / "s") as server:

            def backfill() -> None:
                with connect(server.url, timeout=60) as gallery:
                    gallery.backfill(new, batch=options.batch)

            for work in (None, backfill, None):
                stages.append(search_during(work, options.seconds, server.url, queries, options.clients))
            with connect(server.url) as remote:
                counts, problems = remote.info()["fingerprints"], remote.check()
    told = {stage: one.summary() for stage, one in zip(STAGES, stages, strict=True)}
    left = counts.get(OLD, 0)
    return {"faces": options.faces, "clients": options.clients, "old_left": left, "problems": len(problems), **told}


def make_encoder() -> Encoder:
    """Return an untrained encoder that may replace the old one."""
    size = {"embedding_dim": D, "input_size": [32, 32]}
    model = build_model("small", embedding_dim=D, input_size=(32, 32))
    thresholds = {0.001: 0.6, 0.01: 0.8, 0.1: 1.0}
    return Encoder(model, "small", size, Preprocess(size=(32, 32)), thresholds, [OLD], with_older={OLD: thresholds})


def make_faces(count: int, fingerprint: str) -> tuple[EmbeddingSet, EmbeddingSet, EmbeddingSet]:
    """Return old vectors (G, D) of people, new ones of the same pictures, and new ones of 1,000 other pictures."""
    rng = np.random.default_rng(0)

    def near(vectors: np.ndarray, noise: float) -> np.ndarray:
        return normalise(vectors + noise * rng.normal(size=vectors.shape) / D**0.5)

    centres = normalise(rng.normal(size=(count // EACH, D)))
    whose = np.arange(count) % len(centres)
    first = near(centres[whose], SPREAD)
    names = [f"person {person}" for person in whose]
    old = EmbeddingSet(near(first, NOISE), [f"{row}.jpg" for row in range(count)], names, OLD)
    new = replace(old, vectors=first, fingerprint=fingerprint, compatible_with=(OLD,))
    asked = rng.integers(len(centres), size=1000)
    queries = EmbeddingSet(
        near(centres[asked], QUERY), [""] * 1000, [f"person {person}" for person in asked], fingerprint,
        compatible_with=(OLD,),
    )  # fmt: skip
    return old, new, queries


class Searched:
    """The searches of one stage."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.right: list[bool] = []
        self.errors: Counter[str] = Counter()
        self.longest_gap = 0.0  # between two answers

    def summary(self) -> dict[str, Any]:
        """Return plain values."""
        right = float(np.mean(self.right)) if self.right else 0.0
        told = {"searches": len(self.right), "errors": sum(self.errors.values()), "right": right}
        return {**told, "kinds": dict(self.errors), "longest_gap": self.longest_gap, **quantiles(self.seconds or [0.0])}


def search_during(
    work: Callable[[], None] | None, seconds: float, url: str, queries: EmbeddingSet, clients: int
) -> Searched:
    """Search in threads, one face a request, until `work` is done or, without any, for so long and 20 answers."""
    found, ended, answered = Searched(), threading.Event(), [time.monotonic()]

    def client(number: int) -> None:
        rows = np.random.default_rng(number).permutation(len(queries))
        with connect(url) as gallery:
            for row in np.tile(rows, 10_000):
                if ended.is_set():
                    return
                started = time.monotonic()
                try:
                    (hits,) = gallery.hits(queries.subset([row]), 1)
                except FacenetError as error:
                    found.errors[type(error).__name__] += 1
                    continue
                now = time.monotonic()
                found.seconds.append(now - started)
                found.right.append(bool(hits) and hits[0].identity == queries.identities[row])
                answered.append(now)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    try:
        if work is not None:
            work()
        else:
            time.sleep(seconds)
            while len(found.right) < LEAST and not found.errors:
                time.sleep(0.1)
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    found.longest_gap = float(np.diff(np.sort(answered)).max(initial=0.0))
    return found


def tables(result: dict[str, Any]) -> list[Table]:
    """Lay out what :func:`run` returned."""
    keys = ("searches", "errors", "right", "p50", "p99", "longest_gap")
    rows: list[tuple[Any, ...]] = [(stage, *(result[stage][key] for key in keys)) for stage in STAGES]
    header = ("backfill", "searches", "errors", "right", "p50, s", "p99, s", "longest wait, s")
    title = f"backfill of {result['faces']:,} faces under load; old vectors left: {result['old_left']}"
    return [Table(title, header, rows)]
