"""The service killed while faces are enrolled: every acknowledged face must be there and whole, and none half.

Threads enrol photos one by one, and vectors in batches. The service is killed at a random moment, started again, and
asked for what it had acknowledged. Each item's identity, metadata and vector follow from its id, so that an item which
was not acknowledged is checked as well. At the end the whole gallery is read.
"""

from __future__ import annotations

import http.client
import json
import random
import tempfile
import threading
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.serving import Server, ask, fill, form, make_photos
from benchmarks.tables import Table, quantiles
from facenet.data.pictures import read_picture
from facenet.encoders import lookup as encoders
from facenet.encoders.encoder import Encoder
from facenet.encoders.photos import embed_faces, see_photo
from facenet.gallery.gallery import Gallery, Item
from facenet.options import SEED, option
from facenet.options import Options as BaseOptions
from facenet.vectors import normalise

BATCH = 5  # vectors of a request: all of them are there, or none
CLOSE = 1e-4  # by which a number of an embedded photo's vector may differ
MOST_ALIVE = 2.0  # seconds of enrolling before a kill


@dataclass(frozen=True, kw_only=True)
class Options(BaseOptions):
    """Options of the kills."""

    kills: int = option(50, least=1, help="how often the service is killed")
    faces: int = option(100_000, least=100, help="faces of the gallery at first")
    photos: int = option(20, least=1, help="different photos that are enrolled")
    writers: int = option(4, least=2, help="threads that enrol; half of them photos, half vectors")
    root: str | None = option(None, help="pictures of faces that the photos are made of, *.jpg")
    encoder: str = option("sface", help="encoder of the service")
    seed: int = option(0, **SEED, help="of the moments")


@dataclass(frozen=True)
class Truth:
    """What an item must be, by its id."""

    encoder: Encoder
    meant: Sequence[np.ndarray]  # the vector of each photo's meant face

    def vector(self, name: str) -> np.ndarray:
        """Return the vector of an id: "photo/NUMBER/PLACE" or "vector/..."."""
        kind, *_, place = name.split("/")
        if kind == "photo":
            return self.meant[int(place)]
        return normalise(np.random.default_rng(zlib.crc32(name.encode())).normal(size=(1, self.encoder.dim)))[0]

    def is_whole(self, item: Item, vector: np.ndarray) -> bool:
        """Whether identity, metadata and vector are those of the id."""
        told = (item.identity, item.metadata) == (f"of {item.id}", {"id": item.id})
        close = CLOSE if item.id.startswith("photo/") else 0.0
        return told and bool(np.abs(vector - self.vector(item.id)).max() <= close)


def run(options: Options) -> dict[str, Any]:
    """Kill the service so many times; returns counts of what was lost or half there, and the seconds of the starts."""
    rng, photos = random.Random(options.seed), make_photos(options.root, options.photos)
    encoder = encoders.load(options.encoder, device="cpu")
    seen = [see_photo(encoder, read_picture(photo)) for photo in photos]
    photos = [photo for photo, one in zip(photos, seen, strict=True) if one.meant is not None]
    truth = Truth(encoder, [embed_faces(encoder, [one.faces[one.meant]])[0] for one in seen if one.meant is not None])
    counts = dict.fromkeys(("acknowledged", "lost", "half", "refused"), 0)
    starts: list[float] = []
    with tempfile.TemporaryDirectory(prefix="facenet-service-") as name:
        folder = Path(name)
        fill(folder / "g", options.faces, encoder.dim, encoder.fingerprint)
        there: set[str] = set()
        everything: set[str] = set()
        for number in range(options.kills + 1):  # the last start looks at what the last kill left
            server = Server(folder / "g", options.encoder, "rate.per_second=null", out=folder / "serve")
            starts.append(server.wait())
            counts["lost"] += missing(server.port, there)
            if number == options.kills:
                server.stop()
                break
            acknowledged, refused = enrol_until_killed(server, truth, photos, number, options.writers, rng)
            counts["acknowledged"] += len(acknowledged)
            counts["refused"] += refused
            there = acknowledged
            everything |= there
        counts |= final(folder / "g", truth, everything, counts)
    return {
        "kills": options.kills,
        "faces": options.faces,
        **counts,
        "start": quantiles(starts) | {"most": max(starts)},
    }


