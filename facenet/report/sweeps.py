"""Sweeps: the runs of one of the paper's tables put together over seeds, and the folds of LFW View 2 over folds.

The paper's figures stand here once. They were measured on the authors' private hold-out set, ours on other data: they
are set beside ours to compare shapes (which net, which dimension), never as one scale.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from facenet.data.degradations import KINDS
from facenet.report.runs import Run, dig, number

PAPER_NOTE = (
    "The paper's figures (Schroff, Kalenichenko, Philbin 2015, tables 3 to 6) were measured on its private hold-out set"
    " after training on 100 to 260 million private images; ours on the data named here. Compare the order and the"
    " shape, not the numbers."
)
FOLDS = tuple(range(1, 11))  # of LFW View 2


class PaperTable(NamedTuple):
    """A table of the paper: the setting it varies, and VAL at FAR 1e-3 with its standard error (None: not printed)."""

    title: str
    setting: str  # key of a run's `run` metrics
    label: str
    rows: tuple[tuple[Any, float, float | None], ...]  # setting, VAL, SEM; fractions


PAPER = {
    "table3": PaperTable(
        "The networks (table 3)",
        "model",
        "net",
        (
            ("nn1", 0.879, 0.019),
            ("nn2", 0.894, 0.016),
            ("nn3", 0.883, 0.017),
            ("nn4", 0.820, 0.023),
            ("nns1", 0.824, 0.024),
            ("nns2", 0.519, 0.029),
        ),
    ),
    "table5": PaperTable(
        "The dimension of the embedding (table 5)",
        "embedding_dim",
        "dimension",
        ((64, 0.868, 0.017), (128, 0.879, 0.019), (256, 0.877, 0.019), (512, 0.856, 0.020)),
    ),
    "table6": PaperTable(  # 2.6, 26, 52 and 260 million images
        "The amount of training data (table 6)",
        "train_share",
        "share of the training data",
        ((0.01, 0.763, None), (0.1, 0.851, None), (0.2, 0.851, None), (1.0, 0.862, None)),
    ),
}
# Table 4: VAL at FAR 1e-3 by JPEG quality, and by the number of pixels of the image.
PAPER_DEGRADED = {name: tuple(kind.paper.items()) for name, kind in KINDS.items() if kind.paper}
# LFW's own results page: category, method, mean accuracy over the folds of View 2, standard error where printed.
LFW_NEIGHBOURS = (
    ("Image-Restricted, No Outside Data", "Eigenfaces", 0.6002, None),
    ("Image-Restricted, No Outside Data", "V1-like/MKL", 0.7935, None),
    ("Image-Restricted, No Outside Data", "Fisher vector faces", 0.8747, 0.0149),
    ("Image-Restricted, No Outside Data", "Eigen-PEP", 0.8897, 0.0132),
    ("Image-Restricted, No Outside Data", "POP-PEP", 0.9110, 0.0147),
    ("Image-Restricted, No Outside Data", "MRF-Fusion-CSKDA", 0.9589, 0.0194),
    ("Unrestricted, Label-Free Outside Data", "ConvNet-RBM", 0.9175, None),
    ("Unrestricted, Label-Free Outside Data", "Fisher vector faces", 0.9303, None),
    ("Unrestricted, Label-Free Outside Data", "MDML-DCPs", 0.9558, None),
)
LFW_NOTE = (
    "The neighbours' figures are those of the benchmark's results page (Labeled Faces in the Wild, View 2, mean"
    " accuracy over ten folds). A net trained on LFW alone with identities belongs to the category Unrestricted, No"
    " Outside Data, in which that page lists no entry; the categories of the neighbours allow other things."
)
MEASURES = ("accuracy", "auc", "eer", "val_1e-2", "val_1e-3", "faces_seen")


class Spread(NamedTuple):
    """Mean and standard deviation (ddof = 1) of n values; None where there are too few."""

    mean: float | None
    std: float | None
    n: int

    @property
    def sem(self) -> float | None:
        """Standard error of the mean, std / sqrt(n)."""
        return None if self.std is None else self.std / float(np.sqrt(self.n))


class Setting(NamedTuple):
    """One row of a sweep: a setting, the seeds it was run with, and each measure over them."""

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


def sweeps(runs: Sequence[Run]) -> list[Sweep]:
    """Put the runs of tables 3, 5 and 6 together by table, scale and setting; the paper's rows without runs stay."""
    found = []
    for table, paper in PAPER.items():
        ours = [run for run in runs if run.kind == table]
        for scale in sorted({_scale(run) for run in ours}):
            kept, repeated = _latest(
                [run for run in ours if _scale(run) == scale],
                lambda run, key=paper.setting: (str(dig(run.metrics, "run", key)), _seed(run)),
            )
            found.append(Sweep(table, scale, _settings(paper, kept), repeated))
    return found


