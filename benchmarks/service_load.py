"""The service under load: its answers beside the library's, its speed beside the same work called bare.

Every answer is compared with the library's own for the same photo. The gallery grows by the enrolments meanwhile, so an
answer may hold a face whose enrolment had begun, and must hold a nearer one that was acknowledged before it was asked.
The bare calls run in as many threads as the service's, while the load's process sends as many requests a second to a
server that does nothing.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bare import K, call_bare, silent_server
from benchmarks.resources import in_fresh_process
from benchmarks.serving import Done, fill, lasted, load, make_photos, results, served
from benchmarks.tables import Table, megabytes, quantiles
from facenet.data.pictures import read_picture
from facenet.encoders import lookup as encoders
from facenet.encoders.encoder import Encoder
from facenet.encoders.photos import embed_faces, see_photo
from facenet.gallery.gallery import Gallery
from facenet.options import SEED, option
from facenet.options import Options as BaseOptions
from facenet.types import EmbeddingSet
from facenet.vectors import normalise

CLOSE = 1e-5  # by which a distance may differ
WARM = 0.1  # share of the requests after which the service is warm


@dataclass(frozen=True, kw_only=True)
class Options(BaseOptions):
    """Options of the load."""

    searches: int = option(10_000, least=1, help="photos that are searched")
    enrolments: int = option(1000, least=0, help="photos that are enrolled, at random moments")
    clients: int = option(8, least=1, help="threads of the load's process, each with a connection")
    faces: int = option(100_000, least=100, help="faces of the gallery")
    photos: int = option(200, least=4, help="different photos, half of people of the gallery")
    root: str | None = option(None, help="pictures of faces that the photos are made of, *.jpg")
    encoder: str = option("sface", help="encoder of the service")
    threads: int = option(2, least=1, help="of the service, and of the bare calls")
    bare: int = option(1000, least=1, help="bare calls")
    seed: int = option(0, **SEED, help="of the order of the requests")


@dataclass(frozen=True)
class Known:
    """What the library says: the vectors of each photo's faces, the meant one, and what the gallery holds at first."""

    faces: Sequence[np.ndarray]  # (F, D) for each photo, in the order of the answer
    meant: np.ndarray  # (P, D)
    ids: Sequence[str]
    vectors: np.ndarray  # (G, D)


def run(options: Options) -> dict[str, Any]:
    """Play the load, then the bare calls; returns counts, seconds, requests a second and bytes."""
    photos = make_photos(options.root, options.photos)
    encoder = encoders.load(options.encoder, device="cpu")
    with tempfile.TemporaryDirectory(prefix="facenet-service-") as name:
        folder = Path(name)
        known, usable = prepare(folder / "g", encoder, photos, options.faces)
        photos = [photos[place] for place in usable]
        asked = requests(options, len(photos))
        with served(folder / "g", options.encoder, f"threads={options.threads}", out=folder / "serve") as server:
            process = load(server.port, photos, asked, folder / "load", clients=options.clients)
            memory = watch(process, server.resident)
            done = results(folder / "load")
        seconds = lasted(done)
        result = judge(known, asked, done) | {"seconds": seconds, "requests_a_second": len(done) / seconds}
        result["memory"] = growth(memory, done)
        result["bare"] = beside_bare(options, folder, result["requests_a_second"])
    result["of_bare"] = result["requests_a_second"] / result["bare"]["calls_a_second"]
    return {**result, "clients": options.clients, "threads": options.threads, "faces": options.faces}


def prepare(folder: Path, encoder: Encoder, photos: Sequence[bytes], count: int) -> tuple[Known, list[int]]:
    """Make the gallery, with a near copy of every other photo's face; returns it, and which photos show a face."""
    seen = [see_photo(encoder, read_picture(photo)) for photo in photos]
    usable = [place for place, one in enumerate(seen) if one.meant is not None]
    faces = [embed_faces(encoder, seen[place].faces) for place in usable]
    meant = np.stack([vectors[seen[place].meant or 0] for place, vectors in zip(usable, faces, strict=True)])
    noise = np.random.default_rng(1).normal(size=meant.shape) / meant.shape[1] ** 0.5
    rows = range(0, len(meant), 2)
    near = EmbeddingSet(
        normalise(meant[::2] + 0.3 * noise[::2]), [f"photo/{row}" for row in rows], [f"known {row}" for row in rows],
        encoder.fingerprint,
    )  # fmt: skip
    fill(folder, count, encoder.dim, encoder.fingerprint, more=near)
    with Gallery.open(folder) as gallery:
        blocks = list(gallery.blocks())
    ids = [item.id for items, _ in blocks for item in items]
    return Known(faces, meant, ids, np.concatenate([vectors for _, vectors in blocks])), usable


def requests(options: Options, photos: int) -> list[dict[str, Any]]:
    """Return searches and enrolments in a random order; each photo comes equally often."""
    total = options.searches + options.enrolments
    rng = np.random.default_rng(options.seed)
    enrols = np.zeros(total, bool)
    enrols[rng.permutation(total)[: options.enrolments]] = True
    return [
        {
            "photo": number % photos,
            "fields": {"id": f"enrolled/{number}", "identity": f"new {number}"} if new else {"k": str(K)},
        }
        for number, new in enumerate(enrols.tolist())
    ]


