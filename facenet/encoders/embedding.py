"""Encoder and images to an EmbeddingSet, in chunks: decoding in threads beside the network."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np

from facenet.data.pictures import why
from facenet.data.preprocess import Preprocess, stack
from facenet.data.records import Records
from facenet.data.sources.kinds import scan
from facenet.encoders.encoder import Encoder
from facenet.errors import DataError
from facenet.interrupts import thread_pool
from facenet.types import EmbeddingSet, Progress, image_key

# (pixels (h, w, 3) uint8 of a face, read only; its image key) -> pixels uint8, perhaps of another size
Change = Callable[[np.ndarray, str], np.ndarray]


def embed_folder(
    encoder: Encoder,
    images: str | Path,
    *,
    batch_size: int = 256,
    progress: Progress | None = None,
) -> tuple[EmbeddingSet, Records]:
    """Embed every readable image of a folder or table: N vectors (N, D), and the records they belong to.

    The records name in `skipped` each image that could not be read, with the reason.

    Raises:
        DataError: no such folder, no image could be read, or as :meth:`Encoder.embed_batch`.
    """
    return embed_records(encoder, scan(images), batch_size=batch_size, progress=progress)


def embed_records(
    encoder: Encoder,
    records: Records,
    *,
    batch_size: int = 256,
    progress: Progress | None = None,
) -> tuple[EmbeddingSet, Records]:
    """Embed every readable image: N vectors (N, D), and the records they belong to.

    An image that can not be read is dropped and joins ``records.skipped``. Memory holds two batches at a time.

    Raises:
        DataError: no image could be read, or as :meth:`Encoder.embed_batch`.
    """
    (embeddings,), kept = embed_changed(encoder, records, (None,), batch_size=batch_size, progress=progress)
    return embeddings, kept


def embed_changed(
    encoder: Encoder,
    records: Records,
    changes: Sequence[Change | None],
    *,
    batch_size: int = 256,
    progress: Progress | None = None,
) -> tuple[list[EmbeddingSet], Records]:
    """Embed every readable image once for each of V changes of the decoded and cropped face; None is no change.

    Returns V sets of N vectors (N, D), and the records they belong to. An image is decoded once. A batch of the network
    holds `batch_size` faces (V at least), all changes of an image in the same one.

    Raises:
        DataError: as :func:`embed_records`.
    """
    stacked, bad = embed_rows(encoder, records, range(len(records)), changes, batch_size=batch_size, progress=progress)
    if not len(stacked):
        raise none_readable(records, bad)
    kept = records.without(bad)
    parts = [np.ascontiguousarray(stacked[:, place]) for place in range(len(changes))]
    joins = tuple(encoder.compatible_with)
    rows = kept.paths, kept.identities, encoder.fingerprint, kept.root
    return [EmbeddingSet(part, *rows, compatible_with=joins) for part in parts], kept


def none_readable(records: Records, bad: Sequence[tuple[int, str]]) -> DataError:
    """Return the error for records of which no image could be read; `bad` has (row, reason)."""
    reason = f"{records.paths[bad[0][0]]}: {bad[0][1]}" if bad else "there is none"
    return DataError(f"{records.root or 'images'}: no image could be read ({reason})")


def embed_rows(
    encoder: Encoder,
    records: Records,
    rows: range,
    changes: Sequence[Change | None] = (None,),
    *,
    batch_size: int = 256,
    progress: Progress | None = None,
) -> tuple[np.ndarray, list[tuple[int, str]]]:
    """Embed the readable images among some rows: vectors (n, V, D), and (row, reason) of each other image.

    The batches are those of :func:`embed_changed` on these rows alone. They begin at the first row, so the vectors are
    a function of the rows and of `batch_size`. `progress` is called with (done, total) of these rows.

    Raises:
        DataError: as :meth:`Encoder.embed_batch`.
    """
    vectors: list[np.ndarray] = [np.empty((0, encoder.dim), np.float32)]
    bad: list[tuple[int, str]] = []
    step = max(1, batch_size // len(changes))
    preprocess, paths = encoder.preprocess.of(records.alignment, records.root), records.paths

    def decode(row: int) -> list[np.ndarray] | str:
        source: Any = None
        try:
            source = records.source(row)
            return _changed(preprocess, source, image_key(paths[row]), changes)
        except DataError as error:
            return why(error, source)

    with thread_pool(min(32, os.cpu_count() or 1)) as pool:

        def submit(start: int) -> list[tuple[int, Future[list[np.ndarray] | str]]]:
            return [(row, pool.submit(decode, row)) for row in rows[start : start + step]]

        if progress:
            progress(0, len(rows))
        waiting = submit(0)
        for start in range(0, len(rows), step):
            current, waiting = waiting, submit(start + step)
            images: list[np.ndarray] = []
            names: list[str] = []
            for place, (row, future) in enumerate(current, start):
                result = future.result()
                if progress:  # photos of which faces are cut take long
                    progress(place, len(rows))
                if isinstance(result, str):
                    bad.append((row, result))
                else:
                    images += result
                    names += [paths[row]] * len(result)
            if images:
                vectors.append(encoder.embed_batch(encoder.preprocess.normalise(stack(images)), names=names))
            if progress:
                progress(min(start + step, len(rows)), len(rows))
    return np.concatenate(vectors).reshape(-1, len(changes), encoder.dim), bad


def _changed(
    preprocess: Preprocess, source: Path | bytes | np.ndarray, key: str, changes: Sequence[Change | None]
) -> list[np.ndarray]:
    """Decode one image and return it as the network reads it, once for each change: uint8 (H, W, 3)."""
    face = preprocess.face(source).view()
    face.flags.writeable = False
    return [preprocess.fit(face if change is None else change(face, key)) for change in changes]
