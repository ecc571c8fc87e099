"""``clusters.csv``: a line for each face with its cluster, path and identity; written, and read for known faces.

Letters: N faces.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from facenet.errors import DataError
from facenet.files import atomic_write

COLUMNS = ["cluster", "path", "identity"]


def write_table(file: str | Path, labels: np.ndarray, paths: Sequence[str], identities: Sequence[str]) -> None:
    """Write N lines, sorted by cluster and path."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(sorted(zip(labels.tolist(), paths, identities, strict=True)))
    with atomic_write(Path(file)) as target:
        target.write(text.getvalue().encode())


def read_labels(file: str | Path, paths: Sequence[str]) -> np.ndarray:
    """Return the clusters (N,) int64 of the faces of these paths; further lines of the file are not looked at.

    Raises:
        DataError: no such file, other columns, a cluster that is no number, a path with two clusters or with none.
    """
    try:
        with Path(file).open(newline="", encoding="utf-8") as source:
            reader = csv.DictReader(source)
            if not {"cluster", "path"} <= set(reader.fieldnames or ()):
                raise DataError(f"{file}: expected the columns cluster and path; scripts/cluster.py writes such a file")
            lines = [(row["path"], row["cluster"]) for row in reader]
    except OSError as error:
        raise DataError(f"{file}: can not be read ({error.strerror}); scripts/cluster.py writes clusters.csv") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file}: not a table of clusters ({error})") from None
    found: dict[str, int] = {}
    for path, text in lines:
        if not re.fullmatch("[0-9]{1,18}", text or ""):
            raise DataError(f"{file}: cluster of {path}: expected a number of at least 0, got {(text or '')[:40]!r}")
        if found.setdefault(path, int(text)) != int(text):
            raise DataError(f"{file}: {path} is in clusters {found[path]} and {text}; cluster the known faces again")
    missing = [path for path in paths if path not in found]
    if missing:
        raise DataError(
            f"{file}: {len(missing)} of {len(paths)} known faces are not in it, the first {missing[0]};"
            " pass the embeddings that it was made from"
        )
    return np.asarray([found[path] for path in paths], np.int64)
