"""How fast encoders are beside each other: the contestants take turns, and medians are compared."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from facenet.encoders.encoder import Encoder


def seconds_of(call: Callable[[], object]) -> float:
    """Return the wall time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def interleave(
    steps: Mapping[str, Callable[[], object]],
    seconds: float,
    repeats: int,
    *,
    patience: float = 4.0,
    time_of: Callable[[Callable[[], object]], float] = seconds_of,
) -> dict[str, list[float]]:
    """Time every step up to `repeats` times within `seconds` of its own, one after the other in each round.

    The first round warms up and is not counted. A step that took over `patience` times `seconds` then is not called
    again, and that time counts. `time_of` calls a step and returns its seconds.
    """
    times: dict[str, list[float]] = {key: [] for key in steps}
    for done in range(repeats + 1):
        for key, step in steps.items():
            if (done > 1 and sum(times[key]) > seconds) or (done == 1 and times[key][0] > patience * seconds):
                continue
            times[key].append(time_of(step))
    return {key: spent[1:] or spent for key, spent in times.items()}


def summary(times: list[float]) -> dict[str, float]:
    """Return the median of some seconds, the least, the most and their number `runs`."""
    return {"seconds": statistics.median(times), "least": min(times), "most": max(times), "runs": len(times)}


def time_in_turns(
    steps: Mapping[str, Callable[[], object]], seconds: float, repeats: int, **options: Any
) -> dict[str, dict[str, float]]:
    """Return the :func:`summary` of each step of an :func:`interleave`."""
    return {name: summary(spent) for name, spent in interleave(steps, seconds, repeats, **options).items()}


def measure_speed(contestants: Mapping[str, Encoder], batch_size: int, seconds: float, repeats: int) -> dict[str, Any]:
    """Time encoders of one preprocessing on the same images, in turns.

    For each: `seconds` of a batch (median), `least`, `most`, `runs`, `images_per_second`, and `ratio`, by how much it
    is faster than the first.
    """
    from facenet.export.onnx import pictures

    first = next(iter(contestants.values()))
    images = first.preprocess.normalise(pictures(batch_size, first.preprocess.size))
    steps = {name: functools.partial(encoder.embed_batch, images) for name, encoder in contestants.items()}
    found = time_in_turns(steps, seconds, repeats)
    base = next(iter(found.values()))["seconds"]
    return {
        name: {**entry, "images_per_second": batch_size / entry["seconds"], "ratio": base / entry["seconds"]}
        for name, entry in found.items()
    }
