"""The files of a run beside its ``metrics.json``: scored faces and pairs, curves, the encoder's record, clusters.

Every part is optional, and None or empty if it is missing. A damaged part is an error.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from facenet.errors import DataError
from facenet.files import read_array, read_csv, read_sealed
from facenet.report.runs import Run
from facenet.report.values import parse_number
from facenet.types import EmbeddingSet, image_key

TRUE, FALSE = {"1", "true", "yes", "same"}, {"0", "false", "no", "different"}


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


def read_evaluation(run: Run) -> Evaluation | None:
    """Read the reported faces and the scored pairs of a run; None if it kept none.

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
    """Read ``logs/metrics.csv``: {name: (steps (M,), values (M,))}, without cells that hold no finite number."""
    path = run.part("logs/metrics.csv")
    if path is None:
        return {}
    points: dict[str, list[tuple[float, float]]] = {}
    for row in _rows(path):
        step = parse_number(row.get("step"))
        for name, text in row.items():
            value = parse_number(text)
            if step is not None and value is not None and name not in ("step", "epoch"):
                points.setdefault(str(name), []).append((step, value))
    columns = {name: np.asarray(sorted(values), np.float64) for name, values in points.items()}
    return {name: (values[:, 0], values[:, 1]) for name, values in columns.items()}


def read_encoder(run: Run) -> dict[str, Any] | None:
    """Read ``encoder/encoder.json`` (the record, not the weights); None if the run has no encoder."""
    folder = run.part("encoder")
    return read_sealed(folder / "encoder.json") if folder is not None else None


def read_clusters(run: Run) -> list[tuple[str, str]] | None:
    """Read ``clusters.csv``: (cluster, identity) of each face; None if there is no such file."""
    path = run.part("clusters.csv")
    return None if path is None else [(row.get("cluster") or "", row.get("identity") or "") for row in _rows(path)]


def _read_pairs(path: Path, keys: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the rows of both faces (P, 2), same (P,), fold (P,) and sq_dist (P,)."""
    row_of = {key: row for row, key in enumerate(keys)}
    rows: list[tuple[int, int]] = []
    same, fold, distances = [], [], []
    for line, row in enumerate(_rows(path, ("first", "second", "same", "fold", "sq_dist")), 2):
        ends = tuple(row_of.get(row[side], row_of.get(_key(row[side]), -1)) for side in ("first", "second"))
        word, distance = row["same"].strip().lower(), parse_number(row["sq_dist"])
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
        raise DataError(
            f"{path}: expected uint8 ({count}, S, S, 3), got {images.dtype} {images.shape}; run the verification again"
        )
    return np.asarray(images)


def _rows(path: Path, needed: Sequence[str] = ()) -> list[dict[str, str]]:
    return read_csv(path, needed, remedy="run the command that wrote it again")
