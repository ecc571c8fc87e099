"""Encoder and images to an EmbeddingSet, in chunks: decoding in threads beside the network."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from torch import Tensor

from facenet.bundle import Encoder
from facenet.data.records import Records
from facenet.data.transforms import stack
from facenet.errors import DataError
from facenet.types import EmbeddingSet


def embed_records(
    encoder: Encoder,
    records: Records,
    *,
    batch_size: int = 256,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[EmbeddingSet, Records]:
    """Embed every readable image: N vectors (N, D), and the records they belong to.

    Images that can not be read are dropped and join ``records.skipped``; memory holds two batches at a time.

    Raises:
        DataError: no image could be read, or the network returned a vector that is not finite.
    """
    vectors: list[np.ndarray] = []
    bad: list[tuple[int, str]] = []
    starts = range(0, len(records), batch_size)

    def decode(row: int) -> Tensor | str:
        try:
            return encoder.preprocess.read(records.source(row))
        except DataError as error:
            return str(error)

    with ThreadPoolExecutor(max_workers=min(32, os.cpu_count() or 1)) as pool:

        def submit(start: int) -> list[tuple[int, object]]:
            return [(row, pool.submit(decode, row)) for row in range(start, min(start + batch_size, len(records)))]

        waiting = submit(0)
        for start in starts:
            current, waiting = waiting, submit(start + batch_size)
            images = []
            for row, future in current:
                result = future.result()  # type: ignore[attr-defined]
                if isinstance(result, str):
                    bad.append((row, result))
                else:
                    images.append(result)
            if images:
                vectors.append(encoder.embed_batch(encoder.preprocess.normalise(stack(images))))
            if progress:
                progress(min(start + batch_size, len(records)), len(records))
    if not vectors:
        reason = bad[0][1] if bad else "there is none"
        raise DataError(f"{records.root or 'images'}: no image could be read ({reason})")
    kept = records.without(bad)
    stacked = np.concatenate(vectors)
    if not np.isfinite(stacked).all():
        row = int(np.flatnonzero(~np.isfinite(stacked).all(1))[0])
        raise DataError(f"{kept.paths[row]}: the encoder returned a vector that is not finite; check its weights")
    return EmbeddingSet(stacked, kept.paths, kept.identities, encoder.fingerprint, kept.root), kept
