"""Faces embedded by ranks of which one is killed again and again, against one process: the same bits, nothing lost.

The faces are a table whose rows name a thousand small pictures in random order, so that no two blocks are alike. Some
pictures can not be read. The net is tiny, so that reading, sharing out and writing are what is tested. Every process is
``facenet embed`` itself. Ranks are told what they are by RANK and WORLD_SIZE, as torchrun does; the killed one is
started again, and the others go on.
"""

from __future__ import annotations

import csv
import filecmp
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.resources import environment
from benchmarks.tables import Table, megabytes
from facenet.encoders.blocks import PARTS
from facenet.options import SEED, option
from facenet.options import Options as BaseOptions
from facenet.types import EmbeddingSet

SIDE = 16  # pixels of a picture
PLUGIN = "benchmarks.tiny_net"  # the processes import it; here its net would stand in every list of nets
BROKEN = 3  # of the pictures
FILES = ("vectors.npy", "items.csv", "skipped.csv", "meta.json")
LONGEST = 3600.0  # seconds that a process may take


@dataclass(frozen=True, kw_only=True)
class Options(BaseOptions):
    """Options of the ranks."""

    faces: int = option(200_000, least=10, help="faces to embed")
    pictures: int = option(1000, least=10, help="different pictures that the faces are")
    dim: int = option(128, least=1, help="embedding width D")
    ranks: int = option(2, least=2, help="processes that share the faces out")
    kills: int = option(2, least=0, help="how often the last rank is killed")
    batch_size: int = option(256, least=1, help="faces embedded at a time")
    block: int = option(5_000, least=1, help="faces of a block")
    folder: str | None = option(None, help="where to write; null: a temporary folder")
    seed: int = option(0, **SEED, help="of the pictures and of the moments")


def run(options: Options) -> dict[str, Any]:
    """Embed the faces by one process and by ranks; returns times, peaks of memory and what differs."""
    with tempfile.TemporaryDirectory(prefix="facenet-ranks-", dir=options.folder) as name:
        place = Path(name)
        make_faces(place / "faces", options)
        code = f"from {PLUGIN} import make_encoder; make_encoder({str(place / 'encoder')!r}, {options.dim}, {SIDE})"
        subprocess.run([sys.executable, "-c", code], env=environment(), check=True)
        started = time.perf_counter()
        one = _Process(place, "one", options, 0, 1)
        one.wait()
        seconds = time.perf_counter() - started
        started = time.perf_counter()
        ranks, killed = _embed_by_ranks(place, options)
        return {
            "faces": options.faces,
            "ranks": options.ranks,
            "kills": killed,
            "seconds_one": seconds,
            "seconds_ranks": time.perf_counter() - started,
            "peak_one": one.peak,
            "peak_ranks": [process.peak for process in ranks],
            **compare(place / "one", place / "ranks"),
        }


def make_faces(folder: Path, options: Options) -> None:
    """Write small pictures, some of them broken, and the table ``faces.csv`` that names them in random order."""
    rng = np.random.default_rng(options.seed)
    folder.mkdir()
    for number in range(options.pictures):
        file = folder / f"{number:05d}.png"
        if number < BROKEN:
            file.write_bytes(b"broken")
        else:
            Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)).save(file)
    rows = rng.integers(0, options.pictures, options.faces)
    with (folder / "faces.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(("path", "identity"))
        table.writerows((f"{number:05d}.png", f"p{row // 10:07d}") for row, number in enumerate(rows.tolist()))


class _Process:
    """One ``facenet embed``."""

    def __init__(self, place: Path, out: str, options: Options, rank: int, world: int) -> None:
        ranks = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "OMP_NUM_THREADS": "1"}
        code = "from facenet.commands.embed import main; main()"
        sizes = (f"batch_size={options.batch_size}", f"block={options.block}", "device=cpu")
        given = (f"encoder={place / 'encoder'}", f"images={place / 'faces' / 'faces.csv'}", f"out={place / out}")
        plugin = f"plugins=[{PLUGIN}]"
        command = [sys.executable, "-c", code, *given, *sizes, plugin, f"hydra.run.dir={place / f'run_{out}'}"]
        self.log = (place / f"{out}_{rank}.log").open("a+")
        self.rank, self.peak, self.code = rank, 0, -1
        own = environment() | (ranks if world > 1 else {"OMP_NUM_THREADS": "1"})
        self.process = subprocess.Popen(command, env=own, stdout=self.log, stderr=self.log, cwd=place)

    def wait(self, *, killed: bool = False) -> None:
        """Wait for the end; raises RuntimeError if the process failed and was not killed."""
        _, status, used = os.wait4(self.process.pid, 0)
        self.process.returncode = self.code = os.waitstatus_to_exitcode(status)
        self.peak = used.ru_maxrss * 1024
        if self.code and not killed:
            self.log.seek(0)
            raise RuntimeError(f"rank {self.rank} ended with {self.code}: {self.log.read()[-500:]}")
        self.log.close()


