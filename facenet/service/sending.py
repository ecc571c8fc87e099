"""Vectors on their way to a service, in requests that it takes: what :mod:`.client` adds and backfills.

Letters: N items, D embedding width.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from facenet.errors import ConfigError, DataError, Taken
from facenet.gallery.backfill import row_of_image
from facenet.gallery.editing import distinct, paired
from facenet.gallery.gallery import AddResult, BackfillResult, Item
from facenet.service.wire import batches
from facenet.types import EmbeddingSet, Progress
from facenet.vectors import unit_rows

if TYPE_CHECKING:
    from facenet.service.client import RemoteGallery

PAGE = 1000  # items of a page
NUMBER_BYTES = 24  # of a number of a vector as JSON, at most


class Limits(NamedTuple):
    """What a service takes in one request."""

    vectors: int
    bytes: int

    def parts(self, vectors: np.ndarray, texts: Sequence[int] | None = None) -> list[slice]:
        """Cut the rows of vectors (N, D), with texts of so many bytes, into requests."""
        own = NUMBER_BYTES * vectors.shape[1]
        return batches([own + more for more in texts or [0] * len(vectors)], *self)


def encoder_of(embeddings: EmbeddingSet) -> dict[str, Any]:
    """Return what a request with vectors says of their encoder."""
    return {"fingerprint": embeddings.fingerprint, "compatible_with": list(embeddings.compatible_with)}


def add_items(
    gallery: RemoteGallery,
    embeddings: EmbeddingSet,
    ids: Sequence[str] | None,
    metadata: Sequence[Mapping[str, Any]] | None,
    on_duplicate: str,
    once: str,
) -> AddResult:
    """Add N items; see :meth:`facenet.service.client.RemoteGallery.add`."""
    count = len(embeddings)
    names, given = paired(embeddings, ids, metadata)
    extra = [dict(one) for one in given]
    vectors = unit_rows(embeddings.vectors, "embeddings", names=embeddings.paths)
    texts = [_size(row) for row in zip(names, embeddings.identities, embeddings.paths, extra, strict=True)]
    parts = gallery.limits.parts(vectors, texts)
    if len(parts) > 1:
        keep = distinct(names, on_duplicate)
        if len(keep) < count:
            names, extra = [names[row] for row in keep], [extra[row] for row in keep]
            done = add_items(gallery, embeddings.subset(keep), names, extra, on_duplicate, once)
            return done._replace(skipped=done.skipped + count - len(keep))
        if on_duplicate == "error" and not once:
            _refuse_known(gallery, names)
    once, results = once or uuid.uuid4().hex, []
    for number, rows in enumerate(parts):
        asked = {**encoder_of(embeddings), "vectors": vectors[rows].tolist(), "ids": names[rows]}
        asked |= {"identities": list(embeddings.identities[rows]), "paths": list(embeddings.paths[rows])}
        asked |= {"metadata": extra[rows], "on_duplicate": on_duplicate, "once": f"{once} {number}"}
        results.append(gallery.wire.post("/v1/vectors/items", asked))
    return AddResult(*(sum(told[name] for told in results) for name in AddResult._fields))


def _refuse_known(gallery: RemoteGallery, names: Sequence[str]) -> None:
    if known := gallery.find(names, by="id"):
        more = f" and {len(known) - 1} more of the ids are" if len(known) > 1 else " is"
        raise Taken(
            f"{gallery.folder}: {known[0].id!r}{more} in the gallery already; nothing was added "
            "(on_duplicate=skip or replace)"
        )


def _size(texts: Sequence[Any]) -> int:
    """Return the bytes of an item's texts as JSON.

    Raises:
        DataError: metadata that is no JSON.
    """
    try:
        return len(json.dumps(texts, allow_nan=False, ensure_ascii=False).encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"embeddings: {texts[0]!r} has no storable id, identity, path or metadata ({error})") from error


def backfill_items(
    gallery: RemoteGallery,
    embeddings: EmbeddingSet,
    batch: int,
    progress: Progress | None,
    numbers: Sequence[int] | None,
) -> BackfillResult:
    """Replace the vectors of old encoders; see :meth:`facenet.service.client.RemoteGallery.backfill`."""
    if batch < 1:
        raise ConfigError(f"batch: expected at least 1, got {batch}")
    vectors = unit_rows(embeddings.vectors, "embeddings", names=embeddings.paths)
    rows, listed = embeddings.rows_by_key("embeddings"), {*embeddings.compatible_with} - {embeddings.fingerprint}
    found = _replace(gallery, embeddings, vectors, {0: 0}, None)  # looks whether the encoder is let in
    replaced, done, total = 0, 0, found.missing
    for items in _old_items(gallery, listed, batch, numbers):
        pairs = [(item.number, row) for item in items if (row := row_of_image(item.path, item.id, rows)) is not None]
        for part in gallery.limits.parts(vectors[[row for _, row in pairs]]):
            found = _replace(gallery, embeddings, vectors, dict(pairs[part]), [number for number, _ in pairs[part]])
            replaced += found.replaced
        done += len(items)
        if progress is not None:
            progress(done, max(total, done))
    if numbers is None and found.missing and not found.current:
        raise DataError(
            f"{gallery.folder}: the embeddings hold none of the images of its {found.missing} items; embed the folder "
            "that the gallery was made from"
        )
    return found._replace(replaced=replaced)


def _replace(
    gallery: RemoteGallery,
    embeddings: EmbeddingSet,
    vectors: np.ndarray,
    pairs: Mapping[int, int],
    numbers: Sequence[int] | None,
) -> BackfillResult:
    """Send the rows of vectors (N, D) of the items in `pairs`; with numbers of None no item is looked at."""
    rows = list(dict.fromkeys(pairs.values()))  # two items may be of one image
    asked = {**encoder_of(embeddings), "vectors": vectors[rows].tolist(), "root": embeddings.root}
    asked |= {"paths": [embeddings.paths[row] for row in rows], "numbers": list(numbers or ())}
    asked |= {"identities": [embeddings.identities[row] for row in rows]}
    told = gallery.wire.post("/v1/vectors/backfill", asked)
    return BackfillResult(*(told[name] for name in BackfillResult._fields))


def _old_items(
    gallery: RemoteGallery, listed: set[str], batch: int, numbers: Sequence[int] | None
) -> Iterator[list[Item]]:
    """Yield the items of some encoders in batches: of all that are there, or of some numbers."""
    old: list[Item] = []
    for items in _pages(gallery, min(batch, PAGE), numbers):
        old += [item for item in items if item.fingerprint in listed]
        while len(old) >= batch:
            yield old[:batch]
            del old[:batch]
    if old:
        yield old


def _pages(gallery: RemoteGallery, size: int, numbers: Sequence[int] | None) -> Iterator[list[Item]]:
    if numbers is not None:
        wanted = sorted(numbers)
        yield from (gallery.items(wanted[start : start + size]) for start in range(0, len(wanted), size))
        return
    after = 0
    while items := gallery.page(after, size):
        yield items
        after = items[-1].number