def enrol_until_killed(
    server: Server, truth: Truth, photos: Sequence[bytes], number: int, writers: int, rng: random.Random
) -> tuple[set[str], int]:
    """Enrol in threads and kill the service at a random moment; returns the ids acknowledged, and how many refusals."""
    acknowledged: set[str] = set()
    refusals: list[int] = []
    ended = threading.Event()

    def write(writer: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        for step in range(10**6):
            if ended.is_set():
                break
            place = (writer + step) % len(photos)
            part = f"{number}-{writer}-{step}"
            names = [f"photo/{part}/{place}"] if writer % 2 else [f"vector/{part}/{row}" for row in range(BATCH)]
            request = photo_request(names[0], photos[place]) if writer % 2 else vector_request(names, truth)
            try:
                status, _ = ask(server.port, "POST", *request, connection=connection)
            except (OSError, http.client.HTTPException):
                break
            if status == 201:
                acknowledged.update(names)
            else:
                refusals.append(status)
        connection.close()

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(writers)]
    for thread in threads:
        thread.start()
    time.sleep(rng.random() * MOST_ALIVE)
    server.kill()
    ended.set()
    for thread in threads:
        thread.join()
    return acknowledged, len(refusals)


def photo_request(name: str, photo: bytes) -> tuple[str, bytes, dict[str, str]]:
    """Return target, body and headers of the enrolment of a photo."""
    return "/v1/items", *form(photo, id=name, identity=f"of {name}", metadata=json.dumps({"id": name}))


def vector_request(names: Sequence[str], truth: Truth) -> tuple[str, bytes, dict[str, str]]:
    """Return target, body and headers of the enrolment of vectors, one for each id."""
    body = {
        "vectors": [truth.vector(name).tolist() for name in names],
        "fingerprint": truth.encoder.fingerprint,
        "ids": names,
        "paths": [""] * len(names),
        "identities": [f"of {name}" for name in names],
        "metadata": [{"id": name} for name in names],
    }
    return "/v1/vectors/items", json.dumps(body).encode(), {"Content-Type": "application/json"}


def missing(port: int, names: set[str]) -> int:
    """Return how many ids the service does not find."""
    body = json.dumps({"names": sorted(names), "by": "id"}).encode()
    status, answer = ask(port, "POST", "/v1/find", body, {"Content-Type": "application/json"})
    if status != 200:
        return len(names)
    return len(names - {item["id"] for item in answer["items"]})


def final(folder: Path, truth: Truth, acknowledged: set[str], counts: dict[str, int]) -> dict[str, int]:
    """Read the whole gallery: count what is lost, half there or wrong, and the batches of which a part is there."""
    half, found, batches = 0, set(), dict[str, int]()
    with Gallery.open(folder) as gallery:
        problems = gallery.check()
        for items, vectors in gallery.blocks():
            for item, vector in zip(items, vectors, strict=True):
                if item.id.startswith("random/"):
                    continue
                found.add(item.id)
                half += not truth.is_whole(item, vector)
                if item.id.startswith("vector/"):
                    part = item.id.rpartition("/")[0]
                    batches[part] = batches.get(part, 0) + 1
    half += sum(count != BATCH for count in batches.values())
    lost = counts["lost"] + len(acknowledged - found)
    return {"lost": lost, "half": half, "problems": len(problems), "unacknowledged": len(found - acknowledged)}


def tables(result: dict[str, Any]) -> list[Table]:
    """Lay out what :func:`run` returned."""
    names = ("acknowledged", "unacknowledged", "lost", "half", "problems", "refused")
    rows: list[tuple[Any, ...]] = [(name, result[name]) for name in names]
    rows += [(f"start to ready, {name}, s", value) for name, value in result["start"].items()]
    return [Table(f"{result['kills']} kills, {result['faces']:,} faces", ("what", "value"), rows)]
