"""Rows of the collection of items: primary keys, tags and digests.

Letters: D embedding width.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from facenet.errors import DataError
from facenet.gallery.engines.milvus.connection import Row
from facenet.gallery.engines.milvus.schema import LONGEST
from facenet.gallery.engines.tags import tag_of, tags_of
from facenet.gallery.items import Item, Texts, digest

TEXTS = ("id", "identity", "path", "root", "metadata")


def row_of(texts: Texts, vector: np.ndarray, encoder: int, fingerprint: str, place: str | Path) -> Row:
    """Return the row of an item with its unit vector (D,).

    Raises:
        DataError: a text that is longer than Milvus holds; `place` begins the message.
    """
    if max(len(text.encode()) for text in texts) > LONGEST:
        raise DataError(f"{place}: {texts[0][:40]!r}: Milvus holds texts of at most {LONGEST:,} bytes; shorten them")
    name, identity, path, _, metadata = texts
    fields = {**json.loads(metadata), "id": name, "identity": identity, "path": path}
    return {
        "number": number_of(name),
        **dict(zip(TEXTS, texts, strict=True)),
        "person": person_of(identity),
        "tags": tags_of(fields),
        "encoder": encoder,
        "digest": digest((*texts, fingerprint), vector.astype("<f4").tobytes()).hex(),
        "vector": vector.astype(np.float32),
    }


def texts_of(row: Row) -> Texts:
    """Return the text columns of a row."""
    name, identity, path, root, metadata = (row[column] for column in TEXTS)
    return name, identity, path, root, metadata


def renamed(
    rows: Sequence[Row], items: Sequence[tuple[Item, np.ndarray]], identity: str, place: str | Path
) -> list[Row]:
    """Return the rows of items, which are given with their vectors, under another identity."""
    found = []
    for row, (item, vector) in zip(rows, items, strict=True):
        name, _, path, root, metadata = texts_of(row)
        found.append(row_of((name, identity, path, root, metadata), vector, row["encoder"], item.fingerprint, place))
    return found


def number_of(name: str) -> int:
    """Return the primary key of an id: 62 bits of its digest; among a million ids two are equal once in 10 million."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()) >> 2


def person_of(identity: str) -> int:
    """Return the number by which the faces of a person are found."""
    return tag_of("identity", identity)