def watch(process: Any, resident: Callable[[], int]) -> list[tuple[float, int]]:
    """Return (time, resident bytes) twice a second until a process ends."""
    samples = []
    while process.poll() is None:
        samples.append((time.monotonic(), resident()))
        time.sleep(0.5)
    samples.append((time.monotonic(), resident()))
    if process.returncode:
        raise RuntimeError("the load's process failed")
    return samples


def growth(samples: Sequence[tuple[float, int]], done: Sequence[Done]) -> dict[str, float]:
    """Return the resident bytes after warm-up and at the end."""
    warm = sorted(one.ended for one in done)[int(WARM * len(done))]
    after = next(size for at, size in samples if at >= warm)
    return {"warm": after, "end": samples[-1][1], "growth": samples[-1][1] / after - 1}


def judge(known: Known, asked: Sequence[dict[str, Any]], done: Sequence[Done]) -> dict[str, Any]:
    """Count statuses and wrong answers, and measure how long requests took."""
    enrolled = [one for one in done if "id" in asked[one.number]["fields"]]
    searched = [one for one in done if "id" not in asked[one.number]["fields"]]
    fine = [one for one in enrolled if one.status == 201]
    photos = [asked[one.number]["photo"] for one in fine]
    extra = known.meant[photos] if photos else np.zeros((0, known.meant.shape[1]), np.float32)
    names = [*known.ids, *(asked[one.number]["fields"]["id"] for one in fine)]
    place = {name: row for row, name in enumerate(names)}
    begun = np.array([-np.inf] * len(known.ids) + [one.begun for one in fine])
    ended = np.array([-np.inf] * len(known.ids) + [one.ended for one in fine])
    everything, distances = np.concatenate([known.vectors, extra]), {}
    wrong = 0
    for one in sorted(searched, key=lambda one: asked[one.number]["photo"]):
        photo = asked[one.number]["photo"]
        if photo not in distances:
            distances = {photo: np.maximum(2 - 2 * known.faces[photo] @ everything.T, 0)}
        there, sure = begun <= one.ended, ended <= one.begun
        faces = one.answer["faces"] if one.status == 200 else []
        rows = distances[photo]
        ok = len(faces) == len(rows) and all(
            is_right(face, row, place, there, sure) for face, row in zip(faces, rows, strict=True)
        )
        wrong += one.status == 200 and not ok
    statuses = Counter(str(one.status) for one in done)
    times = {"search": searched, "enrol": enrolled}
    seconds = {name: quantiles([one.ended - one.begun for one in part]) for name, part in times.items() if part}
    return {"requests": len(done), "statuses": dict(statuses), "wrong": wrong, "latency": seconds}


def is_right(
    face: dict[str, Any], distances: np.ndarray, place: dict[str, int], there: np.ndarray, sure: np.ndarray
) -> bool:
    """Whether the matches are the nearest of the gallery's faces, in order, and judged by the threshold stated."""
    rows = np.array([place.get(match["id"], -1) for match in face["matches"]])
    told = np.array([match["sq_dist"] for match in face["matches"]])
    if len(rows) != K or (rows < 0).any() or len(set(rows.tolist())) < K or not there[rows].all():
        return False
    if np.abs(told - distances[rows]).max() > CLOSE or (np.diff(told) < -CLOSE).any():
        return False
    left_out = sure.copy()
    left_out[rows] = False
    if left_out.any() and distances[left_out].min() < told[-1] - CLOSE:
        return False
    accepted = [match["sq_dist"] <= match["threshold"] for match in face["matches"]]
    verdict = "match" if any(accepted) else "no match"
    return [match["accepted"] for match in face["matches"]] == accepted and face["verdict"] == verdict


def beside_bare(options: Options, folder: Path, rate: float) -> dict[str, Any]:
    """Return the time of a bare call alone, and calls a second while the load's process sends `rate` a second."""
    given = (options.encoder, str(folder / "g"), str(folder / "load"))
    alone = in_fresh_process(call_bare, *given, min(options.bare, 100), 1)
    photos = [path.read_bytes() for path in sorted((folder / "load").glob("*.jpg"))]
    with silent_server() as port:
        asked = requests(options, len(photos))
        process = load(port, photos, asked, folder / "silent", clients=options.clients, rate=rate, keep=False)
        try:
            return {"alone": alone, **in_fresh_process(call_bare, *given, options.bare, options.threads)}
        finally:
            process.kill()
            process.wait()


def tables(result: dict[str, Any]) -> list[Table]:
    """Lay out what :func:`run` returned."""
    rows: list[tuple[Any, ...]] = [(f"answers {status}", count) for status, count in result["statuses"].items()]
    rows += [("wrong answers", result["wrong"]), ("requests a second", result["requests_a_second"])]
    rows += [("one bare call alone, s", result["bare"]["alone"]["seconds"])]
    rows += [("bare calls a second", result["bare"]["calls_a_second"]), ("of bare", f"{result['of_bare']:.2f}x")]
    rows += [(f"{kind} {name}, s", value) for kind, times in result["latency"].items() for name, value in times.items()]
    memory = result["memory"]
    rows += [("resident, warm", megabytes(memory["warm"])), ("at the end", megabytes(memory["end"]))]
    rows += [("growth", f"{memory['growth']:.2%}")]
    title = f"{result['requests']} requests of {result['clients']} clients, {result['faces']:,} faces"
    return [Table(title, ("what", "value"), rows)]
