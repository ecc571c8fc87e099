"""Measure a part of the library against named peers and the physical floor, interleaved in one process."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from facenet.commands.launch import CONF, launch
from facenet.commands.options import CommandOptions
from facenet.console import one_line_errors, table
from facenet.errors import ConfigError, choose
from facenet.foreign import install_command
from facenet.options import build, describe, option


@dataclass(frozen=True, kw_only=True)
class BenchmarkOptions(CommandOptions):
    """Options of ``benchmark``; those of one benchmark stand in its module."""

    benchmark: dict[str, Any] = option({}, help="name, and the options of that benchmark: benchmark=NAME --help")


def run(options: BenchmarkOptions, out: Path) -> dict[str, Any]:
    given = dict(options.benchmark)
    module = import_benchmark(given.pop("name"))
    result: dict[str, Any] = module.run(build(module.Options, given, "benchmark."))
    for title, header, rows in module.tables(result):
        table(rows, header=header, title=title)
    if hasattr(module, "write_plot"):
        module.write_plot(result, out / "plot.svg")
        print(f"plot: {out / 'plot.svg'}")
    if result.get("absent"):
        print(f"not installed, so not measured: {', '.join(result['absent'])} ({install_command('benchmark')})")
    return result


def import_benchmark(name: str) -> ModuleType:
    """Import a benchmark's module, which holds its class `Options`, ``run(options)`` and ``tables(result)``.

    It may hold ``write_plot(result, path)`` too, which draws the result as SVG.

    Raises:
        ConfigError: an unknown name, or no benchmarks: the installed package has none.
    """
    choose({path.stem: path for path in (CONF / "benchmark").glob("*.yaml")}, name, "benchmark.name")
    try:
        return importlib.import_module(f"benchmarks.{name}")
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("benchmarks"):
            raise
        raise ConfigError(f"benchmark: {error}; benchmarks need a clone of the repository: run it there") from error


def main() -> None:
    launch("benchmark", run)
    chosen = [argument.partition("=")[2] for argument in sys.argv[1:] if argument.startswith("benchmark=")]
    if chosen and {"--help", "-h"} & {*sys.argv}:
        with one_line_errors():
            for row in describe(import_benchmark(chosen[-1]).Options):
                print(f"  benchmark.{row.name}={row.default}  {row.help}")
