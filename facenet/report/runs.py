"""The runs of a report: run folders, and their kind by the content of ``metrics.json``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from facenet.errors import ConfigError, DataError
from facenet.files import read_json
from facenet.report.values import get_value

SWEEPS = ("table3", "table5", "table6", "lfw_view2")
DEPTH = 3  # how far below a given folder the runs of a sweep may lie
COMMANDS = "facenet train, verify, degrade, cluster, compat or search"


@dataclass(frozen=True)
class Run:
    """A run folder with its metrics, and the paths of its parts."""

    folder: Path
    name: str
    kind: str  # "verification", "degrade", "cluster", "compat", "search" or one of SWEEPS
    metrics: dict[str, Any]
    given: bool = True  # named by the user; False for a run found inside a sweep's folder

    def part(self, name: str) -> Path | None:
        """Return the path of a part: in the folder, or in the ``verify`` or ``train`` run inside it (quick start)."""
        places = (self.folder / name, self.folder / "verify" / name, self.folder / "train" / name)
        return next((place for place in places if place.exists()), None)


@dataclass(frozen=True)
class FoundRuns:
    """The runs of all given folders, and the folders that were left out."""

    runs: list[Run]
    unfinished: list[str]  # jobs of a sweep without metrics.json
    foreign: list[str]  # runs without metrics that a report shows


def find_runs(folders: Sequence[str | Path]) -> FoundRuns:
    """Read the metrics of run folders, and of the runs inside folders of sweeps.

    Raises:
        DataError: no folder, a folder without runs, damaged JSON, or a run that a report can not show.
    """
    runs: list[Run] = []
    unfinished: list[str] = []
    foreign: list[str] = []
    refused = ""
    if not folders:
        raise ConfigError("report: expected at least one run folder, got none; pass runs=DIR")
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise DataError(f"{folder}: no such run folder; pass the folder of a run of {COMMANDS}")
        if (folder / "metrics.json").is_file():
            metrics = read_json(folder / "metrics.json")
            kind = kind_of(metrics)
            if kind is None:
                held = ", ".join(sorted(metrics)[:6]) or "nothing"
                refused = f"{folder}/metrics.json: nothing a report shows (it holds {held}); pass a run of {COMMANDS}"
                foreign.append(folder.resolve().name)
                continue
            runs.append(Run(folder, folder.resolve().name, kind, metrics))
            continue
        inside, jobs, others = _inside(folder)
        if not inside:
            raise DataError(
                f"{folder}: not a run folder: neither it nor a folder in it holds a metrics.json that a report shows;"
                f" pass the folder of a finished run of {COMMANDS}, or of a sweep"
            )
        runs, unfinished, foreign = runs + inside, unfinished + jobs, foreign + others
    if not runs:
        raise DataError(refused)
    counts = Counter(run.name for run in runs)  # names tell runs apart
    runs = [run if counts[run.name] == 1 else replace(run, name=run.folder.as_posix()) for run in runs]
    return FoundRuns(runs, unfinished, foreign)


def kind_of(metrics: Mapping[str, Any]) -> str | None:
    """Return the kind of a run by the content of its metrics; None if a report does not show it."""
    table = get_value(metrics, "run", "table")
    if isinstance(table, str) and table in SWEEPS:
        return table
    for kind in ("degrade", "verification"):
        if isinstance(metrics.get(kind), Mapping):
            return kind
    if all(isinstance(metrics.get(part), Mapping) for part in ("cells", "yardsticks")):
        return "compat"
    if {"queries", "threshold", "results"} <= set(metrics):
        return "search"
    return "cluster" if {"faces", "clusters", "threshold"} <= set(metrics) else None


def _inside(folder: Path) -> tuple[list[Run], list[str], list[str]]:
    """Return the runs below a folder, the jobs that did not finish, and the runs that a report does not show."""
    runs, unfinished, foreign = [], [], []
    level = [folder]
    for _ in range(DEPTH):
        level = [place for parent in level for place in sorted(parent.iterdir(), key=_natural) if place.is_dir()]
        for place in level:
            name = place.relative_to(folder).as_posix()
            if (place / "metrics.json").is_file():
                metrics = read_json(place / "metrics.json")
                kind = kind_of(metrics)
                if kind is None:
                    foreign.append(name)
                else:
                    runs.append(Run(place, f"{folder.resolve().name}/{name}", kind, metrics, given=False))
            elif (place / ".hydra").is_dir():
                unfinished.append(name)
        level = [place for place in level if not (place / "metrics.json").is_file()]
    return runs, unfinished, foreign


def _natural(path: Path) -> tuple[int, int, str]:
    """Order jobs by their number: 2 before 10."""
    return (0, int(path.name), "") if path.name.isascii() and path.name.isdigit() else (1, 0, path.name)
