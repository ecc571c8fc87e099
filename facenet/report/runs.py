"""What a report reads: run folders, told apart by what their ``metrics.json`` holds, and the files beside it.

Every part but ``metrics.json`` is optional and None where it is missing; a part that is there but broken is an error.
Numbers are read through :func:`number`, so null, NaN and text never reach arithmetic.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from facenet.errors import ConfigError, DataError
from facenet.files import read_array, read_csv, read_json, read_sealed
from facenet.types import EmbeddingSet, image_key

SWEEPS = ("table3", "table5", "table6", "lfw_view2")
DEPTH = 3  # how far below a given folder the runs of a sweep may lie
COMMANDS = "scripts/train.py, verify.py, degrade.py, cluster.py or compat.py"
TRUE, FALSE = {"1", "true", "yes", "same"}, {"0", "false", "no", "different"}


@dataclass(frozen=True)
class Run:
    """One run folder: its metrics, and where its parts lie."""

    folder: Path
    name: str
    kind: str  # "verification", "degrade", "cluster", "compat" or one of SWEEPS
    metrics: dict[str, Any]
    given: bool = True  # named by the user; False for a run found inside a sweep's folder

    def part(self, name: str) -> Path | None:
        """Return where a part lies: in the folder, or in the ``verify`` or ``train`` run inside it (quick start)."""
        places = (self.folder / name, self.folder / "verify" / name, self.folder / "train" / name)
        return next((place for place in places if place.exists()), None)


@dataclass(frozen=True)
class Evaluation:
    """The ``evaluation/`` folder: N reported faces, and P scored pairs by the rows of their faces."""

    embeddings: EmbeddingSet
    first: np.ndarray  # (P,) int64 rows of the embeddings
    second: np.ndarray  # (P,) int64
    same: np.ndarray  # (P,) bool
    fold: np.ndarray  # (P,) int64
    sq_dist: np.ndarray  # (P,) float64
    thumbnails: np.ndarray | None  # (N, S, S, 3) uint8, for faces without files


@dataclass(frozen=True)
class Found:
    """The runs of all given folders, and what was passed over on the way."""

    runs: list[Run]
    unfinished: list[str]  # jobs of a sweep without metrics.json
    foreign: list[str]  # runs that hold nothing a report shows


def number(value: Any) -> float | None:
    """Return a finite number as a float; None for null, NaN, infinity, text, truth values and what a float can't hold.

    >>> number(3), number(float("nan")), number("3"), number(10**400)
    (3.0, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        value = float(value)
    except OverflowError:
        return None
    return value if math.isfinite(value) else None


def dig(metrics: Any, *keys: str) -> Any:
    """Return ``metrics[key][key]...``, or None where a key is missing or something on the way is no mapping.

    >>> dig({"a": {"b": 1}}, "a", "b"), dig({"a": None}, "a", "b")
    (1, None)
    """
    for key in keys:
        if not isinstance(metrics, Mapping) or key not in metrics:
            return None
        metrics = metrics[key]
    return metrics


def find_runs(folders: Sequence[str | Path]) -> Found:
    """Read the metrics of run folders, and of the runs inside folders of sweeps.

    Raises:
        DataError: no folder, a folder that is no run and holds none, broken JSON, or a run a report can not show.
    """
    runs: list[Run] = []
    unfinished: list[str] = []
    foreign: list[str] = []
    if not folders:
        raise ConfigError("report: expected at least one run folder, got none; pass runs=DIR")
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise DataError(f"{folder}: no such run folder; pass the folder of a run of {COMMANDS}")
        if (folder / "metrics.json").is_file():
            runs.append(_run(folder, folder.resolve().name))
            continue
        inside, jobs, others = _inside(folder)
        if not inside:
            raise DataError(
                f"{folder}: not a run folder: neither it nor a folder in it holds a metrics.json that a report shows;"
                f" pass the folder of a finished run of {COMMANDS}, or of a sweep"
            )
        runs, unfinished, foreign = runs + inside, unfinished + jobs, foreign + others
    return Found(runs, unfinished, foreign)


def kind_of(metrics: Mapping[str, Any]) -> str | None:
    """Tell what a run measured from what its metrics hold; None for what a report has nothing to say about."""
    table = dig(metrics, "run", "table")
    if isinstance(table, str) and table in SWEEPS:
        return table
    for kind in ("degrade", "verification"):
        if isinstance(metrics.get(kind), Mapping):
            return kind
    if all(isinstance(metrics.get(part), Mapping) for part in ("cells", "yardsticks")):
        return "compat"
    return "cluster" if {"faces", "clusters", "threshold"} <= set(metrics) else None


def read_evaluation(run: Run) -> Evaluation | None:
    """Read the reported faces and the scored pairs of a run; None where it kept none.

    Raises:
        DataError: broken files, or pairs of faces that are not among the embeddings.
    """
    folder = run.part("evaluation")
    if folder is None:
        return None
    embeddings = EmbeddingSet.load(folder)
    sums = read_sealed(folder / "meta.json").get("sha256", {})
    for name in ("pairs.csv", "thumbnails.npy"):
        if (folder / name).is_file() and name not in sums:
            raise DataError(f"{folder / name}: meta.json does not know its SHA-256; run the verification again")
    ends, same, fold, distances = _read_pairs(folder / "pairs.csv", embeddings.keys)
    thumbnails = _read_thumbnails(folder / "thumbnails.npy", len(embeddings))
    return Evaluation(embeddings, ends[:, 0], ends[:, 1], same, fold, distances, thumbnails)


def read_curves(run: Run) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Read ``logs/metrics.csv``: {name: (steps (M,), values (M,))}, cells that hold no finite number left out."""
    path = run.part("logs/metrics.csv")
    if path is None:
        return {}
    points: dict[str, list[tuple[float, float]]] = {}
    for row in _rows(path):
        step = _cell(row.get("step"))
        for name, text in row.items():
            value = _cell(text)
            if step is not None and value is not None and name not in ("step", "epoch"):
                points.setdefault(str(name), []).append((step, value))
    columns = {name: np.asarray(sorted(values), np.float64) for name, values in points.items()}
    return {name: (values[:, 0], values[:, 1]) for name, values in columns.items()}


def read_encoder(run: Run) -> dict[str, Any] | None:
    """Read ``encoder/encoder.json`` (the record, not the weights); None where the run has no encoder."""
    folder = run.part("encoder")
    return read_sealed(folder / "encoder.json") if folder is not None else None


def read_clusters(run: Run) -> list[tuple[str, str]] | None:
    """Read ``clusters.csv``: (cluster, identity) of each face; None where there is no such file."""
    path = run.part("clusters.csv")
    return None if path is None else [(row.get("cluster") or "", row.get("identity") or "") for row in _rows(path)]


def _run(folder: Path, name: str, *, given: bool = True) -> Run:
    metrics = read_json(folder / "metrics.json")
    kind = kind_of(metrics)
    if kind is None:
        raise DataError(
            f"{folder}/metrics.json: nothing a report shows (it holds {', '.join(sorted(metrics)[:6]) or 'nothing'});"
            f" pass a run of {COMMANDS}"
        )
    return Run(folder, name, kind, metrics, given)


def _inside(folder: Path) -> tuple[list[Run], list[str], list[str]]:
    """Return the runs below a folder, the jobs that did not finish, and the runs that are of another kind."""
    runs, unfinished, foreign = [], [], []
    level = [folder]
    for _ in range(DEPTH):
        level = [place for parent in level for place in sorted(parent.iterdir(), key=_natural) if place.is_dir()]
        for place in level:
            name = place.relative_to(folder).as_posix()
            if (place / "metrics.json").is_file():
                found = kind_of(read_json(place / "metrics.json")) is not None
                runs += [_run(place, f"{folder.resolve().name}/{name}", given=False)] if found else []
                foreign += [] if found else [name]
            elif (place / ".hydra").is_dir():
                unfinished.append(name)
        level = [place for place in level if not (place / "metrics.json").is_file()]
    return runs, unfinished, foreign


def _natural(path: Path) -> tuple[int, int, str]:
    """Order jobs by their number: 2 before 10."""
    return (0, int(path.name), "") if path.name.isascii() and path.name.isdigit() else (1, 0, path.name)


def _read_pairs(path: Path, keys: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the rows of both faces (P, 2), same (P,), fold (P,) and sq_dist (P,)."""
    row_of = {key: row for row, key in enumerate(keys)}
    rows: list[tuple[int, int]] = []
    same, fold, distances = [], [], []
    for line, row in enumerate(_rows(path, ("first", "second", "same", "fold", "sq_dist")), 2):
        ends = tuple(row_of.get(row[side], row_of.get(_key(row[side]), -1)) for side in ("first", "second"))
        word, distance = row["same"].strip().lower(), _cell(row["sq_dist"])
        if (
            min(ends) < 0
            or word not in TRUE | FALSE
            or distance is None
            or not re.fullmatch("[0-9]{1,18}", row["fold"])
        ):
            shown = ",".join(row.values())[:120]
            raise DataError(
                f"{path}, line {line}: expected two embedded images, same as 1 or 0, a fold and a distance,"
                f" got {shown!r}; run the verification again"
            )
        rows.append((ends[0], ends[1]))
        same.append(word in TRUE)
        fold.append(int(row["fold"]))
        distances.append(distance)
    faces = np.asarray(rows, np.int64).reshape(-1, 2)
    return faces, np.asarray(same, bool), np.asarray(fold, np.int64), np.asarray(distances, np.float64)


def _key(text: str) -> str:
    try:
        return image_key(text)
    except ValueError:  # no name at all
        return ""


def _read_thumbnails(path: Path, count: int) -> np.ndarray | None:
    if not path.is_file():
        return None
    images = read_array(path)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[0] != count or images.shape[3] != 3:
        raise DataError(f"{path}: expected uint8 ({count}, S, S, 3), got {images.dtype} {images.shape}; run it again")
    return np.asarray(images)


def _rows(path: Path, needed: Sequence[str] = ()) -> list[dict[str, str]]:
    return read_csv(path, needed, remedy="run the command that wrote it again")


def _cell(text: str | None) -> float | None:
    try:
        return number(float(text)) if text else None
    except ValueError:
        return None
