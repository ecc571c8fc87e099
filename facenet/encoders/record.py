"""``encoder.json``: everything about an encoder but its weights.

The file is sealed by a SHA-256 over its content, so a record that was changed or damaged is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from facenet.encoders.encoder import Encoder
from facenet.errors import DataError, one_line
from facenet.files import read_sealed, write_sealed

SCHEMA = 1
FILE = "encoder.json"


class Notes(NamedTuple):
    """What a record says beside network and preprocessing, which the fingerprint does not cover."""

    thresholds: dict[float, float]
    compatible_with: list[str]
    training: dict[str, Any]
    with_older: dict[str, dict[float, float]]
    calibration: dict[str, Any]


def record_of(encoder: Encoder) -> dict[str, Any]:
    """Return everything about an encoder but its weights, as plain values for JSON."""
    return {
        "schema": SCHEMA,
        "model": {"name": encoder.name, "options": encoder.options},
        "embedding_dim": encoder.dim,
        "preprocessing": encoder.preprocess.to_dict(),
        "fingerprint": encoder.fingerprint,
        "thresholds": _plain(encoder.thresholds),
        "compatible_with": list(encoder.compatible_with),
        "training": encoder.training,
        "with_older": {name: _plain(thresholds) for name, thresholds in encoder.with_older.items()},
        "calibration": encoder.calibration,
    }


def _plain(thresholds: Mapping[float, float]) -> dict[str, float]:
    """Return thresholds by the text of their rate."""
    return {f"{far:g}": sq_dist for far, sq_dist in sorted(thresholds.items())}


def write_record(encoder: Encoder, folder: str | Path) -> None:
    """Write ``encoder.json`` alone (after calibration, for instance); the weights stay as they are."""
    write_sealed(Path(folder) / FILE, record_of(encoder))


def notes_of(record: Mapping[str, Any]) -> Notes:
    """Return the checked thresholds, with those to older encoders, compatible encoders, training and calibration.

    Raises:
        ValueError, KeyError, TypeError, AttributeError, OverflowError: one of them is missing or of another kind.
    """
    thresholds = _thresholds(record["thresholds"])
    known, training = record["compatible_with"], record["training"]
    if not isinstance(known, list) or not all(isinstance(item, str) for item in known):
        raise ValueError("expected a list of fingerprints as compatible_with")
    if not isinstance(training, dict):
        raise ValueError("expected a summary of the training")
    older, calibration = record.get("with_older", {}), record.get("calibration", {})
    with_older = {str(name): _thresholds(found) for name, found in older.items()}
    return Notes(thresholds, list(known), dict(training), with_older, dict(calibration))


def _thresholds(content: Mapping[str, Any]) -> dict[float, float]:
    """Return checked thresholds {far: sq_dist}; raises as :func:`notes_of`."""
    thresholds = {float(far): float(sq_dist) for far, sq_dist in content.items()}
    if not all(0 < far <= 1 and 0 <= sq_dist <= 4 for far, sq_dist in thresholds.items()):
        raise ValueError("expected thresholds {far in (0, 1]: sq_dist in [0, 4]}")
    return thresholds


def apply_record(encoder: Encoder, folder: str | Path) -> Encoder:
    """Give a pretrained encoder the thresholds and compatible encoders that a folder's record keeps for it.

    Raises:
        DataError: the record is damaged, or that of another encoder.
    """
    record = read_sealed(Path(folder) / FILE)
    if record.get("schema") != SCHEMA or record.get("fingerprint") != encoder.fingerprint:
        raise DataError(f"{folder}: not a record of {encoder.name} as it is here; calibrate it again")
    try:
        notes = notes_of(record)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DataError(f"{folder}/{FILE}: damaged ({one_line(error)}); calibrate it again") from error
    encoder.thresholds, encoder.compatible_with = notes.thresholds, notes.compatible_with
    encoder.with_older, encoder.calibration = notes.with_older, notes.calibration
    return encoder
