"""Hostile requests: the service must answer each of them with an error of the client's, and go on answering others.

Requests come from the description of the API (schemathesis), broken pictures, bombs, odd names, wrong JSON and HTTP,
keys that are none, slow bodies, and as many half-open connections as this process may hold. An answer of 500 or more
other than 503, no answer, a file that was touched outside of the gallery, and an accepted key are faults.
"""

from __future__ import annotations

import itertools
import json
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.hostile import requests as hostile
from benchmarks.hostile.described import described
from benchmarks.hostile.requests import Asked
from benchmarks.hostile.sending import SECONDS, half_open, send_one, send_raw, slow, time_keys
from benchmarks.serving import Server, ask, fill, form, make_photos
from benchmarks.tables import Table
from facenet.encoders import lookup as encoders
from facenet.gallery.gallery import Gallery
from facenet.options import SEED, option
from facenet.options import Options as BaseOptions
from facenet.service.keys import add_key

SHARES = {"schema": 0.24, "pictures": 0.24, "names": 0.16, "json": 0.16, "kinds": 0.04, "keys": 0.08, "http": 0.08}
REFUSED = ("401", "400", "431", "429", "closed", "unsent", "hang")  # what a key that is none may be answered


@dataclass(frozen=True, kw_only=True)
class Options(BaseOptions):
    """Options of the hostile requests."""

    requests: int = option(5000, least=50, help="hostile requests, besides bombs and connections")
    connections: int = option(0, least=0, help="half-open connections; 0: as many as files may be open")
    timings: int = option(1000, least=10, help="wrong keys of each kind that are timed")
    faces: int = option(10_000, least=100, help="faces of the gallery")
    root: str | None = option(None, help="pictures of faces that the photos are made of, *.jpg")
    encoder: str = option("sface", help="encoder of the service")
    seed: int = option(0, **SEED, help="of the requests")


class Told:
    """What came back, by part: statuses, "closed" without an answer, or "hang"."""

    def __init__(self) -> None:
        self.counts: dict[str, Counter[str]] = {}
        self.failed: list[str] = []  # the first requests that were answered 500 or hung

    def add(self, part: str, what: str, request: object) -> None:
        """Count an outcome."""
        self.counts.setdefault(part, Counter())[what] += 1
        if (what == "hang" or (what >= "500" and what.isdigit() and what != "503")) and len(self.failed) < 20:
            self.failed.append(f"{part}: {what}: {str(request)[:300]}")

    def total(self, choose: Callable[[str], bool]) -> int:
        """Return how many outcomes are chosen."""
        return sum(count for part in self.counts.values() for what, count in part.items() if choose(what))


def run(options: Options) -> dict[str, Any]:
    """Send everything; returns counts of statuses by part, and of faults."""
    rng, told = random.Random(options.seed), Told()
    photos = make_photos(options.root, 10)
    encoder = encoders.load(options.encoder, device="cpu")
    with tempfile.TemporaryDirectory(prefix="facenet-service-") as name:
        folder = Path(name)
        fill(folder / "g", options.faces, encoder.dim, encoder.fingerprint)
        key = add_key(folder / "keys.json", "hostile", "write")
        (folder / "beside.txt").write_text("stays")
        given = (f"limits.seconds={SECONDS}", "rate.per_second=null", "thumbnails=kept", f"keys={folder}/keys.json")
        server = Server(folder / "g", options.encoder, *given, out=folder / "serve", temporary=folder / "tmp")
        try:
            server.wait()
            before = listing(folder)  # with what libraries write when they are loaded
            result = play(options, server.port, key, photos, rng, told)
            alive = ask(server.port, "GET", "/v1/ready")[0] == 200
        finally:
            code = server.stop()
        with Gallery.open(folder / "g") as gallery:
            problems = gallery.check()
        touched = listing(folder) ^ before
    counts = {part: dict(sorted(counts.items())) for part, counts in told.counts.items()}
    return {
        "requests": told.total(lambda _: True),
        "statuses": counts,
        "server_errors": told.total(lambda what: what.isdigit() and what >= "500" and what != "503"),
        "hangs": told.total(lambda what: what == "hang"),
        "keys_accepted": sum(n for what, n in counts.get("keys", {}).items() if what not in REFUSED),
        "touched": sorted(map(str, touched)),
        "alive": alive,
        "exit_code": code,
        "problems": len(problems),
        "failed": told.failed,
        **result,
    }


