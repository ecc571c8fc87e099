"""One self-contained HTML page from run folders and sweeps: report.html in this command's run folder."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facenet.commands.launch import launch
from facenet.commands.options import CommandOptions
from facenet.console import progress, table
from facenet.options import INSIDE, option


@dataclass(frozen=True, kw_only=True)
class ReportOptions(CommandOptions):
    """Options of ``report``."""

    runs: str | tuple[str, ...] = option(help="run folders, or folders of sweeps")
    encoder: str | None = option(None, help="encoder for runs without one of their own")
    fpir: float | None = option(None, **INSIDE, help="judge runs of search at this rate; null: each at its own")
    title: str | None = option(None, help="heading of the page; null: Face verification")


def together(arguments: list[str]) -> list[str]:
    """Turn ``runs=DIR DIR ...`` into Hydra's ``runs=['DIR','DIR',...]``; one folder alone stays as it is.

    >>> together(["runs=a", "b c", "title=x"])
    ["runs=['a','b c']", 'title=x']
    """
    start = next((place for place, text in enumerate(arguments) if text.startswith("runs=")), len(arguments))
    end = start + 1
    while end < len(arguments) and not arguments[end].startswith("-") and "=" not in arguments[end]:
        end += 1
    if end - start < 2:
        return arguments
    folders = [arguments[start].removeprefix("runs="), *arguments[start + 1 : end]]
    quoted = ",".join("'" + folder.replace("'", r"\'") + "'" for folder in folders)
    return [*arguments[:start], f"runs=[{quoted}]", *arguments[end:]]


def run(options: ReportOptions, out: Path) -> dict[str, Any]:
    from facenet.report.build import write_report

    runs = [options.runs] if isinstance(options.runs, str) else options.runs
    with progress("report") as show:
        metrics = write_report(
            list(runs),
            out / "report.html",
            encoder=options.encoder,
            title=options.title,
            fpir=options.fpir,
            progress=show,
        )
    rows = [
        (title, ", ".join(sections), len(metrics["warnings"].get(title, ())))
        for title, sections in metrics["chapters"].items()
    ]
    table(rows, header=("chapter", "sections", "warnings"), title="report")
    if metrics["left_out"]:
        print(f"left out, since a report shows nothing of them: {', '.join(metrics['left_out'])}")
    print(f"page: {metrics['page']} ({metrics['bytes'] / 1000:.0f} kB)")
    return metrics


def main() -> None:
    sys.argv[1:] = together(sys.argv[1:])
    launch("report", run)
