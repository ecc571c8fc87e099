"""Measure a part of the library against named peers and the physical floor, interleaved in one process."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facenet.commands.launch import launch
from facenet.commands.options import CommandOptions
from facenet.console import table
from facenet.errors import ConfigError
from facenet.options import option


@dataclass(frozen=True, kw_only=True)
class BenchmarkOptions(CommandOptions):
    """Options of ``benchmark``; those of one benchmark stand in its module."""

    benchmark: dict[str, Any] = option({}, help="name, and the options of that benchmark")


def run(options: BenchmarkOptions, out: Path) -> dict[str, Any]:
    asked = dict(options.benchmark)
    name = asked.pop("name")
    try:
        bench = importlib.import_module(f"benchmarks.{name}")
    except ModuleNotFoundError as error:
        raise ConfigError(f"benchmark: {error}; benchmarks need a clone of the repository: run it there") from error
    result: dict[str, Any] = bench.run(**asked)
    for title, header, rows in bench.tables(result):
        table(rows, header=header, title=title)
    if result.get("absent"):
        print(f"not installed, so not measured: {', '.join(result['absent'])} (pip install -e '.[benchmark]')")
    return result


def main() -> None:
    launch("benchmark", run)