def play(options: Options, port: int, key: str, photos: list[bytes], rng: random.Random, told: Told) -> dict[str, Any]:
    """Send everything to a running service; returns what came of half-open connections and of timed keys."""
    counts = {part: round(share * options.requests) for part, share in SHARES.items()}
    for part, requests in make_parts(port, key, photos, rng, counts).items():
        send_all(port, part, requests, key, told)
    raw = list(itertools.islice(hostile.wrong_http(rng), counts["http"]))
    with ThreadPoolExecutor(16) as pool:  # many wait until the service closes what is no whole head
        for data, what in zip(raw, pool.map(partial(send_raw, port), raw), strict=True):
            told.add("http", what, data)
    slow(port, key, photos[0], told.add)
    opened = half_open(port, key, photos[0], options.connections)
    return {"half_open": opened, "timing": time_keys(port, key, options.timings, rng)}


def listing(folder: Path) -> set[tuple[str, int, int]]:
    """Return name, size and time of each file outside of the gallery, but the server's own log and run folder."""
    own = ("g", "serve/log.txt", "serve/run")
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    kept = {name: path.stat() for name, path in files.items() if not name.startswith(own)}
    return {(name, status.st_size, status.st_mtime_ns) for name, status in kept.items()}


def make_parts(
    port: int, key: str, photos: list[bytes], rng: random.Random, counts: Mapping[str, int]
) -> dict[str, Iterable[Asked]]:
    """Return the requests of each part that are well-formed HTTP."""
    kinds = {
        "pictures": hostile.broken_pictures(photos, rng),
        "names": hostile.odd_names(photos, rng),
        "json": hostile.wrong_json(rng),
        "kinds": hostile.wrong_kinds(photos, rng),
        "keys": (
            Asked("GET", "/v1/info", None, {"Authorization": value}) for value in hostile.keys_that_are_none(key, rng)
        ),
    }
    schema = described(port, counts["schema"])
    counts = {**counts, "json": counts["json"] + max(0, counts["schema"] - len(schema))}
    parts: dict[str, Iterable[Asked]] = {"schema": schema}
    parts |= {part: itertools.islice(made, counts[part]) for part, made in kinds.items()}
    targets = ("/v1/detect", "/v1/search", "/v1/items")
    parts["bombs"] = [Asked("POST", target, *form(bomb)) for bomb in hostile.bombs() for target in targets]
    return parts


def send_all(port: int, part: str, requests: Iterable[Asked], key: str, told: Told) -> None:
    """Send requests in four threads, with the key unless a request has one."""

    def send(asked: Asked) -> None:
        headers = {"Authorization": f"Bearer {key}", **asked.headers}
        if part == "keys":
            headers = {name: value for name, value in asked.headers.items() if value}
        told.add(part, send_one(port, asked._replace(headers=headers)), asked)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(send, requests))


def tables(result: dict[str, Any]) -> list[Table]:
    """Lay out what :func:`run` returned."""
    rows: list[tuple[Any, ...]] = [(part, json.dumps(counts)) for part, counts in result["statuses"].items()]
    names = ("server_errors", "hangs", "keys_accepted", "alive", "exit_code", "problems")
    faults = [(name, result[name]) for name in names] + [("files touched", len(result["touched"]))]
    opened, timing = result["half_open"], result["timing"]
    faults += [("half-open connections", f"{opened['opened']} (limit {opened['limit']})")]
    faults += [("honest searches meanwhile", f"{opened['honest']}, failed {opened['failed']}")]
    faults += [("slowest of them, s", opened["slowest"])]
    faults += [(f"wrong key, {name}, ms", 1000 * timing[name]) for name in ("near", "random")]
    faults += [("rank test, p", timing["p"])]
    return [
        Table(f"{result['requests']} hostile requests", ("part", "answers"), rows),
        Table("what must not be", ("what", "value"), faults),
    ]