def view2(runs: Sequence[Run]) -> list[Folds]:
    """Put the folds of LFW View 2 together by net and seed: mean and SEM over those present, and which are missing."""
    ours = [run for run in runs if run.kind == "lfw_view2"]
    found = []
    for model, seed in sorted({(_text(dig(run.metrics, "run", "model")), _seed(run)) for run in ours}):
        mine = [run for run in ours if (_text(dig(run.metrics, "run", "model")), _seed(run)) == (model, seed)]
        kept, repeated = _latest(mine, lambda run: dig(run.metrics, "run", "fold"))
        accuracies = {}
        for run in kept:
            fold, accuracy = dig(run.metrics, "run", "fold"), number(dig(run.metrics, "verification", "accuracy"))
            if isinstance(fold, int) and accuracy is not None:
                accuracies[fold] = accuracy
        pairs = sum(int(number(dig(run.metrics, "verification", "pairs")) or 0) for run in kept)
        missing = [fold for fold in FOLDS if fold not in accuracies]
        values = [accuracies[fold] for fold in sorted(accuracies)]
        found.append(Folds(model, seed, dict(sorted(accuracies.items())), spread(values), missing, pairs, repeated))
    return found


def measures(run: Run) -> dict[str, float | None]:
    """Return what a sweep compares of one run; None where it was not measured or can not be resolved."""
    metrics = run.metrics
    found = {name: number(dig(metrics, "verification", name)) for name in ("accuracy", "auc", "eer")}
    for far in ("1e-2", "1e-3"):
        found[f"val_{far}"] = number(dig(metrics, "verification", "val_at_far", far, "val"))
    return {**found, "faces_seen": number(dig(metrics, "train", "faces_seen"))}


def numbers(found: Sequence[Sweep], folds: Sequence[Folds]) -> dict[str, Any]:
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
        value = dig(run.metrics, "run", paper.setting)
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


def _latest(runs: Sequence[Run], key: Any) -> tuple[list[Run], list[str]]:
    """Of runs with the same key keep the last given; name the others."""
    kept: dict[Any, Run] = {}
    repeated = []
    for run in runs:
        name = _hashable(key(run))
        if name in kept:
            repeated.append(kept[name].name)
        kept[name] = run
    return list(kept.values()), repeated


def _hashable(value: Any) -> Any:
    return value if isinstance(value, int | float | str | tuple | None) else _text(value)


def _scale(run: Run) -> str:
    return _text(dig(run.metrics, "run", "scale"))


def _seed(run: Run) -> int:
    return int(number(dig(run.metrics, "run", "seed")) or 0)


def _text(value: Any) -> str:
    return "unknown" if value is None else str(value)


def by_level(levels: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Sort the levels of a disturbance by their number, those that are none by name behind."""
    return sorted(levels.items(), key=lambda item: (_level(item[0]) is None, _level(item[0]) or 0.0, item[0]))


def _level(text: str) -> float | None:
    try:
        return number(float(text))
    except ValueError:
        return None
