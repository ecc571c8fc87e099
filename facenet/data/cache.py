"""Decoded images as one packed uint8 array, in RAM or on disk: a file is decoded once, not once an epoch.

Letters: N images, S S' stored height and width (the network's size, times a margin for training).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from facenet.data.options import LoaderOptions
from facenet.data.pictures import why
from facenet.data.preprocess import Preprocess
from facenet.data.records import NothingUsable, Records, Skipped
from facenet.data.views import MIDDLE
from facenet.errors import DataError
from facenet.files import default_cache, read_array, read_cached_array, write_cached_array
from facenet.interrupts import thread_pool
from facenet.types import Progress

VERSION = 1


def pack(
    records: Records,
    preprocess: Preprocess,
    *,
    margin: float = 1.0,
    folder: str | Path | None = None,
    progress: Progress | None = None,
) -> tuple[np.ndarray, Records]:
    """Decode, crop and resize every image once: uint8 (N, 3, S, S') and the records of the readable ones.

    Images that can not be decoded are dropped and join ``records.skipped``. A `folder` keeps the array, memory-mapped,
    for the next run. Its name is a hash of the files' paths, sizes and times and of the options.

    Raises:
        DataError: no image could be decoded, or the images were aligned with other options than the preprocessing has.
    """
    preprocess = preprocess.of(records.alignment, records.root)
    if folder is None or records.images is not None:
        images, bad = _decode(records, preprocess, margin, progress)
        return images, records.without(bad)
    target = Path(folder) / f"{_key(records, preprocess, margin)}.npy"
    shape = (len(records), 3, *preprocess.stored_size(margin))
    found = read_cached_array(target, shape, np.uint8)
    if found is None:
        images, bad = _decode(records, preprocess, margin, progress)
        if bad:  # an incomplete array is not kept, since the next run must list the bad files again
            return images, records.without(bad)
        write_cached_array(target, images)
        found = read_array(target, mode="r")
    return found, records


class DecodedFaces(NamedTuple):
    """Readable faces: those to train on, and those of other people for validations."""

    train: Records
    held_out: Records
    train_images: np.ndarray | None  # (N, 3, S, S') uint8; None: decoded when a batch asks for them
    held_out_images: np.ndarray  # (M, 3, H, W) uint8
    preprocess: Preprocess
    margin: float  # of the training images, see `Preprocess.cut`
    cache: str  # that of the training images: ram, disk or none

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """Files that are left out."""
        return (*self.train.skipped, *self.held_out.skipped)


def decode_faces(
    train: Records,
    held_out: Records,
    preprocess: Preprocess,
    options: LoaderOptions,
    *,
    margin: float = 1.0,
    progress: Progress | None = None,
) -> DecodedFaces:
    """Decode the held-out faces; with a cache on disk the training faces too, else none of these before a batch asks.

    Held-out files that can not be read are left out and listed. With "auto" as ``options.cache`` the cache is RAM if
    the training images fit into ``options.cache_gb``, else none.

    Raises:
        DataError: as :func:`pack`.
    """
    fits = packed_bytes(train, preprocess, margin) <= options.cache_gb * 1e9
    cache = ("ram" if fits else "none") if options.cache == "auto" else options.cache
    images = None
    if cache == "disk":
        folder = options.cache_dir or default_cache()
        images, train = pack(train, preprocess, margin=margin, folder=folder, progress=progress)
    held_out_images, held_out = pack(held_out, preprocess, progress=progress)
    return DecodedFaces(train, held_out, images, held_out_images, preprocess, margin, cache)


def packed_bytes(records: Records, preprocess: Preprocess, margin: float = 1.0) -> int:
    """Return the number of bytes of the array of :func:`pack`."""
    height, width = preprocess.of(records.alignment, records.root).stored_size(margin)
    return len(records) * 3 * height * width


def readable(
    records: Records, preprocess: Preprocess, *, margin: float = 1.0, progress: Progress | None = None
) -> Records:
    """Return the records of the decodable images; the others join ``records.skipped``. No pixels are kept.

    Raises:
        DataError: as :func:`pack`.
    """
    if records.images is not None or not len(records):
        return records
    preprocess = preprocess.of(records.alignment, records.root)
    return records.without(_read(records, preprocess, margin, lambda row, image: None, progress))


def _decode(
    records: Records, preprocess: Preprocess, margin: float, progress: Progress | None
) -> tuple[np.ndarray, list[tuple[int, str]]]:
    """Return the readable images in order, and (row, reason) of the others."""
    images = np.empty((len(records), 3, *preprocess.stored_size(margin)), np.uint8)
    bad = _read(records, preprocess, margin, images.__setitem__, progress)
    return (np.delete(images, [row for row, _ in bad], 0) if bad else images), bad


def _read(
    records: Records,
    preprocess: Preprocess,
    margin: float,
    keep: Callable[[int, np.ndarray], None],
    progress: Progress | None,
) -> list[tuple[int, str]]:
    """Decode every image and `keep` its pixels (3, S, S'); return (row, reason) of the unreadable ones."""
    bad: list[tuple[int, str]] = []

    def one(row: int) -> None:
        source: Any = None
        try:
            source = records.source(row)
            keep(row, preprocess.read(source, margin).transpose(2, 0, 1))
        except DataError as error:
            bad.append((row, why(error, source)))

    with thread_pool(min(32, os.cpu_count() or 1)) as pool:
        for done, _ in enumerate(pool.map(one, range(len(records))), 1):
            if progress and (done % 16 == 0 or done == len(records)):
                progress(done, len(records))
    bad.sort()
    if len(bad) == len(records):
        skipped = [*records.skipped, *(Skipped(records.paths[row], reason) for row, reason in bad)]
        where = records.root or "images"
        raise NothingUsable(f"{where}: no image could be read; give a folder of face images", skipped)
    return bad


def _key(records: Records, preprocess: Preprocess, margin: float) -> str:
    digest = hashlib.sha256(repr((VERSION, records.root, preprocess.size, preprocess.crop, margin)).encode())
    for later in (preprocess.align, preprocess.views, preprocess.centre if preprocess.centre != MIDDLE else None):
        if later:
            digest.update(repr(later).encode())
    records.mark(digest)
    return digest.hexdigest()[:32]
