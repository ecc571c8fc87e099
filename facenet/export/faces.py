"""Faces for exported files: those that calibrate 8 bits, and those that every variant is scored on."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from facenet.data.cache import pack
from facenet.data.options import PairColumns
from facenet.data.pair_files import faces_of_file, refuse_missing
from facenet.data.pairs import COLUMNS
from facenet.data.preprocess import Preprocess
from facenet.data.records import Records
from facenet.data.sources.kinds import scan
from facenet.encoders.embedding import embed_records
from facenet.encoders.encoder import Encoder
from facenet.errors import DataError
from facenet.evaluation.verification import check_scorable, score_pairs, verify_pairs
from facenet.types import Pairs


def calibration_faces(
    preprocess: Preprocess, images: str | Path, count: int, *, last: Collection[str] = (), seed: int = 0
) -> Tensor:
    """Draw up to `count` faces from a folder or table, normalised (N, 3, H, W); those with keys in `last` come last.

    Raises:
        DataError: nothing that can be read.
    """
    records = scan(images)
    rows = np.random.default_rng([seed, 13]).permutation(len(records))
    named, keys = set(last), records.keys
    rows = np.array(sorted(rows, key=lambda row: keys[row] in named))  # stable: still drawn
    packed, _ = pack(records.subset(rows[:count]), preprocess)
    return torch.from_numpy(preprocess.normalise(packed))


def score_encoders(
    encoders: Mapping[str, Encoder], faces: Records, pairs: Pairs, *, allow_missing: bool = False
) -> dict[str, Any]:
    """Verify the pairs with every encoder: its metrics, and how it differs from the first.

    `accuracy_difference` is that of the accuracies. `verdicts_changed` counts the pairs whose verdict, at the
    threshold of the first (the mean over its folds), is not that of the first.

    Raises:
        DataError: pairs without an image, unless `allow_missing`.
    """
    found: dict[str, Any] = {}
    verdicts: dict[str, np.ndarray] = {}
    for name, encoder in encoders.items():
        embeddings, _ = embed_records(encoder, faces)
        scored = score_pairs(embeddings, pairs, allow_missing=allow_missing)
        found[name] = verify_pairs(scored.sq_dist, scored.pairs.same, scored.pairs.fold).metrics()
        found[name] |= {"skipped": scored.skipped, "duplicated": scored.duplicated}
        first = next(iter(found))
        verdicts[name] = scored.sq_dist <= found[first]["threshold"]
        found[name]["accuracy_difference"] = found[name]["accuracy"] - found[first]["accuracy"]
        found[name]["verdicts_changed"] = int((verdicts[name] != verdicts[first]).sum())
    return found


def faces_of_pairs(
    images: str | Path, pairs: str, columns: PairColumns = COLUMNS, *, allow_missing: bool = False
) -> tuple[Records, Pairs]:
    """Return the faces of a folder or table that a file of pairs names, and the pairs.

    Raises:
        DataError: a single picture, pairs that can not be scored, or as
            :func:`~facenet.data.pair_files.refuse_missing`.
    """
    path = Path(images)
    if path.is_file() and path.suffix.lower() != ".csv":
        raise DataError(f"{images}: one picture makes no pair; give a folder or a table of faces")
    kind = "csv" if path.is_file() else "folder"
    faces, named = faces_of_file(kind, str(images), pairs, columns, named="pair_columns")
    refuse_missing(faces, named, pairs, str(images), allow_missing=allow_missing)
    check_scorable(named)
    return faces, named
