"""The campaign of faults: what is killed, cut, stopped, damaged, hostile or dirty loses nothing.

Each part is a module of its own and counts what went wrong.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from benchmarks.faults.options import CheckpointFaults, DataFaults, FileFaults, ResumeFaults, SetFaults
from benchmarks.tables import Table
from facenet.options import SEED, option
from facenet.options import Options as BaseOptions

PARTS = ("checkpoints", "resume", "files", "data", "sets")


@dataclass(frozen=True, kw_only=True)
class Options(BaseOptions):
    """Options of the campaign."""

    parts: tuple[str, ...] | None = option(None, choices=PARTS, help="parts to play; null is all")
    checkpoints: CheckpointFaults = CheckpointFaults()
    resume: ResumeFaults = ResumeFaults()
    files: FileFaults = FileFaults()
    data: DataFaults = DataFaults()
    sets: SetFaults = SetFaults()
    folder: str = option("", help="where everything is written; empty: a temporary folder")
    temporary: str = option("", help="temporary folder of the children, to be on another file system: /dev/shm")
    seed: int = option(0, **SEED, help="of the faults")


def run(options: Options) -> dict[str, Any]:
    """Play the parts; returns {part: {fault: {what: count}}}, and `seconds` by part."""
    result: dict[str, Any] = {"seconds": {}}
    place = {"folder": options.folder, "temporary": options.temporary, "seed": options.seed}
    for name in PARTS if options.parts is None else options.parts:
        print(f"faults: {name}", flush=True)
        part, start = import_module(f"benchmarks.faults.{name}"), time.perf_counter()
        result[name] = part.run(getattr(options, name), **place)
        result["seconds"][name] = time.perf_counter() - start
    return result


def tables(result: dict[str, Any]) -> list[Table]:
    """Lay out what :func:`run` returned."""
    return [
        Table(
            f"faults: {name}, {seconds:.0f} s",
            ("fault", "what", "count"),
            [(fault, what, count) for fault, counts in result[name].items() for what, count in counts.items()],
        )
        for name, seconds in result["seconds"].items()
    ]
