"""New vectors in the place of old ones: a gallery follows an upgrade batch by batch, and can be searched meanwhile.

A batch is one transaction. The items with their old vectors go, and the same items with new vectors come. They get new
numbers, because the index knows vectors by number. Each item's encoder says whether it is done: a backfill that was
killed goes on if it is started again.

Letters: N images, D embedding width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from facenet.errors import ConfigError, DataError
from facenet.gallery.sql.items import Texts
from facenet.gallery.sql.truth import Truth
from facenet.gallery.sql.writes import Write
from facenet.types import EmbeddingSet, Progress, image_key
from facenet.vectors import unit_rows

BATCH = 1000  # items of a transaction


class BackfillResult(NamedTuple):
    """What one backfill did and left, in items."""

    replaced: int
    missing: int  # of an old encoder still, because their image is not among the embeddings
    current: int  # of the new encoder, those of earlier runs included
    other: int  # of encoders that the new one is not compatible with; they stay


def backfill_items(
    truth: Truth,
    embeddings: EmbeddingSet,
    batch: int,
    progress: Progress | None,
    numbers: Sequence[int] | None = None,
) -> BackfillResult:
    """Replace the vectors of old encoders; see :meth:`facenet.gallery.gallery.Gallery.backfill`."""
    if batch < 1:
        raise ConfigError(f"batch: expected at least 1, got {batch}")
    vectors = unit_rows(embeddings.vectors, "embeddings", names=embeddings.paths)
    rows = embeddings.rows_by_key("embeddings")
    own, listed = embeddings.fingerprint, embeddings.compatible_with
    with truth.reading():
        truth.encoders.check(own, listed)
        known = truth.encoders.numbers()
        old = [known[name] for name in listed if name in known and name != own]
        total, roots = truth.items.count_of(old)
    done = replaced = last = 0
    while True:
        with truth.writing() as before:
            items = truth.items.texts_of(old, last, batch, numbers)
            found = []
            for number, texts in items:
                name, _, path, root, _ = texts
                row = row_of_image(path, name, rows) if roots <= 1 or root == embeddings.root else None
                if row is not None:
                    found.append(((number, texts), row))
            if found:
                _exchange(truth, found, embeddings, vectors, before)
        if not items:
            break
        done, replaced, last = done + len(items), replaced + len(found), items[-1][0]
        if progress is not None:
            progress(done, max(total, done))
    return _result(truth, own, old, replaced, whole=numbers is None)


def row_of_image(path: str, name: str, rows: Mapping[str, int]) -> int | None:
    """Return the row of an item's image, found by the item's path or else by its id; None if there is none."""
    for text in (path, name):
        try:
            row = rows.get(image_key(text))
        except ValueError:  # no path
            continue
        if row is not None:
            return row
    return None


def _exchange(
    truth: Truth,
    found: Sequence[tuple[tuple[int, Texts], int]],
    embeddings: EmbeddingSet,
    vectors: np.ndarray,
    before: Write,
) -> None:
    """Put rows of `vectors` (N, D) in the place of the items that they belong to, inside a write."""
    encoder = truth.encoders.admit(embeddings.fingerprint, embeddings.compatible_with, embeddings.dim)
    truth.items.remove([number for (number, _), _ in found], before.generation + 1)
    truth.items.add(((texts, vectors[row]) for (_, texts), row in found), encoder, embeddings.fingerprint)
    truth.writes.record(before, 0)


def _result(truth: Truth, fingerprint: str, old: Sequence[int], replaced: int, *, whole: bool) -> BackfillResult:
    with truth.reading():
        number = truth.encoders.numbers().get(fingerprint, 0)
        per_encoder = truth.encoders.counts()
    current, missing = per_encoder.get(number, 0), sum(per_encoder.get(one, 0) for one in old)
    if whole and missing and not current:
        raise DataError(
            f"{truth.folder}: the embeddings hold none of the images of its {missing} items; embed the folder that "
            "the gallery was made from"
        )
    return BackfillResult(replaced, missing, current, sum(per_encoder.values()) - current - missing)
