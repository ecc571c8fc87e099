"""A set of any size into a gallery, batch by batch: memory holds one batch, and searches go on between two of them.

Letters: N items, n of a batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from facenet.errors import ConfigError, DataError, FacenetError, Taken
from facenet.gallery.editing import checked_texts
from facenet.gallery.items import AddResult, Item
from facenet.types import EmbeddingSet, Progress
from facenet.vectors import unit_rows

BATCH = 50_000  # items


class Adds(Protocol):
    """What is asked of a gallery, here or of a service."""

    def add(
        self,
        embeddings: EmbeddingSet,
        *,
        ids: Sequence[str] | None = None,
        metadata: Sequence[Mapping[str, Any]] | None = None,
        on_duplicate: str = "error",
    ) -> AddResult:
        """See :meth:`facenet.gallery.gallery.Gallery.add`."""

    def find(self, names: Sequence[str], *, by: str = "any") -> list[Item]:
        """See :meth:`facenet.gallery.gallery.Gallery.find`."""


def add_in_batches(
    gallery: Adds,
    embeddings: EmbeddingSet,
    *,
    ids: Sequence[str] | None = None,
    metadata: Sequence[Mapping[str, Any]] | None = None,
    on_duplicate: str = "error",
    batch: int = BATCH,
    progress: Progress | None = None,
) -> AddResult:
    """Add N items, `batch` of them in each transaction; up to `batch` items are one ``Gallery.add``.

    Everything is checked before the first transaction: vectors, texts and, with on_duplicate="error", that no id is
    given twice or there already. So an error in what is given changes nothing. What ends the process later leaves
    whole batches: the same call with on_duplicate="skip" adds the rest. An id that comes twice with "replace" counts as
    replaced if its items are in two batches. `progress` is called with (done, N).

    Raises:
        DataError, ConfigError: as ``Gallery.add``; after the first batch the message says how many items are there.
        ConfigError: `batch` < 1.
    """
    if batch < 1:
        raise ConfigError(f"batch: expected at least 1, got {batch}")
    names = embeddings.paths if ids is None else ids
    if len(embeddings) <= batch:
        return gallery.add(embeddings, ids=ids, metadata=metadata, on_duplicate=on_duplicate)
    if len(names) != len(embeddings) or (metadata is not None and len(metadata) != len(embeddings)):
        given = len(names) if metadata is None else len(metadata)
        raise DataError(f"embeddings: {given} ids or metadata for {len(embeddings)} vectors")
    parts = [slice(start, start + batch) for start in range(0, len(embeddings), batch)]
    for part in parts:
        _check(_part(embeddings, part), names[part], metadata and metadata[part])
    if on_duplicate == "error":
        _refuse_repeated(names)
        for part in parts:
            if known := gallery.find(list(names[part]), by="id"):
                raise Taken(
                    f"embeddings: {known[0].id!r}, perhaps more, is in the gallery already; nothing was added"
                    " (on_duplicate=skip or replace)"
                )
    results: list[AddResult] = []
    for part in parts:
        if progress:
            progress(part.start, len(embeddings))
        try:
            chosen, told = list(names[part]), metadata and metadata[part]
            items = _part(embeddings, part)
            results.append(gallery.add(items, ids=chosen, metadata=told, on_duplicate=on_duplicate))
        except FacenetError as error:
            if results:
                error.args = (f"{error}; the {part.start:,} items before are in (on_duplicate=skip adds the rest)",)
            raise
    if progress:
        progress(len(embeddings), len(embeddings))
    return AddResult(*(sum(counts) for counts in zip(*results, strict=True)))


def _part(embeddings: EmbeddingSet, part: slice) -> EmbeddingSet:
    return embeddings.subset(np.arange(part.start, min(part.stop, len(embeddings))))


def _check(items: EmbeddingSet, names: Sequence[str], metadata: Sequence[Mapping[str, Any]] | None) -> None:
    """Raise DataError for what no gallery takes."""
    unit_rows(items.vectors, "embeddings", names=items.paths)
    checked_texts(items, names, [{}] * len(items) if metadata is None else metadata)


def _refuse_repeated(names: Sequence[str]) -> None:
    """Raise Taken if an id comes twice; memory holds 8 bytes of each."""
    digests = (int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()) for name in names)
    sums = np.fromiter(digests, np.uint64, len(names))
    distinct, counts = np.unique(sums, return_counts=True)
    repeated = distinct[counts > 1]
    if not len(repeated):
        return
    seen: set[str] = set()  # of the few with equal digests, which may be other names
    for row in np.flatnonzero(np.isin(sums, repeated)).tolist():
        if names[row] in seen:
            raise Taken(f"embeddings: {names[row]!r} is given twice; nothing was added (on_duplicate=skip or replace)")
        seen.add(names[row])
