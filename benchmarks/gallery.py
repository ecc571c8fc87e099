"""Faults of a gallery: killed writers, full disks, no rights, corrupted index files. Nothing acknowledged may be lost.

A child process adds, removes and saves, and prints each write once it is done. It is killed at a random moment. The
gallery lies in `folder`. If `temporary` names another file system, temporary files lie there.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.factories import play
from benchmarks.faults.rights import close_folder
from benchmarks.resources import environment
from benchmarks.tables import Table
from facenet.errors import DataError
from facenet.gallery.gallery import Gallery
from facenet.options import SEED, option
from facenet.options import Options as BaseOptions
from facenet.types import EmbeddingSet
from facenet.vectors import normalise

FINGERPRINT, D, BATCH = "ab" * 32, 16, 20
MOST_ALIVE = 0.4  # seconds after its first write at which a child is killed at the latest


@dataclass(frozen=True, kw_only=True)
class Options(BaseOptions):
    """Options of the faults of a gallery."""

    kills: int = option(50, least=0, help="writers to kill")
    full_disks: int = option(10, least=0, help="writes on a full disk")
    read_only: int = option(5, least=0, help="writes into a read-only folder")
    corruptions: int = option(1000, least=0, help="damaged index files")
    strings: int = option(300, least=0, help="FAISS factory strings, most of them broken")
    factory: str = option("", help="FAISS factory of the index; empty: the usual one")
    folder: str = option("", help="where the gallery is written; empty: a temporary folder")
    temporary: str = option("", help="temporary folder of the writers, to be on another file system: /dev/shm")
    seed: int = option(0, **SEED, help="of the faults")


def run(options: Options) -> dict[str, Any]:
    """Play every fault so many times; returns counts of what went wrong."""
    rng = random.Random(options.seed)
    with _quiet(), tempfile.TemporaryDirectory(prefix="facenet-gallery-", dir=options.folder or None) as name:
        place = Path(name) / "gallery"
        os.chmod(name, 0o755)  # noqa: PTH101 - for the rights test another user must get in
        killed = _kill(place, options.kills, options.temporary, rng, options.factory)
        full = _full_disks(place, options.full_disks, rng)
        return {
            "kills": killed,
            "full_disks": full,
            "read_only": _read_only(place, options.read_only),
            "corruptions": _corrupt(place, options.corruptions, rng),
            "strings": play(options.strings, options.seed),
            "other_file_system": on_another_file_system(options.temporary, name),
        }


def on_another_file_system(temporary: str, folder: str | Path) -> bool:
    """Whether a temporary folder is given and lies on another file system than a folder."""
    return bool(temporary) and os.stat(temporary).st_dev != os.stat(folder).st_dev  # noqa: PTH116


def tables(result: dict[str, Any]) -> list[Table]:
    """Lay out what :func:`run` returned."""
    faults = ("kills", "full_disks", "read_only", "corruptions", "strings")
    rows = [(fault, what, count) for fault in faults for what, count in result[fault].items()]
    other = "another file system than the temporary folder's"
    where = other if result["other_file_system"] else "the temporary folder's"
    return [Table(f"faults of a gallery on {where}", ("fault", "what", "count"), rows)]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the cache from warning of every index that it builds again."""
    logger = logging.getLogger("facenet.gallery.faiss.cache")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def vector_of(name: str) -> np.ndarray:
    """The unit vector (16,) that follows from an item's name."""
    return normalise(np.random.default_rng(zlib.crc32(name.encode())).normal(size=(1, D)))[0]


def faces(names: list[str]) -> EmbeddingSet:
    """Items named "person/image", each with the vector of its name."""
    vectors = np.array([vector_of(name) for name in names], np.float32).reshape(-1, D)
    return EmbeddingSet(vectors, names, [name.split("/")[0] for name in names], FINGERPRINT)


def write_until_killed(folder: str, run_number: str, factory: str) -> None:
    """The child: add batches of 20, sometimes remove a face or save the index, and print each write once it is done."""
    with Gallery.open(folder, create=True) as gallery:
        if factory:
            gallery.configure(factory=factory)
        for batch in range(10**6):
            names = [f"r{run_number}b{batch}/{i}" for i in range(BATCH)]
            gallery.add(faces(names))
            print("+" + " ".join(names), flush=True)
            if batch % 3 == 1:
                gallery.remove(names[0])
                print("-" + names[0], flush=True)
            if batch % 2 == 1:
                gallery.save_cache(force=True)


