"""Measure a part of the library against named peers and the physical floor, interleaved in one process."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from facenet.commands.launch import launch
from facenet.commands.schema import ROOMS
from facenet.console import table


def run(config: dict[str, Any], out: Path) -> dict[str, Any]:
    from facenet.errors import choose

    options = dict(config["benchmark"])
    name = options.pop("name")
    choose(ROOMS, name, "benchmark.name")
    room = importlib.import_module(f"benchmarks.{name}")
    result: dict[str, Any] = room.run(**options)
    for title, header, rows in room.tables(result):
        table(rows, header=header, title=title)
    if result.get("absent"):
        print(f"not installed, so not measured: {', '.join(result['absent'])} (pip install -e '.[benchmark]')")
    return result


def main() -> None:
    launch("benchmark", run)
