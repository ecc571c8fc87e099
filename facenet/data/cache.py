"""Decoded images as one packed uint8 array, in RAM or on disk: a file is decoded once, not once an epoch.

Letters: N images, S S' stored height and width (the network's size, times a margin for training).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from facenet.data.records import Records
from facenet.data.transforms import Preprocess, stack
from facenet.errors import DataError
from facenet.files import atomic_write, sweep
from facenet.interrupts import thread_pool

Progress = Callable[[int, int], None]
VERSION = 1


def pack(
    records: Records,
    preprocess: Preprocess,
    *,
    margin: float = 1.0,
    folder: str | Path | None = None,
    progress: Progress | None = None,
) -> tuple[np.ndarray, Records]:
    """Decode, crop and resize every image once: uint8 (N, 3, S, S') and the records of those that could be read.

    Images that can not be decoded are dropped and join ``records.skipped``. With a `folder` the array is kept there,
    memory-mapped, under a name made of the paths, sizes, times and options, and found again by the next run.

    Raises:
        DataError: no image could be decoded, or they are aligned otherwise than the preprocessing would.
    """
    preprocess = preprocess.of(records.alignment, records.root)
    if folder is None or records.images is not None:
        images, bad = _decode(records, preprocess, margin, progress)
        return images, records.without(bad)
    target = Path(folder) / f"{_key(records, preprocess, margin)}.npy"
    found = _load(target, records, preprocess, margin)
    if found is None:
        sweep(folder)
        images, bad = _decode(records, preprocess, margin, progress)
        with atomic_write(target) as file:
            np.save(file, images)
        if bad:  # the next run must list them again, so an incomplete array is not kept
            target.unlink()
            return images, records.without(bad)
        found = _load(target, records, preprocess, margin)
    return (images if found is None else found), records


def packed_bytes(records: Records, preprocess: Preprocess, margin: float = 1.0) -> int:
    """Return how many bytes :func:`pack` needs."""
    height, width = preprocess.stored_size(margin)
    return len(records) * 3 * height * width


def read_batch(records: Records, rows: Sequence[int], preprocess: Preprocess, margin: float) -> tuple[Tensor, Tensor]:
    """Decode a few rows on the fly: uint8 (B', 3, S, S') and their places (B',) in `rows`; broken ones are left out.

    What loader workers do when the whole set does not fit in a cache.
    """
    preprocess = preprocess.of(records.alignment, records.root)
    images, places = [], []
    for place, row in enumerate(rows):
        try:
            images.append(preprocess.read(records.source(int(row)), margin))
        except DataError:
            continue
        places.append(place)
    empty = torch.zeros(0, 3, *preprocess.stored_size(margin), dtype=torch.uint8)
    return (stack(images) if images else empty), torch.tensor(places, dtype=torch.int64)


def _decode(
    records: Records, preprocess: Preprocess, margin: float, progress: Progress | None
) -> tuple[np.ndarray, list[tuple[int, str]]]:
    """Return the images that could be read, in order, and (row, reason) of those that could not."""
    images = np.empty((len(records), 3, *preprocess.stored_size(margin)), np.uint8)
    bad: list[tuple[int, str]] = []

    def one(row: int) -> None:
        try:
            images[row] = preprocess.read(records.source(row), margin).numpy()
        except DataError as error:
            bad.append((row, str(error)))

    with thread_pool(min(32, os.cpu_count() or 1)) as pool:
        for done, _ in enumerate(pool.map(one, range(len(records))), 1):
            if progress and (done % 256 == 0 or done == len(records)):
                progress(done, len(records))
    if len(bad) == len(records):
        reason = bad[0][1] if bad else "there is none"
        raise DataError(f"{records.root or 'images'}: no image could be read ({reason}); give a folder of face images")
    bad.sort()
    return (np.delete(images, [row for row, _ in bad], 0) if bad else images), bad


def _load(target: Path, records: Records, preprocess: Preprocess, margin: float) -> np.ndarray | None:
    shape = (len(records), 3, *preprocess.stored_size(margin))
    try:
        images: np.ndarray = np.load(target, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None  # not there, or damaged: decode again
    return images if images.shape == shape and images.dtype == np.uint8 else None


def _key(records: Records, preprocess: Preprocess, margin: float) -> str:
    digest = hashlib.sha256(repr((VERSION, records.root, preprocess.size, preprocess.crop, margin)).encode())
    if preprocess.align is not None:
        digest.update(repr(preprocess.align).encode())
    records.mark(digest)
    return digest.hexdigest()[:32]