def kill_writer(folder: Path, number: int, rng: random.Random, *, factory: str = "", temporary: str = "") -> list[str]:
    """Run the child, kill it at a random moment, and return the lines it printed."""
    code = "import sys; from benchmarks.gallery import write_until_killed; write_until_killed(*sys.argv[1:])"
    command = [sys.executable, "-c", code, str(folder), str(number), factory]
    with subprocess.Popen(command, env=environment(temporary), stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        lines = [child.stdout.readline()]
        time.sleep(rng.random() * MOST_ALIVE)
        child.send_signal(signal.SIGKILL)
        lines += child.stdout.readlines()
    return [line.strip() for line in lines if line.endswith("\n")]


def ids(gallery: Gallery) -> set[str]:
    """The ids of every item."""
    return {item.id for items, _ in gallery.blocks() for item in items}


def _kill(place: Path, kills: int, temporary: str, rng: random.Random, factory: str) -> dict[str, int]:
    there: set[str] = set()
    counts = {
        "kills": kills,
        "writes_acknowledged": 0,
        "lost": 0,
        "half_written": 0,
        "unreadable": 0,
        "wrong_answers": 0,
    }
    for number in range(kills):
        lines = kill_writer(place, number, rng, factory=factory, temporary=temporary)
        added = {name for line in lines if line[0] == "+" for name in line[1:].split()}
        removed = {line[1:] for line in lines if line[0] == "-"}
        counts["writes_acknowledged"] += len(lines)
        try:
            with Gallery.open(place) as gallery:
                now = ids(gallery)
                problems = [line for line in gallery.check() if "index." not in line]
                counts["wrong_answers"] += _wrong(gallery, sorted(now)[:: max(1, len(now) // 20)])
        except DataError:
            counts["unreadable"] += 1
            continue
        unprinted = {f"r{number}b{batch}/0" for batch in range(len(lines) + 1)}  # removals done and not yet printed
        counts["lost"] += len((there | added) - removed - now - unprinted) + len(removed & now) + bool(problems)
        counts["half_written"] += len(now - there - added) not in (0, BATCH - 1, BATCH)
        there = now
    return counts | {"leaked_files": len([path for path in place.iterdir() if path.name.endswith(".tmp")])}


def _wrong(gallery: Gallery, names: list[str]) -> int:
    """Count the items among some that are not their own nearest neighbour."""
    found = gallery.hits(faces(names), 1)
    return sum(not hits or hits[0].id != name for name, hits in zip(names, found, strict=True))


def _state(place: Path) -> list[tuple[str, bytes]]:
    with Gallery.open(place) as gallery:
        blocks = list(gallery.blocks())
    return [(item.id, row.tobytes()) for items, rows in blocks for item, row in zip(items, rows, strict=True)]


def _full_disks(place: Path, count: int, rng: random.Random) -> dict[str, int]:
    """A file may not grow beyond a random point of a write, as on a full disk."""
    counts = {"full_disks": count, "changed": 0, "unclear": 0}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = (place / "items.sqlite").stat().st_size

    def fill() -> Callable[[], None]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + rng.randrange(1, 1 << 17), limits[1]))
        return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    for number in range(count):
        _refused(place, [f"full{number}/{i}" for i in range(3000)], fill, "free some space", counts)
    return counts


def _read_only(place: Path, count: int) -> dict[str, int]:
    counts = {"read_only": count, "changed": 0, "unclear": 0}
    for number in range(count):
        _refused(place, [f"closed{number}/0"], lambda: close_folder(place), "folder you may write to", counts)
    return counts


def _refused(
    place: Path, names: list[str], break_it: Callable[[], Callable[[], None]], message: str, counts: dict[str, int]
) -> None:
    """Add while something is broken: the error must hold the message in one line, and the items stay as they were."""
    before = _state(place)
    mend = break_it()
    try:
        with Gallery.open(place) as gallery:
            gallery.add(faces(names))
        counts["unclear"] += 1
    except DataError as error:
        counts["unclear"] += message not in str(error) or "\n" in str(error)
    finally:
        mend()
    counts["changed"] += _state(place) != before


def _corrupt(place: Path, count: int, rng: random.Random) -> dict[str, int]:
    with Gallery.open(place) as gallery:
        gallery.save_cache(force=True)
        names = sorted(ids(gallery))
    path = place / "index.faiss"
    sound = path.read_bytes()
    header = (place / "index.json").read_bytes()
    some = names[:: max(1, len(names) // 20)]
    counts = {"corruptions": count, "detected": 0, "rebuilt": 0, "served_wrong": 0}
    for _ in range(count):
        path.write_bytes(corrupted(sound, rng))
        (place / "index.json").write_bytes(header)
        with Gallery.open(place) as gallery:
            counts["detected"] += any("index." in line for line in gallery.check())
            counts["served_wrong"] += _wrong(gallery, some) > 0
        counts["rebuilt"] += path.read_bytes() == sound
    return counts


def corrupted(content: bytes, rng: random.Random) -> bytes:
    """A copy cut off, with a bit flipped, bytes put in, or a stretch overwritten; never the same bytes."""
    while True:
        at, kind = rng.randrange(len(content)), rng.randrange(4)
        if kind == 0:
            return content[:at]
        if kind == 1:
            return content[:at] + bytes([content[at] ^ (1 << rng.randrange(8))]) + content[at + 1 :]
        if kind == 2:
            return content[:at] + rng.randbytes(rng.randrange(1, 64)) + content[at:]
        changed = content[:at] + bytes(min(64, len(content) - at)) + content[at + 64 :]
        if changed != content:
            return changed
