"""The service at half of its load for long: does its memory grow?

The rate is half of what a short load of searches reached. One request of eleven enrols. Memory is sampled twice a
second and set against the requests answered by then; the slope is that of least squares after warm-up.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.service_load import Options as LoadOptions
from benchmarks.service_load import prepare, requests, watch
from benchmarks.serving import Done, lasted, load, make_photos, results, served
from benchmarks.tables import Table, megabytes, quantiles
from facenet.encoders import lookup as encoders
from facenet.options import Options as BaseOptions
from facenet.options import option

WARM = 0.2  # share of the time after which the service is warm
OF_WHICH_ENROL = 11


@dataclass(frozen=True, kw_only=True)
class Options(BaseOptions):
    """Options of the soak."""

    minutes: float = option(30.0, above=0, help="how long the load lasts")
    trial: int = option(400, least=10, help="searches that tell how many a second the service answers")
    clients: int = option(8, least=1, help="threads of the load's process, each with a connection")
    faces: int = option(100_000, least=100, help="faces of the gallery")
    photos: int = option(200, least=4, help="different photos")
    root: str | None = option(None, help="pictures of faces that the photos are made of, *.jpg")
    encoder: str = option("sface", help="encoder of the service")
    threads: int = option(2, least=1, help="of the service")


def run(options: Options) -> dict[str, Any]:
    """Play the trial and the soak; returns requests a second, statuses, bytes and their slope."""
    photos = make_photos(options.root, options.photos)
    encoder = encoders.load(options.encoder, device="cpu")
    with tempfile.TemporaryDirectory(prefix="facenet-service-") as name:
        folder = Path(name)
        _, usable = prepare(folder / "g", encoder, photos, options.faces)
        photos = [photos[place] for place in usable]
        with served(folder / "g", options.encoder, f"threads={options.threads}", out=folder / "serve") as server:
            trial = requests(LoadOptions(searches=options.trial, enrolments=0), len(photos))
            load(server.port, photos, trial, folder / "trial", clients=options.clients, keep=False).wait()
            trial_done = results(folder / "trial")
            rate = len(trial_done) / lasted(trial_done) / 2
            total = max(OF_WHICH_ENROL, round(options.minutes * 60 * rate))
            enrolments = total // OF_WHICH_ENROL
            asked = requests(LoadOptions(searches=total - enrolments, enrolments=enrolments), len(photos))
            process = load(server.port, photos, asked, folder / "soak", clients=options.clients, rate=rate, keep=False)
            samples = watch(process, server.resident)
            done = results(folder / "soak")
    return summary(samples, done) | {"rate": rate, "minutes": options.minutes, "clients": options.clients}


def summary(samples: Sequence[tuple[float, int]], done: Sequence[Done]) -> dict[str, Any]:
    """Return what the memory did, in bytes for 1,000 requests, and how the requests fared."""
    times, sizes = np.array(samples).T
    ended = np.sort([one.ended for one in done])
    answered = np.searchsorted(ended, times)
    warm = times >= times[0] + WARM * (times[-1] - times[0])
    slope = np.polyfit(answered[warm], sizes[warm], 1)[0] if len(set(answered[warm])) > 1 else 0.0
    return {
        "requests": len(done),
        "statuses": dict(Counter(str(one.status) for one in done)),
        "latency": quantiles([one.ended - one.begun for one in done]),
        "bytes_for_1000_requests": 1000 * float(slope),
        "warm": float(sizes[warm][0]),
        "end": float(sizes[-1]),
        "most": float(sizes.max()),
    }


def tables(result: dict[str, Any]) -> list[Table]:
    """Lay out what :func:`run` returned."""
    rows: list[tuple[Any, ...]] = [(f"answers {status}", count) for status, count in result["statuses"].items()]
    rows += [(f"{name}, s", value) for name, value in result["latency"].items()]
    rows += [(f"resident, {name}", megabytes(result[name])) for name in ("warm", "end", "most")]
    rows.append(("rises for 1,000 requests by", f"{result['bytes_for_1000_requests'] / 1e6:.3f} MB"))
    title = f"{result['requests']} requests in {result['minutes']:g} minutes, {result['rate']:.1f} a second"
    return [Table(title, ("what", "value"), rows)]
