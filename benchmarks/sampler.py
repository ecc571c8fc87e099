"""Sampler benchmark: the rows of one batch as the number of images grows, and what building the sampler takes.

Building is measured in a process of its own for each number of images; then all samplers draw batches in turns. The
people have as many images as those of WebFace42M on average, 20.6, with a long tail: a lognormal one, whose logarithm
has a standard deviation of 1.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.resources import STATUS, in_fresh_process, peak_above
from benchmarks.tables import Table, megabytes
from facenet.data.options import SamplerOptions
from facenet.data.sampler import IdentitySampler
from facenet.export.speed import summary
from facenet.options import Options as BaseOptions
from facenet.options import option

IMAGES, PEOPLE = 42_474_558, 2_059_906  # of WebFace42M
EPOCHS = 100  # among which any batch is drawn


@dataclass(frozen=True, kw_only=True)
class Options(BaseOptions):
    """Options of the sampler benchmark."""

    images: tuple[int, ...] = option((100_000, 1_000_000, 10_000_000, IMAGES), least=100, help="numbers of images N")
    faces_per_identity: tuple[int, ...] = option((8, 40), least=2, help="faces of one person in a batch, at most")
    batch_size: int = option(1800, least=5, help="rows of a batch")
    batches: int = option(400, least=1, help="timed batches of each kind")
    sorted: bool = option(True, help="labels in order, as those of an index are; false shuffles them")


def run(options: Options) -> dict[str, Any]:
    """Measure every size; returns plain numbers in nested objects, seconds and bytes.

    ``faces.<K>.images.<N>``: `people`, `steps` of an epoch, `build_seconds`, `extra_bytes` (peak memory of building and
    of a batch, without the labels; None without /proc), and the CPU seconds of a batch's rows (median, least, most,
    runs): `next`, one batch after the other, and `anywhere`, batches of any epoch. ``faces.<K>.exponent``: by which
    power of N the median of `next` grows, fitted by least squares; None for one size.
    """
    faces: dict[str, Any] = {}
    for K in options.faces_per_identity:
        call = (K, options.batch_size, options.sorted)
        sizes = {str(N): in_fresh_process(measure_building, N, *call) for N in options.images}
        samplers = {str(N): _build(_labels(N, options.sorted), K, options.batch_size) for N in options.images}
        for images, times in _times_in_turns(samplers, options.batches).items():
            sizes[images] |= times
        medians = [entry["next"]["seconds"] for entry in sizes.values()]
        faces[str(K)] = {"images": sizes, "exponent": _exponent(options.images, medians)}
    return {"batch_size": options.batch_size, "sorted": options.sorted, "faces": faces}


def measure_building(images: int, faces: int, batch_size: int, in_order: bool) -> dict[str, Any]:
    """Build a sampler for `images` images and draw a batch; for a fresh process."""
    labels = _labels(images, in_order)
    _build(draw_labels(10 * batch_size), faces, batch_size).whole(0)  # loads what numpy loads on first use
    extra = peak_above(lambda: _build(labels, faces, batch_size).whole(0)) if STATUS.exists() else None
    start = time.perf_counter()
    sampler = _build(labels, faces, batch_size)
    seconds = time.perf_counter() - start
    return {
        "people": int(labels.max()) + 1,
        "steps": len(sampler),
        "build_seconds": seconds,
        "extra_bytes": extra,
    }


def _build(labels: np.ndarray, faces: int, batch_size: int) -> IdentitySampler:
    return IdentitySampler(labels, SamplerOptions(batch_size=batch_size, faces_per_identity=faces))


def _labels(images: int, in_order: bool) -> np.ndarray:
    labels = draw_labels(images)
    if not in_order:
        np.random.default_rng(1).shuffle(labels)
    return labels


def draw_labels(images: int) -> np.ndarray:
    """Return sorted labels (N,) int32 of people with one image or more."""
    rng, people = np.random.default_rng(0), max(2, images * PEOPLE // IMAGES)
    weights = rng.lognormal(size=people)
    counts = 1 + rng.multinomial(images - people, weights / weights.sum())
    return np.repeat(np.arange(people, dtype=np.int32), counts)


def _times_in_turns(samplers: dict[str, IdentitySampler], batches: int) -> dict[str, dict[str, Any]]:
    """Return the CPU seconds of `next` and `anywhere` of each sampler; every round draws one batch of each."""
    rng = np.random.default_rng(2)
    spent: dict[str, dict[str, list[float]]] = {name: {"next": [], "anywhere": []} for name in samplers}
    for kind in ("next", "anywhere"):
        for number in range(batches):
            for name, sampler in samplers.items():
                chosen = number if kind == "next" else int(rng.integers(EPOCHS * len(sampler)))
                start = time.thread_time()
                sampler.whole(chosen)
                spent[name][kind].append(time.thread_time() - start)
    return {name: {kind: summary(times) for kind, times in kinds.items()} for name, kinds in spent.items()}


def _exponent(images: tuple[int, ...], seconds: list[float]) -> float | None:
    return float(np.polyfit(np.log(images), np.log(seconds), 1)[0]) if len({*images}) > 1 else None


def tables(result: dict[str, Any]) -> list[Table]:
    """Lay out what :func:`run` returned."""
    rows: list[tuple[Any, ...]] = []
    for K, entry in result["faces"].items():
        for images, measured in entry["images"].items():
            batch = [f"{measured[kind]['seconds'] * 1e3:.2f}" for kind in ("next", "anywhere")]
            built = f"{measured['build_seconds']:.2f}", megabytes(measured["extra_bytes"])
            rows.append((K, f"{int(images):,}", f"{measured['people']:,}", f"{measured['steps']:,}", *built, *batch))
    fits = [
        (K, "-" if entry["exponent"] is None else f"{entry['exponent']:+.3f}") for K, entry in result["faces"].items()
    ]
    order = "sorted" if result["sorted"] else "shuffled"
    header = ("K", "images", "people", "steps", "s to build", "memory", "CPU ms, next batch", "CPU ms, any batch")
    return [
        Table(f"rows of a batch of {result['batch_size']}, {order} labels (medians)", header, rows),
        Table("growth of a batch's time with the images", ("K", "exponent"), fits),
    ]
