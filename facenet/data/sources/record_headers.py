"""The structure of RecordIO files: where records begin, parts of split records, and the header before each image.

A record is ``uint32 0xCED7230A``, ``uint32 lrec`` (upper 3 bits: 0 whole, 1 first, 2 middle, 3 last part; the others:
length of the data), data, zeros up to a multiple of 4 (dmlc-core, ``recordio.h``). Where the data hold the magic number
at a multiple of 4, the writer ends a part and leaves the number out. The data begin with a header: ``uint32 flag``, a
label, ``uint64 id``, ``uint64 id2``; with flag > 0 that many labels follow, then the image (``mxnet.recordio.pack``).
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from facenet.data.pictures import Unreadable
from facenet.data.sources.shards import MOST_BYTES, RangeFile
from facenet.errors import DataError

MAGIC = 0xCED7230A
MAGIC_BYTES = struct.pack("<I", MAGIC)
LENGTH = (1 << 29) - 1  # bits of lrec that say how long the data are
MOST_PARTS = 4096  # of a record; pictures hold the magic number about once in 4 billion words
ROWS = 1 << 16  # records whose headers are read at a time
SAMPLE = 256  # records by which the width of the headers is told
EXACT = 1 << 24  # whole numbers from here on are not all float32
PICTURES = (b"\xff\xd8", b"\x89PNG", b"RIFF", b"BM", b"GIF8", b"II*\0", b"MM\0*", b"P5", b"P6")
REASONS = (
    "",
    "no record begins at its offset",
    "it reaches beyond the next record, or the end of the file",
    "its parts do not follow each other",
    "it is too short for its header",
    "its label is no whole number of at least -1",
    f"an image of more than {MOST_BYTES >> 20} MB",
    "an empty record",
)
FINE, NO_RECORD, TOO_LONG, BAD_PARTS, SHORT, BAD_LABEL, TOO_LARGE, EMPTY = range(len(REASONS))


class Layout(NamedTuple):
    """How wide a header is, where its label lies, and how wide the labels after it are."""

    width: int  # bytes
    label: int  # bytes from the start of the header
    wide: bool  # the label is a float64
    extra: int  # bytes of each further label


# `IfQQ`; `IdQQ` as C lays it out, with 4 bytes after the flag; the same without them. mxnet writes the first. Writers
# that change its format to `IdQQ` read and write further labels as float64 or leave them float32.
LAYOUTS = (
    Layout(24, 4, False, 4),
    Layout(32, 8, True, 8),
    Layout(32, 8, True, 4),
    Layout(28, 4, True, 8),
    Layout(28, 4, True, 4),
)


class Headers(NamedTuple):
    """What N records say of themselves."""

    reason: np.ndarray  # (N,) uint8, places in REASONS; what follows holds where it is FINE
    flag: np.ndarray  # (N,) int64, number of further labels
    label: np.ndarray  # (N, 2) float64: the first two further labels, or the header's own and NaN
    wide: np.ndarray  # (N,) bool: these are float64
    offset: np.ndarray  # (N,) int64 of the image; of a split record the record's own, plus 1
    length: np.ndarray  # (N,) int64 of the image, bytes


def scan_offsets(file: RangeFile) -> np.ndarray:
    """Walk through a file from record to record; returns the offsets (N,) int64 of whole records and first parts.

    Raises:
        DataError: the file ends within a record, or no record begins where one has to.
    """
    found = array("q")
    size, position, inside = file.size, 0, False
    with file.mapped() as data:
        while position < size:
            magic, lrec = struct.unpack_from("<II", data, position) if position + 8 <= size else (0, 0)
            kind, end = lrec >> 29, position + 8 + (lrec & LENGTH)
            if magic != MAGIC or end > size or kind > 3 or inside != (kind > 1):
                raise _damaged(file.path, position)
            if kind < 2:
                found.append(position)
            inside = kind in (1, 2)
            position = (end + 3) & ~3
    if inside:
        raise _damaged(file.path, position)
    return np.array(found, np.int64)


def _damaged(path: Path, position: int) -> DataError:
    return DataError(
        f"{path}: damaged at byte {position}: no whole record begins there; copy the file again,"
        " or lay its .idx beside it"
    )


def joined(file: RangeFile, offset: int, limit: int) -> bytes:
    """Return the data of a split record, with the magic number back between its parts.

    Raises:
        Unreadable: the parts do not follow each other below `limit`, or hold more than 64 MB.
    """
    parts: list[bytes] = []
    total = 0
    while True:
        if offset + 8 > limit:
            raise Unreadable(f"{file.path}: byte {offset}: {REASONS[BAD_PARTS]}")
        magic, lrec = struct.unpack("<II", file.read(offset, 8))
        kind, length = lrec >> 29, lrec & LENGTH
        total += length + 4
        expected = (2, 3) if parts else (1,)
        if magic != MAGIC or kind not in expected or offset + 8 + length > limit or len(parts) >= MOST_PARTS:
            raise Unreadable(f"{file.path}: byte {offset}: {REASONS[BAD_PARTS]}")
        if total > MOST_BYTES:
            raise Unreadable(f"{file.path}: byte {offset}: {REASONS[TOO_LARGE]}")
        parts.append(file.read(offset + 8, length))
        offset = (offset + 8 + length + 3) & ~3
        if kind == 3:
            return MAGIC_BYTES.join(parts)


def read_headers(file: RangeFile, offsets: np.ndarray) -> Iterator[Headers]:
    """Read the headers of records at rising offsets, 65,536 at a time.

    The file is mapped, so that of each record no more is read than the system's page.

    Raises:
        DataError: no header is of a width that is known.
    """
    limits = np.minimum(np.append(offsets[1:], file.size), file.size)
    words = (
        np.memmap(file.path, np.dtype("<u4"), "r", shape=(file.size // 4,)) if file.size >= 4 else np.zeros(1, "<u4")
    )
    layout = _layout(file, words, offsets, limits)
    for first in range(0, len(offsets), ROWS):
        rows = slice(first, first + ROWS)
        yield _block(file, words, offsets[rows], limits[rows], layout)


def _structure(words: np.ndarray, offsets: np.ndarray, limits: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the reason, the kind of part and the length of the data of records."""
    at = offsets >> 2
    inside = (offsets >= 0) & (offsets & 3 == 0) & (at + 1 < len(words))
    at = np.where(inside, at, 0)
    lrec = words[np.minimum(at + 1, len(words) - 1)]
    kind, length = lrec >> 29, (lrec & LENGTH).astype(np.int64)
    reason = np.zeros(len(offsets), np.uint8)
    reason[offsets + 8 + length > limits] = TOO_LONG
    reason[~inside | (words[at] != MAGIC) | (kind > 1)] = NO_RECORD
    return reason, kind, length


