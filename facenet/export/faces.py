"""Faces for exported files: those that calibrate 8 bits, and those that every variant is scored on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from facenet.data.cache import pack
from facenet.data.options import DataOptions
from facenet.data.pairs import pair_rows
from facenet.data.preprocess import Preprocess
from facenet.data.records import Records
from facenet.data.reported import reported_faces
from facenet.data.sources.kinds import scan
from facenet.encoders.onnx_file import load_onnx
from facenet.errors import DataError
from facenet.evaluation.evaluate import evaluate
from facenet.types import Pairs


def calibration_faces(
    preprocess: Preprocess, images: str | Path, count: int, *, pairs: str | None = None, seed: int = 0
) -> Tensor:
    """Draw up to `count` faces from a folder or table, normalised (N, 3, H, W); those no pair names come first.

    Raises:
        DataError: nothing that can be read.
    """
    records = scan(images)
    rows = np.random.default_rng([seed, 13]).permutation(len(records))
    if pairs is not None:
        named = set(_reported(images, pairs)[0].keys)
        keys = records.keys
        rows = np.array(sorted(rows, key=lambda row: keys[row] in named))  # stable: still drawn
    packed, _ = pack(records.subset(rows[:count]), preprocess)
    return torch.from_numpy(preprocess.normalise(packed))


def score_files(
    files: Mapping[str, str | Path], images: str | Path, pairs: str, *, allow_missing: bool = False
) -> dict[str, Any]:
    """Verify the pairs with every exported file: its metrics, and `accuracy_difference` from the first.

    Raises:
        DataError: pairs without an image, unless `allow_missing`.
    """
    faces, named = _reported(images, pairs)
    found: dict[str, Any] = {}
    for name, file in files.items():
        found[name] = evaluate(load_onnx(file), faces, named, allow_missing=allow_missing)
        first = next(iter(found.values()))
        found[name]["accuracy_difference"] = found[name]["accuracy"] - first["accuracy"]
    return found


def check_pairs(images: str | Path, pairs: str, *, allow_missing: bool = False) -> None:
    """Refuse pairs that could not be scored on the images, before anything is exported.

    Raises:
        DataError: no image that the pairs name is there, or not each of them, unless `allow_missing`.
    """
    faces, named = _reported(images, pairs)
    missing = pair_rows(named, faces.keys)[2]
    if missing and (not allow_missing or not len(faces)):
        raise DataError(
            f"{pairs}: {len(missing)} images that its pairs name are not under {images} (first: {missing[0]}); give the"
            " images that the pairs are of" + ("" if not len(faces) else ", or allow_missing=true")
        )


def _reported(images: str | Path, pairs: str) -> tuple[Records, Pairs]:
    path = Path(images)
    if path.is_file() and path.suffix.lower() != ".csv":
        raise DataError(f"{images}: one picture makes no pair; give a folder or a table of faces")
    return reported_faces(DataOptions(kind="csv" if path.is_file() else "folder", root=str(images), pairs=pairs))
