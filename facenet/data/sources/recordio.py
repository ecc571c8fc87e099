"""RecordIO, the form of MS1MV2, MS1MV3, Glint360K, CASIA-WebFace and VGGFace2 as InsightFace gives them out.

Without mxnet. The structure of the files is told in :mod:`facenet.data.sources.record_headers`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from facenet.data.pictures import Unreadable
from facenet.data.records import NothingUsable, Skipped
from facenet.data.sources.listing import Form, Listing
from facenet.data.sources.record_headers import (
    BAD_LABEL,
    EMPTY,
    EXACT,
    FINE,
    REASONS,
    Headers,
    joined,
    read_headers,
    scan_offsets,
)
from facenet.data.sources.record_tables import read_index, read_list
from facenet.data.sources.shards import MOST_BYTES, RangeFile, relative, shards_of
from facenet.errors import DataError
from facenet.texts import Texts
from facenet.types import Progress

SUFFIX = (".rec",)
LISTS = (".lst", ".tsv")  # beside a .rec, with its name
LIST = "list.txt"  # beside the only .rec of a folder
MOST_BAD = 0.1  # share of the records that may have no structure; with more the index is not of this file
LARGEST = 1 << 53  # whole numbers from here on are not all float64


class _Found(NamedTuple):
    """The images of one file."""

    keys: np.ndarray  # (N,) int64
    names: Texts | None  # of a list
    identities: np.ndarray | list[str]
    offset: np.ndarray  # (N,) int64
    length: np.ndarray  # (N,) int64
    skipped: list[Skipped]


def is_recordio(path: Path) -> bool:
    """Return whether a path is a .rec file, or a folder with one."""
    return bool(shards_of(path, SUFFIX))


def list_images(root: Path, progress: Progress | None = None) -> Listing:
    """List the images of a .rec file, or of the .rec files of a folder.

    A ``.idx`` beside the file says where records begin; without one the file is walked through once. Names are the
    keys of the records. A list beside the file (``.lst``, ``.tsv``, or ``list.txt`` in a folder of one .rec) that names
    all records gives names and identities; mxnet lets a list take the place of labels, too. InsightFace's header
    record and its records of identities are no images.

    Raises:
        DataError: a damaged file or table, an index of another file, no image, or labels that are not exact.
    """
    files = shards_of(root, SUFFIX)
    if not files:
        raise DataError(f"{root}: no .rec file in it; give a .rec file or a folder of them")
    found: list[_Found] = []
    for number, path in enumerate(files):
        found.append(_list_file(path, len(files) == 1, _part(progress, number, len(files))))
    skipped = tuple(one for part in found for one in part.skipped)
    if not sum(len(part.keys) for part in found):
        raise NothingUsable(f"{root}: no usable image in its records", skipped)
    return Listing(
        found[0].names or found[0].keys if len(found) == 1 else _names(files, found),
        _identities(root, [part.identities for part in found if len(part.keys)]),
        relative(files, root),
        np.repeat(np.arange(len(found), dtype=np.uint16), [len(part.keys) for part in found]),
        np.concatenate([part.offset for part in found]),
        np.concatenate([part.length for part in found]),
        skipped,
    )


class RecordShard:
    """A .rec file; an odd offset is that of a split record, plus 1, any other that of the image itself.

    Where records begin and end is not looked at again: damage is found by the digest of an image, not by the structure.
    """

    def __init__(self, path: Path) -> None:
        """Open the file; raises DataError."""
        self._file = RangeFile(path)

    def read(self, offset: int, length: int) -> bytes:
        """Return the image at a place of the listing; raises Unreadable."""
        if offset & 1:
            data = joined(self._file, offset - 1, self._file.size)
            if not 0 < length <= len(data):
                raise Unreadable(f"{self._file.path}: byte {offset - 1}: not the record of the listing")
            return data[-length:]
        if not 0 < length <= MOST_BYTES:
            raise Unreadable(f"{self._file.path}: byte {offset}: an image of {length} bytes")
        return self._file.read(offset, length)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


FORM = Form(list_images, RecordShard)


def _part(progress: Progress | None, number: int, of: int) -> Progress:
    """Report the progress of one of several files in thousandths of all of them; of a single file in records."""
    if progress is None:
        return lambda done, total: None
    if of == 1:
        return progress
    return lambda done, total: progress(number * 1000 + 1000 * done // max(1, total), of * 1000)


def _list_file(path: Path, alone: bool, progress: Progress) -> _Found:
    file = RangeFile(path)
    try:
        keys, offsets = _places(file)
        parts = []
        for part in read_headers(file, offsets):
            parts.append(part)
            progress(min(sum(len(p.reason) for p in parts), len(keys)), len(keys))
    finally:
        file.close()
    if not parts:
        raise NothingUsable(f"{path}: no record in it", ())
    headers = Headers(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
    return _images(path, keys, headers, _list_beside(path, alone))


def _places(file: RangeFile) -> tuple[np.ndarray, np.ndarray]:
    """Return keys and offsets of the records of a file, by offset."""
    index = file.path.with_suffix(".idx")
    if not index.is_file():
        offsets = scan_offsets(file)
        return np.arange(len(offsets), dtype=np.int64), offsets
    keys, offsets = read_index(index)
    order = np.argsort(offsets, kind="stable")
    keys, offsets = keys[order], offsets[order]
    for values, what in ((np.sort(keys), "key"), (offsets, "offset")):
        twice = np.flatnonzero(values[1:] == values[:-1])
        if len(twice):
            raise DataError(f"{index}: the {what} {values[twice[0]]} occurs twice; copy it again, or delete it")
    return keys, offsets


def _images(path: Path, keys: np.ndarray, headers: Headers, listed: Path | None) -> _Found:
    """Tell images from other records, and who is on them."""
    reason, skipped = headers.reason.copy(), []
    sound = reason == FINE
    if np.count_nonzero(~sound) > MOST_BAD * len(keys):
        first = int(np.flatnonzero(~sound)[0])
        raise DataError(
            f"{path}: {np.count_nonzero(~sound)} of {len(keys)} records are not where its index says, or damaged"
            f" (key {keys[first]}: {REASONS[reason[first]]}); copy both files again, or delete the .idx"
        )
    about = sound & (headers.length == 0) & (headers.flag > 0)  # records of labels alone
    header = np.flatnonzero(about & (keys == 0))
    if len(header):
        skipped += _missing(path, keys, headers, int(header[0]))
    reason[sound & (headers.length == 0) & ~(about & bool(len(header)))] = EMPTY
    images = sound & (headers.length > 0)
    names, identities = None, None
    named = read_list(listed) if listed else None
    if named and listed:
        names, identities = _of_list(listed, named.keys, keys[images], named.names, named.identities)
    if identities is None:
        labels, bad = _labels(path, keys, headers, images, about)
        reason[bad] = BAD_LABEL
        keep = ~bad[images]
        images &= ~bad
        identities = labels[keep]
    skipped += [Skipped(f"{path.name}/{keys[row]}", REASONS[reason[row]]) for row in np.flatnonzero(reason != FINE)]
    return _Found(keys[images], names, identities, headers.offset[images], headers.length[images], skipped)


def _missing(path: Path, keys: np.ndarray, headers: Headers, row: int) -> list[Skipped]:
    """Return an entry for the images that the header record counts and the index lacks; its float may be a bit off."""
    end = headers.label[row, 0]
    if not np.isfinite(end) or not 1 <= end < LARGEST:
        return [Skipped(f"{path.name}/0", "its header record holds no number of images")]
    end -= 0 if headers.wide[row] or end < EXACT else float(np.spacing(np.float32(end)))
    missing = int(end) - 1 - np.count_nonzero((keys > 0) & (keys < end))
    return (
        [Skipped(path.name, f"fewer images than its header record counts ({missing} of {int(end) - 1} are missing)")]
        if missing > 0
        else []
    )


def _labels(
    path: Path, keys: np.ndarray, headers: Headers, images: np.ndarray, about: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels of the images, and which records (N,) bool have one that is no label."""
    label = headers.label[:, 0]
    with np.errstate(invalid="ignore"):
        bad = images & ~((label == np.floor(label)) & (label >= -1) & (label < LARGEST))
    inexact = images & ~bad & ~headers.wide & (np.abs(np.where(bad, 0, label)) >= EXACT)
    if not inexact.any():
        return np.where(bad, -1, label)[images].astype(np.int64), bad
    with np.errstate(invalid="ignore"):
        whole = headers.wide | (headers.label < EXACT).all(axis=1)
    ranges = np.flatnonzero(about & (keys > 0) & whole & np.isfinite(headers.label).all(axis=1))
    ranges = ranges[np.argsort(keys[ranges])]
    start, end = headers.label[ranges].T
    person = np.searchsorted(start, keys[images], "right") - 1
    apart = len(ranges) > 0 and (start[1:] >= end[:-1]).all() and (end >= start).all()
    if not apart or (person < 0).any() or (keys[images] >= end[person]).any():
        worst = int(np.flatnonzero(inexact)[0])
        raise DataError(
            f"{path}: key {keys[worst]}: its label {label[worst]:.0f} is a float of 32 bits, which is exact below"
            f" {EXACT:,} only; lay the .lst of the set beside it, or pack it with smaller labels"
        )
    return person.astype(np.int64), np.zeros(len(keys), bool)