def _embed_by_ranks(place: Path, options: Options) -> tuple[Sequence[_Process], int]:
    """Embed by ranks, and kill the last one after a block of its own or in the middle of one."""
    rng, killed = random.Random(options.seed), 0
    ranks = [_Process(place, "ranks", options, rank, options.ranks) for rank in range(options.ranks)]
    last = ranks[-1]
    size = -(-options.block // options.batch_size) * options.batch_size
    own = range(options.ranks - 1, -(-options.faces // size), options.ranks)
    for kill in range(options.kills):
        _wait_for(place / "ranks", own, 1 + kill * len(own) // (options.kills + 1), last)
        time.sleep(0.2 * rng.random())
        if last.process.poll() is not None:
            break
        last.process.kill()
        last.wait(killed=True)
        killed += last.code == -9
        last = _Process(place, "ranks", options, options.ranks - 1, options.ranks)
    ranks[-1] = last
    for process in ranks:
        process.wait()
    return ranks, killed


def _wait_for(out: Path, own: range, count: int, process: _Process) -> None:
    """Wait until so many of some blocks are there."""
    deadline = time.monotonic() + LONGEST
    while sum((out / PARTS / f"block-{block:06d}.json").is_file() for block in own) < min(count, len(own)):
        if process.process.poll() is not None or time.monotonic() > deadline:
            return
        time.sleep(0.01)


def compare(one: Path, other: Path) -> dict[str, Any]:
    """Compare two embeddings folders: vectors, rows that are missing or differ, and files that differ in any bit."""
    first, second = (EmbeddingSet.load(folder, mmap=True) for folder in (one, other))
    both = min(len(first), len(second))
    blocks = range(0, both, 1 << 16)
    rows = [(first.vectors[at : at + (1 << 16)][:both], second.vectors[at : at + (1 << 16)]) for at in blocks]
    differ = sum(int((a[: len(b)].view(np.int32) != b[: len(a)].view(np.int32)).any(1).sum()) for a, b in rows)
    return {
        "vectors": len(second),
        "missing": len(first) - len(second),
        "vectors_that_differ": differ,
        "files_that_differ": [name for name in FILES if not filecmp.cmp(one / name, other / name, shallow=False)],
        "left_over": sorted(path.name for path in other.iterdir() if path.name not in FILES),
    }


def tables(result: dict[str, Any]) -> list[Table]:
    """Lay out what :func:`run` returned."""
    peaks = ", ".join(map(megabytes, result["peak_ranks"]))
    rows = [
        ("faces", result["faces"]),
        ("vectors (the others can not be read)", result["vectors"]),
        ("one process, seconds", result["seconds_one"]),
        (f"{result['ranks']} ranks, one killed {result['kills']} times, seconds", result["seconds_ranks"]),
        ("peak of one process", megabytes(result["peak_one"])),
        ("peaks of the ranks", peaks),
        ("vectors missing", result["missing"]),
        ("vectors that differ in a bit", result["vectors_that_differ"]),
        ("files that differ in a bit", ", ".join(result["files_that_differ"]) or "none"),
        ("files left over", ", ".join(result["left_over"]) or "none"),
    ]
    return [Table("ranks against one process", ("what", ""), rows)]
