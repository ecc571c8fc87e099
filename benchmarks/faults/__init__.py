"""The campaign of faults: what is killed, cut, stopped, damaged, hostile or dirty loses nothing.

Each part is a room of its own and counts what went wrong.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from facenet.errors import choose

# part -> its room; every part takes folder, temporary and seed
PARTS = {
    "checkpoints": "checkpoints",
    "resume": "resume",
    "files": "files",
    "data": "data",
}


def run(
    *,
    parts: Sequence[str] | None = None,
    checkpoints: dict[str, Any] | None = None,
    resume: dict[str, Any] | None = None,
    files: dict[str, Any] | None = None,
    data: dict[str, Any] | None = None,
    folder: str = "",
    temporary: str = "",
    seed: int = 0,
) -> dict[str, Any]:
    """Play the parts (None: all), each with its counts; {part: {fault: {what: count}}}, and `seconds` by part.

    What is written goes into `folder`, temporary files into `temporary`, which may name another file system.

    Raises:
        ConfigError: an unknown part.
    """
    counts = {"checkpoints": checkpoints, "resume": resume, "files": files, "data": data}
    names = list(PARTS) if parts is None else list(parts)
    for name in names:
        choose(PARTS, name, "benchmark.parts")
    result: dict[str, Any] = {"seconds": {}}
    for name in names:
        print(f"faults: {name}", flush=True)
        room, start = import_module(f"benchmarks.faults.{PARTS[name]}"), time.perf_counter()
        result[name] = room.run(**(counts[name] or {}), folder=folder, temporary=temporary, seed=seed)
        result["seconds"][name] = time.perf_counter() - start
    return result


def tables(result: dict[str, Any]) -> list[tuple[str, tuple[str, ...], list[tuple[Any, ...]]]]:
    """Lay out what :func:`run` returned: (title, header, rows)."""
    return [
        (
            f"faults: {name}, {seconds:.0f} s",
            ("fault", "what", "count"),
            [(fault, what, count) for fault, counts in result[name].items() for what, count in counts.items()],
        )
        for name, seconds in result["seconds"].items()
    ]