def _layout(file: RangeFile, words: np.ndarray, offsets: np.ndarray, limits: np.ndarray) -> Layout:
    """Return the layout by which most of some records begin with a picture, or hold further labels and no more."""
    rows = np.unique(np.linspace(0, len(offsets) - 1, min(len(offsets), SAMPLE)).astype(np.int64))
    reason, kind, length = _structure(words, offsets[rows], limits[rows])
    rows, length = (values[(reason == FINE) & (kind == 0) & (length > 0)] for values in (rows, length))
    heads = [
        (file.read(int(offset) + 8, min(int(size), 4096)), int(size))
        for offset, size in zip(offsets[rows], length, strict=True)
    ]
    fits = [sum(_fits(layout, head, size) for head, size in heads) for layout in LAYOUTS]
    if heads and not max(fits):
        raise DataError(
            f"{file.path}: none of {len(heads)} records holds a picture after a header of mxnet (JPEG, PNG, ...);"
            " records of other things are not read"
        )
    return LAYOUTS[fits.index(max(fits))]


def _fits(layout: Layout, head: bytes, size: int) -> bool:
    if size < layout.width:
        return False
    flag = int.from_bytes(head[:4], "little")
    start = layout.width + flag * layout.extra
    return head[start:].startswith(PICTURES) or (start == size and flag > 0)


def _block(file: RangeFile, words: np.ndarray, offsets: np.ndarray, limits: np.ndarray, layout: Layout) -> Headers:
    reason, kind, size = _structure(words, offsets, limits)
    at = np.where(reason == FINE, (offsets >> 2) + 2, 0)
    flag = _word(words, at).astype(np.int64)
    start = layout.width + flag * layout.extra
    reason[(reason == FINE) & (kind == 0) & (start > size)] = SHORT
    label = np.full((len(offsets), 2), np.nan)
    label[:, 0] = _floats(words, at + layout.label // 4, layout.wide)
    for column in range(2):
        values = _floats(words, at + (layout.width + column * layout.extra) // 4, layout.extra == 8)
        label[:, column] = np.where(flag > column, values, label[:, column])
    image, length = offsets + 8 + start, size - start
    for row in np.flatnonzero((reason == FINE) & (kind == 1)):
        try:
            data = joined(file, int(offsets[row]), int(limits[row]))
            flag[row], label[row], length[row] = _parsed(data, layout)
        except Unreadable as error:
            reason[row] = TOO_LARGE if REASONS[TOO_LARGE] in str(error) else BAD_PARTS
            continue
        reason[row] = SHORT if length[row] < 0 else FINE
        image[row] = offsets[row] + 1
    reason[(reason == FINE) & (length > MOST_BYTES)] = TOO_LARGE
    wide = np.where(flag > 0, layout.extra == 8, layout.wide)
    return Headers(reason, flag, label, wide, image, length)


def _word(words: np.ndarray, at: np.ndarray) -> np.ndarray:
    return words[np.minimum(at, len(words) - 1)]


def _floats(words: np.ndarray, at: np.ndarray, wide: bool) -> np.ndarray:
    """Return the floats of 32 or 64 bits that begin at words."""
    low = np.ascontiguousarray(_word(words, at))
    if not wide:
        with np.errstate(invalid="ignore"):  # signalling NaN
            return low.view("<f4").astype(np.float64)
    return (low.astype(np.uint64) | _word(words, at + 1).astype(np.uint64) << np.uint64(32)).view(np.float64)


def _parsed(data: bytes, layout: Layout) -> tuple[int, tuple[float, float], int]:
    """Return flag, labels and length of the image of the data of one record; a negative length: no whole header."""
    if len(data) < layout.width:
        return 0, (np.nan, np.nan), -1
    flag = int.from_bytes(data[:4], "little")
    length = len(data) - layout.width - flag * layout.extra
    labels = [struct.unpack_from("<d" if layout.wide else "<f", data, layout.label)[0], np.nan]
    for place in range(min(flag, 2) if length >= 0 else 0):
        form = "<d" if layout.extra == 8 else "<f"
        labels[place] = struct.unpack_from(form, data, layout.width + place * layout.extra)[0]
    return flag, (labels[0], labels[1]), length
