"""A gallery's items into another one: from a folder to a database, between databases, or back.

What was interrupted goes on: items that are there already are not sent again. At the end both are read, and compared by
number and digest. The recipe of the index stays behind, since engines have other kinds.

Letters: n items of a block.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from facenet.errors import DataError
from facenet.gallery.editing import metadata_text
from facenet.gallery.gallery import Gallery
from facenet.gallery.items import Item, digest
from facenet.types import EmbeddingSet, Progress


class CopyResult(NamedTuple):
    """What one copy did, in items."""

    copied: int
    there: int  # already, from an earlier run
    digest: str  # of all items, the same in both galleries


def copy_items(source: Gallery, target: Gallery, *, progress: Progress | None = None) -> CopyResult:
    """Add the items of `source` to `target`, which must hold nothing else; `progress` is called with (done, total).

    Ids, identities, paths, roots, metadata, vectors and their encoders stay; items get new numbers.

    Raises:
        DataError: `target` is of an encoder that is not one of the source's, or holds other items at the end.
    """
    total, copied, done = len(source), 0, 0
    encoders = [name for name, count in source.info()["fingerprints"].items() if count]
    with target._engine.writing():  # in the order of the source: the first is the one that the gallery belongs to
        for name in encoders:
            target._engine.admit(name, encoders, source.dim)
    for items, vectors in source.blocks():
        known = {item.id for item in target.find([item.id for item in items], by="id")}
        fresh = [place for place, item in enumerate(items) if item.id not in known]
        for part in _alike(items, fresh):
            given = _as_embeddings([items[i] for i in part], vectors[part])
            given = replace(given, compatible_with=tuple(name for name in encoders if name != given.fingerprint))
            ids, metadata = [items[i].id for i in part], [items[i].metadata for i in part]
            copied += target.add(given, ids=ids, metadata=metadata, on_duplicate="skip").added
        done += len(items)
        if progress is not None:
            progress(done, total)
    sums = [content_digest(gallery) for gallery in (source, target)]
    if sums[0] != sums[1]:
        raise DataError(
            f"{target.folder}: {sums[1][0]} items of digest {sums[1][1]}, where {source.folder} has {sums[0][0]} of "
            f"{sums[0][1]}; if the source changed meanwhile copy again, else copy into an empty gallery"
        )
    return CopyResult(copied, total - copied, sums[0][1])


def _alike(items: Sequence[Item], places: Sequence[int]) -> Iterator[list[int]]:
    """Yield places of items that have encoder and root in common."""

    def kind(place: int) -> tuple[str, str]:
        return items[place].fingerprint, items[place].root

    for _, part in itertools.groupby(sorted(places, key=kind), kind):
        yield list(part)


def _as_embeddings(items: Sequence[Item], vectors: np.ndarray) -> EmbeddingSet:
    paths, identities = [item.path for item in items], [item.identity for item in items]
    return EmbeddingSet(vectors, paths, identities, items[0].fingerprint, items[0].root)


def content_digest(gallery: Gallery) -> tuple[int, str]:
    """Return how many items a gallery has, and a digest of them in any order: the sum of theirs, without numbers."""
    count = total = 0
    for items, vectors in gallery.blocks():
        for item, vector in zip(items, vectors, strict=True):
            texts = (item.id, item.identity, item.path, item.root, metadata_text(item.metadata), item.fingerprint)
            sealed = digest(texts, vector.astype("<f4").tobytes())
            total += int.from_bytes(hashlib.blake2b(sealed, digest_size=16).digest())
        count += len(items)
    return count, f"{total % (1 << 128):032x}"
