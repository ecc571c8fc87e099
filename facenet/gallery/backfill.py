"""New vectors in the place of old ones: a gallery follows an upgrade batch by batch, and can be searched meanwhile.

A batch is one write. Each item's encoder says whether it is done: a backfill that was killed goes on if it is started
again.

Letters: N images, D embedding width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from facenet.errors import ConfigError, DataError
from facenet.gallery.engines.engine import Engine
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
    engine: Engine,
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
    with engine.reading():
        engine.check(own, listed)
        known = engine.encoders()
        old = [known[name] for name in listed if name in known and name != own]
        total, roots = engine.count_old(old)
    done = replaced = last = encoder = 0
    while True:
        with engine.writing():
            items = engine.old_items(old, last, batch, numbers)
            found = []
            for number, texts in items:
                name, _, path, root, _ = texts
                row = row_of_image(path, name, rows) if roots <= 1 or root == embeddings.root else None
                if row is not None:
                    found.append(((number, texts), row))
            if found and encoder:
                given, chosen = zip(*found, strict=True)
                engine.exchange(given, vectors[list(chosen)], encoder, own)
        if found and not encoder:  # recorded with the first image that is found, before its item is locked
            with engine.writing():
                encoder = engine.admit(own, listed, embeddings.dim)
            continue
        if not items:
            break
        done, replaced, last = done + len(items), replaced + len(found), items[-1][0]
        if progress is not None:
            progress(done, max(total, done))
    return _result(engine, own, old, replaced, whole=numbers is None)


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


def _result(engine: Engine, fingerprint: str, old: Sequence[int], replaced: int, *, whole: bool) -> BackfillResult:
    with engine.reading():
        number = engine.encoders().get(fingerprint, 0)
        per_encoder = engine.counts()
    current, missing = per_encoder.get(number, 0), sum(per_encoder.get(one, 0) for one in old)
    if whole and missing and not current:
        raise DataError(
            f"{engine.place}: the embeddings hold none of the images of its {missing} items; embed the folder that "
            "the gallery was made from"
        )
    return BackfillResult(replaced, missing, current, sum(per_encoder.values()) - current - missing)
