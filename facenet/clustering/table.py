"""``clusters.csv``: a line for each face with its cluster, path and identity; written, and read for known faces.

Letters: N faces.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from facenet.errors import DataError
from facenet.files import read_csv, write_csv

COLUMNS = ["cluster", "path", "identity"]


def write_table(file: str | Path, labels: np.ndarray, paths: Sequence[str], identities: Sequence[str]) -> None:
    """Write N lines, sorted by cluster and path."""
    write_csv(file, COLUMNS, sorted(zip(labels.tolist(), paths, identities, strict=True)))


def read_labels(file: str | Path, paths: Sequence[str]) -> np.ndarray:
    """Return the clusters (N,) int64 of the faces of these paths; further lines of the file are not looked at.

    Raises:
        DataError: no such file, other columns, a cluster that is no number, a path with two clusters or with none.
    """
    found: dict[str, int] = {}
    for row in read_csv(file, ("cluster", "path"), remedy="scripts/cluster.py writes clusters.csv"):
        path, text = row["path"], row["cluster"]
        if not re.fullmatch("[0-9]{1,18}", text):
            raise DataError(f"{file}: cluster of {path}: expected a number of at least 0, got {text[:40]!r}")
        if found.setdefault(path, int(text)) != int(text):
            raise DataError(f"{file}: {path} is in clusters {found[path]} and {text}; cluster the known faces again")
    missing = [path for path in paths if path not in found]
    if missing:
        raise DataError(
            f"{file}: {len(missing)} of {len(paths)} known faces are not in it, the first {missing[0]};"
            " pass the embeddings that it was made from"
        )
    return np.asarray([found[path] for path in paths], np.int64)
