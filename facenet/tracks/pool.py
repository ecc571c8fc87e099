"""The folder of a trained TrackPool: ``track_pool.safetensors`` (weights) and ``track_pool.json`` (everything else)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from facenet.encoders.bundle import read_weights, write_weights
from facenet.encoders.encoder import Encoder
from facenet.errors import DataError, one_line
from facenet.files import read_sealed, sha256_file, write_sealed
from facenet.models.track_pool import TrackPool

SCHEMA = 1
WEIGHTS, RECORD = "track_pool.safetensors", "track_pool.json"


def write_track_pool(
    pool: TrackPool, folder: str | Path, encoder: Encoder, *, options: Mapping[str, Any], training: Mapping[str, Any]
) -> None:
    """Write the weights and, last, the record: options, D, the encoder's fingerprint.

    `options` are those of :class:`~facenet.models.track_pool.TrackPool` without `dim`; `training` is a summary.
    """
    folder = Path(folder)
    write_weights(pool, folder / WEIGHTS)
    record = {
        "schema": SCHEMA,
        "dim": encoder.dim,
        "options": dict(options),
        "encoder": encoder.fingerprint,
        "sha256": sha256_file(folder / WEIGHTS),
        "training": dict(training),
    }
    write_sealed(folder / RECORD, record)


def read_track_pool(folder: str | Path, encoder: Encoder) -> TrackPool:
    """Read a TrackPool in evaluation mode.

    Raises:
        DataError: a file is missing, damaged or of another kind, or the pool was trained over another encoder.
    """
    folder = Path(folder)
    record = read_sealed(folder / RECORD)
    weights = folder / WEIGHTS
    if record.get("schema") != SCHEMA:
        raise DataError(f"{folder}/{RECORD}: schema {record.get('schema')!r}, this version reads {SCHEMA}")
    if record.get("encoder") != encoder.fingerprint:
        raise DataError(
            f"{folder}: trained over encoder {str(record.get('encoder'))[:12]}, not over {encoder.fingerprint[:12]};"
            " run facenet tracks for this encoder"
        )
    if not weights.is_file() or record.get("sha256") != sha256_file(weights):
        raise DataError(f"{weights}: missing, or not the file that track_pool.json names; run facenet tracks again")
    try:
        pool = read_weights(lambda: TrackPool(record["dim"], **{"bounded": False, **record["options"]}), weights)
    except DataError:
        raise
    except Exception as error:  # wrong JSON types raise many kinds
        raise DataError(f"{folder}: damaged ({one_line(error)}); run facenet tracks again") from error
    if pool.dim != encoder.dim:
        raise DataError(f"{folder}: the pool has width {pool.dim}, the encoder {encoder.dim}; run facenet tracks again")
    return pool.eval().requires_grad_(False)  # without gradients a long stream builds no graph
