"""Faults of a gallery: killed writers, full disks, no rights, corrupted index files. Nothing acknowledged may be lost.

A child process adds, removes and saves, and says each write once it is done; it is killed at a random moment. The
gallery lies in `folder`, on another file system than the temporary one where `temporary` names such.
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
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.faults.rights import close_folder
from facenet.errors import DataError
from facenet.gallery.gallery import Gallery
from facenet.types import EmbeddingSet
from facenet.vectors import normalise

FINGERPRINT, D, BATCH = "ab" * 32, 16, 20
MOST_ALIVE = 0.4  # seconds after its first write at which a child is killed at the latest


def run(
    *,
    kills: int = 50,
    full_disks: int = 10,
    read_only: int = 5,
    corruptions: int = 1000,
    factory: str = "",
    folder: str = "",
    temporary: str = "",
    seed: int = 0,
) -> dict[str, Any]:
    """Play every fault so many times on a gallery whose index is `factory` ("" as usual); counts of what went wrong."""
    rng = random.Random(seed)
    with _quiet(), tempfile.TemporaryDirectory(prefix="facenet-gallery-", dir=folder or None) as name:
        place = Path(name) / "gallery"
        os.chmod(name, 0o755)  # noqa: PTH101 - for the rights test another user must get in
        killed = _kill(place, kills, temporary, rng, factory)
        full = _full_disks(place, full_disks, rng)
        return {
            "kills": killed,
            "full_disks": full,
            "read_only": _read_only(place, read_only),
            "corruptions": _corrupt(place, corruptions, rng),
            "other_file_system": bool(temporary) and os.stat(temporary).st_dev != os.stat(name).st_dev,  # noqa: PTH116
        }


def tables(result: dict[str, Any]) -> list[tuple[str, tuple[str, ...], list[tuple[Any, ...]]]]:
    """Lay out what :func:`run` returned: (title, header, rows)."""
    names = ("kills", "full_disks", "read_only", "corruptions")
    rows = [(what, name, count) for what in names for name, count in result[what].items()]
    where = (
        "another file system than the temporary folder's" if result["other_file_system"] else "the temporary folder's"
    )
    return [(f"faults of a gallery on {where}", ("fault", "what", "count"), rows)]


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


def write_for_ever(folder: str, run_number: str, factory: str) -> None:
    """The child: batches of 20, a removal now and then, the index again and again; every write said when it is done."""
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
    """Run the child, kill it at a random moment, and return the lines it said."""
    code = "import sys; from benchmarks.gallery import write_for_ever; write_for_ever(*sys.argv[1:])"
    paths = os.pathsep.join(path for path in sys.path if path)
    environment = {**os.environ, "PYTHONPATH": paths} | ({"TMPDIR": temporary} if temporary else {})
    command = [sys.executable, "-c", code, str(folder), str(number), factory]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as child:
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
    told = {"kills": kills, "writes_acknowledged": 0, "lost": 0, "half_written": 0, "unreadable": 0, "wrong_answers": 0}
    for number in range(kills):
        lines = kill_writer(place, number, rng, factory=factory, temporary=temporary)
        added = {name for line in lines if line[0] == "+" for name in line[1:].split()}
        removed = {line[1:] for line in lines if line[0] == "-"}
        told["writes_acknowledged"] += len(lines)
        try:
            with Gallery.open(place) as gallery:
                now = ids(gallery)
                problems = [line for line in gallery.check() if "index." not in line]
                told["wrong_answers"] += _wrong(gallery, sorted(now)[:: max(1, len(now) // 20)])
        except DataError:
            told["unreadable"] += 1
            continue
        unsaid = {f"r{number}b{batch}/0" for batch in range(len(lines) + 1)}  # a removal done but not yet said
        told["lost"] += len((there | added) - removed - now - unsaid) + len(removed & now) + bool(problems)
        told["half_written"] += len(now - there - added) not in (0, BATCH - 1, BATCH)
        there = now
    return told | {"leaked_files": len([path for path in place.iterdir() if path.name.endswith(".tmp")])}


def _wrong(gallery: Gallery, names: list[str]) -> int:
    """How many of some items are not their own nearest neighbour."""
    found = gallery.hits(faces(names), 1)
    return sum(not hits or hits[0].id != name for name, hits in zip(names, found, strict=True))


def _state(place: Path) -> list[tuple[str, bytes]]:
    with Gallery.open(place) as gallery:
        blocks = list(gallery.blocks())
    return [(item.id, row.tobytes()) for items, rows in blocks for item, row in zip(items, rows, strict=True)]


def _full_disks(place: Path, count: int, rng: random.Random) -> dict[str, int]:
    """A file may not grow beyond a random point of a write, as on a full disk."""
    told = {"full_disks": count, "changed": 0, "unclear": 0}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = (place / "items.sqlite").stat().st_size

    def fill() -> Callable[[], None]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + rng.randrange(1, 1 << 17), limits[1]))
        return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    for number in range(count):
        _refused(place, [f"full{number}/{i}" for i in range(3000)], fill, "free some space", told)
    return told


def _read_only(place: Path, count: int) -> dict[str, int]:
    told = {"read_only": count, "changed": 0, "unclear": 0}
    for number in range(count):
        _refused(place, [f"closed{number}/0"], lambda: close_folder(place), "folder you may write to", told)
    return told


def _refused(
    place: Path, names: list[str], break_it: Callable[[], Callable[[], None]], said: str, told: dict[str, int]
) -> None:
    """Add while something is broken: the error has to say so in one line, and the items to be as they were."""
    before = _state(place)
    mend = break_it()
    try:
        with Gallery.open(place) as gallery:
            gallery.add(faces(names))
        told["unclear"] += 1
    except DataError as error:
        told["unclear"] += said not in str(error) or "\n" in str(error)
    finally:
        mend()
    told["changed"] += _state(place) != before


def _corrupt(place: Path, count: int, rng: random.Random) -> dict[str, int]:
    with Gallery.open(place) as gallery:
        gallery.save_cache(force=True)
        names = sorted(ids(gallery))
    path = place / "index.faiss"
    sound = path.read_bytes()
    header = (place / "index.json").read_bytes()
    some = names[:: max(1, len(names) // 20)]
    told = {"corruptions": count, "detected": 0, "rebuilt": 0, "served_wrong": 0}
    for _ in range(count):
        path.write_bytes(corrupted(sound, rng))
        (place / "index.json").write_bytes(header)
        with Gallery.open(place) as gallery:
            told["detected"] += any("index." in line for line in gallery.check())
            told["served_wrong"] += _wrong(gallery, some) > 0
        told["rebuilt"] += path.read_bytes() == sound
    return told


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
