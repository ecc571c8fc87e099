"""What a gallery holds, what is wrong with it, and the space it takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from facenet.errors import DataError
from facenet.gallery.faiss.cache import Cache
from facenet.gallery.faiss.file import INDEX
from facenet.gallery.sql.database import TRUTH
from facenet.gallery.sql.truth import SCHEMA, Truth


def describe(truth: Truth, cache: Cache) -> dict[str, Any]:
    """Return what :meth:`facenet.gallery.gallery.Gallery.info` says."""
    with truth.reading():
        last, encoders = truth.writes.last(), truth.encoders.numbers()
        per_encoder = truth.encoders.counts()
        return {
            "schema": SCHEMA,
            "count": last.items,
            "identities": truth.writes.kept("people", truth.items.count_identities),
            "dim": truth.encoders.dim(),
            "fingerprint": truth.encoders.first(),
            "fingerprints": {name: per_encoder.get(number, 0) for name, number in encoders.items()},
            "generation": last.generation,
            **cache.info(),
            "bytes": file_sizes(truth.folder),
        }


def find_problems(truth: Truth, cache: Cache) -> list[str]:
    """Read everything and return what is wrong, one line each; [] for a sound gallery."""
    problems: list[str] = []
    try:
        with truth.reading():
            problems.extend(truth.problems())
            dim = truth.encoders.dim()
            problems += cache.problems(dim) if dim else []
    except DataError as error:
        problems.append(str(error))
    return problems


def compact(truth: Truth, cache: Cache) -> dict[str, int]:
    """Give the space of removed items back; see :meth:`facenet.gallery.gallery.Gallery.compact`."""
    before = sum(file_sizes(truth.folder).values())
    truth.compact()
    cache.forget()
    cache.save(force=True)
    return {"bytes_before": before, "bytes_after": sum(file_sizes(truth.folder).values())}


def file_sizes(folder: Path) -> dict[str, int]:
    """Return the bytes of the items and of the index; 0 for a missing file."""
    paths = {name: folder / name for name in (TRUTH, INDEX)}
    return {name: path.stat().st_size if path.is_file() else 0 for name, path in paths.items()}
