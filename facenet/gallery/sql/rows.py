"""The rows of a gallery's tables: items as text columns and bytes, their digests, and errors of SQLite in one line."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from facenet.errors import ConfigError, DataError
from facenet.files import is_inside
from facenet.gallery.sql.truth import TRUTH, digest
from facenet.types import EmbeddingSet

COLUMNS = ("id", "identity", "path")  # what a filter finds in columns; everything else is metadata


def text_rows(
    embeddings: EmbeddingSet,
    ids: Sequence[str],
    metadata: Sequence[Mapping[str, Any]] | None,
    vectors: np.ndarray,
) -> list[tuple[str, str, str, str, str]]:
    """The text columns of N items, checked: (id, identity, path, root, metadata as JSON)."""
    extra = [{}] * len(vectors) if metadata is None else metadata
    if len(ids) != len(vectors) or len(extra) != len(vectors):
        raise DataError(f"embeddings: {len(ids)} ids and {len(extra)} metadata for {len(vectors)} vectors")
    rows = []
    for name, identity, path, more in zip(ids, embeddings.identities, embeddings.paths, extra, strict=True):
        try:
            row = (name, identity, path, embeddings.root, json.dumps(dict(more), sort_keys=True, allow_nan=False))
            "".join(row).encode()
        except (TypeError, ValueError) as error:
            raise DataError(f"embeddings: {name!r} has no storable id, identity, path or metadata ({error})") from error
        if path and not is_inside(path):
            raise DataError(f"embeddings: the path {path[:80]!r} leads outside its root; use paths below it")
        if not name:
            raise DataError(f"embeddings: an empty id (path {path!r}); every item needs one")
        rows.append(row)
    return rows


def with_vectors(
    rows: Sequence[tuple[str, ...]], encoder: int, fingerprint: str, vectors: np.ndarray, keep: Iterable[int]
) -> Iterator[tuple[Any, ...]]:
    """Complete the rows `keep` of the table: encoder's number, vector (D float32) and digest."""
    for i in keep:
        vector = vectors[i].astype("<f4", copy=False).tobytes()
        yield (*rows[i], encoder, vector, digest((*rows[i], fingerprint), vector))


def distinct(ids: Sequence[str], on_duplicate: str) -> list[int]:
    """Positions that stay when an id comes twice, in order: the first, with "replace" the last; "error" raises."""
    place: dict[str, int] = {}
    repeated: dict[str, None] = {}
    for i, name in enumerate(ids):
        if name in place:
            repeated[name] = None
        if name not in place or on_duplicate == "replace":
            place[name] = i
    if repeated and on_duplicate == "error":
        raise DataError(
            f"embeddings: {named(list(repeated))} given twice; nothing was added (on_duplicate=skip or replace)"
        )
    return sorted(place.values())


def first_of_each(keys: Sequence[object]) -> list[int]:
    """Positions at which a key appears for the first time."""
    first: dict[object, int] = {}
    for i, key in enumerate(keys):
        first.setdefault(key, i)
    return list(first.values())


def named(names: Sequence[str], most: int = 3) -> str:
    """Say some names and the right form of "to be"."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more + (" is" if len(names) == 1 else " are")


def check_width(dim: int | None, width: int | None) -> None:
    """Raise DataError where vectors of width `dim` do not fit a gallery of `width`; None is unknown."""
    if dim is not None and dim < 1:
        raise DataError(f"dim: expected at least 1, got {dim}")
    if dim and width and dim != width:
        raise DataError(f"embeddings: expected width {width}, as the gallery has, got {dim}; embed again")


@contextlib.contextmanager
def told(folder: Path, timeout: float) -> Iterator[None]:
    """Turn SQLite's errors into one line that says what to do."""
    try:
        yield
    except sqlite3.Error as error:
        text, path = str(error), folder / TRUTH
        if "locked" in text or "busy" in text:
            what = f"another process is writing (waited {timeout:g} s); try again"
        elif "readonly" in text or "unable to open" in text:
            what = f"can not be opened or written ({text}); choose a folder you may write to"
        elif "full" in text or "disk I/O" in text:
            what = f"writing failed ({text}), nothing was changed; free some space"
        elif isinstance(error, sqlite3.ProgrammingError):
            raise
        else:
            what = f"not a gallery, or damaged ({text}); restore it from a backup or index the embeddings again"
        raise DataError(f"{path}: {what}") from error


def condition(where: Mapping[str, Any]) -> tuple[str, list[Any]]:
    """SQL and values for "every key equals its value"; keys are `COLUMNS` or names in the metadata.

    A list of values means any of them, None that the key is absent or null.

    Raises:
        ConfigError: a value that is no text, number or truth value, or a key with a quotation mark.
    """
    if not isinstance(where, Mapping):
        raise ConfigError(f"where: expected names and values as in {{camera: 2}}, got {where!r}")
    parts, values = [], []
    for key, value in where.items():
        if not isinstance(key, str) or '"' in key or not key:
            raise ConfigError(f"where: {key!r} is no name of a metadata field")
        choices = list(value) if isinstance(value, list | tuple) else [value]
        if any(not isinstance(choice, str | int | float | None) for choice in choices) or not choices:
            raise ConfigError(f"where.{key}: expected text, a number, true or false, or a list of them, got {value!r}")
        column = key if key in COLUMNS else "json_extract(metadata, ?)"
        path = [] if key in COLUMNS else [f'$."{key}"']
        parts.append(" OR ".join(f"{column} IS ?" for _ in choices))
        values += [item for choice in choices for item in (*path, choice)]
    return " AND ".join(f"({part})" for part in parts) or "1", values