def _list_beside(path: Path, alone: bool) -> Path | None:
    """Return the list that belongs to a .rec file, if there is one."""
    beside = [path.with_suffix(suffix) for suffix in LISTS] + ([path.parent / LIST] if alone else [])
    return next((place for place in beside if place.is_file()), None)


def _of_list(
    path: Path, listed: np.ndarray, keys: np.ndarray, names: Texts | None, identities: np.ndarray | list[str]
) -> tuple[Texts | None, np.ndarray | list[str]]:
    """Return names and identities of keys, as a list has them."""
    rows = np.minimum(np.searchsorted(listed, keys), max(0, len(listed) - 1))
    there = listed[rows] == keys if len(listed) else np.zeros(len(keys), bool)
    if not there.all():
        raise DataError(
            f"{path}: it does not name {np.count_nonzero(~there)} of {len(keys)} images, such as key {keys[~there][0]};"
            " delete it, or copy it again"
        )
    taken = identities[rows] if isinstance(identities, np.ndarray) else [identities[row] for row in rows]
    return None if names is None else names.take(rows), taken


def _names(files: Sequence[Path], found: Sequence[_Found]) -> Texts:
    """Return names for the images of several files, which all begin with the file's."""
    width = max(len(str(part.keys.max(initial=0))) for part in found)
    return Texts.of(
        f"{path.stem}/{key:0{width}d}" for path, part in zip(files, found, strict=True) for key in part.keys.tolist()
    )


def _identities(root: Path, parts: Sequence[np.ndarray | list[str]]) -> np.ndarray | list[str]:
    """Join the identities of several files, which are all labels or all names."""
    arrays = [part for part in parts if isinstance(part, np.ndarray)]
    texts = [part for part in parts if not isinstance(part, np.ndarray)]
    if arrays and texts:
        raise DataError(f"{root}: some of its .rec files have labels, others a list of names; give one file alone")
    return np.concatenate(arrays) if arrays else [name for part in texts for name in part]
