"""One search of a photo of 640x480 over loopback, beside the same work called bare in one process, in turns."""

from __future__ import annotations

import http.client
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bare import K, bare_search
from benchmarks.serving import ask, fill, form, make_photos, served
from benchmarks.tables import TIMES, Table, times
from facenet.encoders import lookup as encoders
from facenet.export.speed import summary
from facenet.options import Options as BaseOptions
from facenet.options import option

PAUSE = 0.03  # seconds between calls, in which the threads of the one before stop to spin


@dataclass(frozen=True, kw_only=True)
class Options(BaseOptions):
    """Options of the latency."""

    pairs: int = option(200, least=2, help="searches, each beside a bare call")
    faces: int = option(100_000, least=100, help="faces of the gallery")
    photos: int = option(20, least=1, help="different photos")
    root: str | None = option(None, help="pictures of faces that the photos are made of, *.jpg")
    encoder: str = option("sface", help="encoder of the service")
    threads: int = option(2, least=1, help="of the service, and of FAISS in the bare call")


def run(options: Options) -> dict[str, Any]:
    """Time pairs of calls; returns seconds of both and the ratios of the pairs."""
    photos = make_photos(options.root, options.photos)
    encoder = encoders.load(options.encoder, device="cpu")
    with tempfile.TemporaryDirectory(prefix="facenet-service-") as name:
        folder = Path(name)
        fill(folder / "g", options.faces, encoder.dim, encoder.fingerprint)
        call = bare_search(options.encoder, folder / "g", options.threads)
        bodies = [form(photo, k=str(K)) for photo in photos]
        with served(folder / "g", options.encoder, f"threads={options.threads}", out=folder / "serve") as server:
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)

            def search(number: int) -> None:
                status, _ = ask(server.port, "POST", "/v1/search", *bodies[number], connection=connection)
                if status != 200:
                    raise RuntimeError(f"a search was answered {status}")

            seconds = np.array(
                [pair(lambda: call(photos[n]), lambda: search(n), n % 2 == 1) for n in turns(options)]  # noqa: B023
            )
            connection.close()
    kept = seconds[len(photos) :]
    ratios = kept[:, 1] / kept[:, 0]
    low, high = np.quantile(ratios, [0.25, 0.75])
    return {
        "bare": summary(kept[:, 0].tolist()),
        "service": summary(kept[:, 1].tolist()),
        "of_medians": float(np.median(kept[:, 1]) / np.median(kept[:, 0])),
        "ratio": {"median": float(np.median(ratios)), "low": float(low), "high": float(high)},
        **{name: getattr(options, name) for name in ("pairs", "faces", "threads")},
    }


def turns(options: Options) -> list[int]:
    """Return the place of the photo of each pair; the first of each photo warms up."""
    return [number % options.photos for number in range(options.pairs + options.photos)]


def pair(first: Any, second: Any, reverse: bool) -> tuple[float, float]:
    """Return the seconds of two calls, in either order."""
    seconds = {}
    for call in (second, first) if reverse else (first, second):
        time.sleep(PAUSE)
        started = time.perf_counter()
        call()
        seconds[call] = time.perf_counter() - started
    return seconds[first], seconds[second]


def tables(result: dict[str, Any]) -> list[Table]:
    """Lay out what :func:`run` returned."""
    rows: list[tuple[Any, ...]] = [(name, *times(result[name])) for name in ("bare", "service")]
    ratio = result["ratio"]
    told = f"{ratio['median']:.2f}x, half of the pairs {ratio['low']:.2f}x to {ratio['high']:.2f}x"
    rows.append((f"ratio of pairs: {told}; of medians: {result['of_medians']:.2f}x", "", "", ""))
    return [Table(f"one search, {result['faces']:,} faces, {result['pairs']} pairs", ("what", *TIMES), rows)]
