"""Means over runs: those of the paper's tables over seeds, those of LFW View 2 over folds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from facenet.report.paper import PAPER, PaperTable
from facenet.report.runs import Run
from facenet.report.values import get_value, number

FOLDS = tuple(range(1, 11))  # of LFW View 2
MEASURES = ("accuracy", "auc", "eer", "val_1e-2", "val_1e-3", "faces_seen")


class Spread(NamedTuple):
    """Mean and standard deviation (ddof = 1) of n values; None if there are too few."""

    mean: float | None
    std: float | None
    n: int

    @property
    def sem(self) -> float | None:
        """Standard error of the mean, std / sqrt(n)."""
        return None if self.std is None else self.std / float(np.sqrt(self.n))


class Setting(NamedTuple):
    """One row of a sweep: a setting, its seeds, and each measure over the seeds."""

    setting: Any
    seeds: list[int]
    measures: dict[str, Spread]
    paper: tuple[float, float | None] | None


class Sweep(NamedTuple):
    """The runs of one table at one scale."""

    table: str
    scale: str
    settings: list[Setting]
    repeated: list[str]  # runs left out because a later one has the same setting and seed


class Folds(NamedTuple):
    """The folds of LFW View 2 of one net and seed."""

    model: str
    seed: int
    accuracies: dict[int, float]  # by fold
    spread: Spread  # over the folds present
    missing: list[int]
    pairs: int
    repeated: list[str]


def spread(values: Sequence[float | None]) -> Spread:
    """Return mean and standard deviation of the values that are numbers.

    >>> spread([1.0, 3.0, None])
    Spread(mean=2.0, std=1.4142135623730951, n=2)
    """
    known = [value for value in values if value is not None]
    if not known:
        return Spread(None, None, 0)
    return Spread(float(np.mean(known)), float(np.std(known, ddof=1)) if len(known) > 1 else None, len(known))


def group_sweeps(runs: Sequence[Run]) -> list[Sweep]:
    """Group the runs of tables 3, 5 and 6 by table, scale and setting; rows of the paper without runs stay."""
    found = []
    for table, paper in PAPER.items():
        ours = [run for run in runs if run.kind == table]
        for scale in sorted({_scale(run) for run in ours}):
            same = [run for run in ours if _scale(run) == scale]
            keys = [(str(get_value(run.metrics, "run", paper.setting)), _seed(run)) for run in same]
            kept, repeated = _latest(same, keys)
            found.append(Sweep(table, scale, _settings(paper, kept), repeated))
    return found


def group_folds(runs: Sequence[Run]) -> list[Folds]:
    """Group the folds of LFW View 2 by net and seed, with mean and SEM over the finished ones."""
    ours = [run for run in runs if run.kind == "lfw_view2"]
    found = []
    for model, seed in sorted({(_model(run), _seed(run)) for run in ours}):
        mine = [run for run in ours if (_model(run), _seed(run)) == (model, seed)]
        kept, repeated = _latest(mine, [_hashable(get_value(run.metrics, "run", "fold")) for run in mine])
        accuracies = {}
        for run in kept:
            fold = get_value(run.metrics, "run", "fold")
            accuracy = number(get_value(run.metrics, "verification", "accuracy"))
            if isinstance(fold, int) and accuracy is not None:
                accuracies[fold] = accuracy
        accuracies = dict(sorted(accuracies.items()))
        pairs = sum(int(number(get_value(run.metrics, "verification", "pairs")) or 0) for run in kept)
        missing = [fold for fold in FOLDS if fold not in accuracies]
        found.append(Folds(model, seed, accuracies, spread([*accuracies.values()]), missing, pairs, repeated))
    return found


def measures(run: Run) -> dict[str, float | None]:
    """Return the measures of one run that a sweep compares; None if not measured or not resolvable."""
    metrics = run.metrics
    found = {name: number(get_value(metrics, "verification", name)) for name in ("accuracy", "auc", "eer")}
    for far in ("1e-2", "1e-3"):
        found[f"val_{far}"] = number(get_value(metrics, "verification", "val_at_far", far, "val"))
    return {**found, "faces_seen": number(get_value(metrics, "train", "faces_seen"))}


def sweep_metrics(found: Sequence[Sweep], folds: Sequence[Folds]) -> dict[str, Any]:
    """Return the aggregated numbers for ``metrics.json``."""
    content: dict[str, Any] = {}
    for sweep in found:
        rows = {
            str(row.setting): {
                "seeds": row.seeds,
                **{name: value._asdict() for name, value in row.measures.items()},
                "paper_val_1e-3": row.paper[0] if row.paper else None,
            }
            for row in sweep.settings
        }
        content.setdefault(sweep.table, {})[sweep.scale] = rows
    for fold in folds:
        content.setdefault("lfw_view2", {})[f"{fold.model} seed {fold.seed}"] = {
            "accuracy": fold.spread.mean,
            "sem": fold.spread.sem,
            "std": fold.spread.std,
            "folds": {str(number): value for number, value in fold.accuracies.items()},
            "missing": fold.missing,
            "pairs": fold.pairs,
        }
    return content


def _settings(paper: PaperTable, runs: Sequence[Run]) -> list[Setting]:
    printed = {row[0]: (row[1], row[2]) for row in paper.rows}
    groups: dict[Any, list[Run]] = {key: [] for key in printed}
    for run in runs:
        value = get_value(run.metrics, "run", paper.setting)
        groups.setdefault(value if isinstance(value, int | float | str) else _text(value), []).append(run)
    order = list(groups) if paper.setting == "model" else sorted(groups, key=lambda value: number(value) or 0.0)
    return [
        Setting(
            key,
            sorted(_seed(run) for run in groups[key]),
            {name: spread([measures(run)[name] for run in groups[key]]) for name in MEASURES},
            printed.get(key),
        )
        for key in order
    ]


def _latest(runs: Sequence[Run], keys: Sequence[Any]) -> tuple[list[Run], list[str]]:
    """Keep the last of the runs with the same key; name the others."""
    kept: dict[Any, Run] = {}
    repeated = []
    for run, key in zip(runs, keys, strict=True):
        if key in kept:
            repeated.append(kept[key].name)
        kept[key] = run
    return list(kept.values()), repeated


def _hashable(value: Any) -> Any:
    return value if isinstance(value, int | float | str | None) else _text(value)


def _model(run: Run) -> str:
    return _text(get_value(run.metrics, "run", "model"))


def _scale(run: Run) -> str:
    return _text(get_value(run.metrics, "run", "scale"))


def _seed(run: Run) -> int:
    return int(number(get_value(run.metrics, "run", "seed")) or 0)


def _text(value: Any) -> str:
    return "unknown" if value is None else str(value)
