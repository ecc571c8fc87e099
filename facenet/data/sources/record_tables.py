"""Tables of text beside RecordIO files: where each record begins (.idx), and who is on it (.lst, .tsv, list.txt)."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from facenet.data.sources.folder import same_name
from facenet.data.sources.shards import digest, distinct
from facenet.errors import DataError, one_line
from facenet.files import is_inside
from facenet.texts import CODEC, Texts

BLOCK = 1 << 24  # bytes that are read at a time
MOST_LINE = 1 << 16  # bytes
MOST_DIGITS = 18  # of a number, so that it fits into 64 bits


class Named(NamedTuple):
    """N lines of a list: the key of each record, and what the list says of it."""

    keys: np.ndarray  # (N,) int64, rising
    names: Texts | None  # N paths; None if two are the same, or one leads outside
    identities: np.ndarray | list[str]  # labels (N,) int64, or first folders


def read_index(path: Path) -> tuple[np.ndarray, np.ndarray]:
    r"""Read the lines ``key\toffset`` of an .idx file; returns keys (N,) and byte offsets (N,), int64, in file order.

    A block of 16 MB is parsed at a time by array arithmetic: about 10 million lines a second.

    Raises:
        DataError: missing, or a line that is not two numbers.
    """
    parts = [np.empty((0, 2), np.int64)]
    first = 1
    for block in _blocks(path):
        rows = _two_numbers(np.frombuffer(block, np.uint8))
        if rows is None:
            raise DataError(
                f"{path}: lines {first} and after are not all of key, tab, offset; copy it again, or delete it"
            )
        parts.append(rows)
        first += len(rows)
    table = np.concatenate(parts)
    return np.ascontiguousarray(table[:, 0]), np.ascontiguousarray(table[:, 1])


def _blocks(path: Path) -> Iterator[bytes]:
    """Yield a file in blocks that end with a line."""
    rest = b""
    try:
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                whole, end, begun = block.rpartition(b"\n")
                if end:
                    yield rest + whole + end
                    rest = begun
                else:
                    rest += begun
                if len(rest) > MOST_LINE:
                    raise DataError(f"{path}: a line longer than {MOST_LINE} bytes; copy it again, or delete it")
    except OSError as error:
        raise DataError(f"{path}: can not be read ({one_line(error)})") from error
    if rest:
        yield rest + b"\n"


def _two_numbers(text: np.ndarray) -> np.ndarray | None:
    """Parse lines of two numbers, (N, 2) int64; None if there is anything else."""
    digit = (text >= ord("0")) & (text <= ord("9"))
    before = np.concatenate(([False], digit[:-1]))
    start, end = np.flatnonzero(digit & ~before), np.flatnonzero(~digit & before)  # the text ends with a line feed
    if len(start) % 2 or len(start) != 2 * np.count_nonzero(text == ord("\n")):
        return None
    after, gap = text[end], np.count_nonzero(~digit)
    apart = np.isin(after[0::2], (ord("\t"), ord(" "))).all() and np.isin(after[1::2], (ord("\n"), ord("\r"))).all()
    if not apart or gap != len(start) + np.count_nonzero(text == ord("\r")):
        return None
    width = end - start
    if len(width) and width.max() > MOST_DIGITS:
        return None
    value = np.zeros(len(start), np.int64)
    for place in range(int(width.max(initial=0))):
        inside = place < width
        value[inside] = value[inside] * 10 + (text[start[inside] + place] - ord("0"))
    return value.reshape(-1, 2)


def read_list(path: Path) -> Named | None:
    r"""Read a list of records: ``key\tlabel...\tpath`` as im2rec writes it, or ``key\tpath\tlabel`` or ``key\tpath``.

    Without a label the identity is the first folder of the path. A list whose first column is 0 or 1 in all lines says
    whether pictures were aligned before they were packed (InsightFace's dir2lst.py) and names no record: None.

    Raises:
        DataError: not such a list, or a key that occurs twice.
    """
    keys, labels, ends, marks = array("q"), array("q"), array("q"), array("Q")
    block, folders, known, inside = bytearray(), [], {"": ""}, True
    order: int | None = None  # column of the path
    for number, line in enumerate(_lines(path), 1):
        cells = line.rstrip(b"\r\n").split(b"\t")
        try:
            key = int(cells[0])
            if order is None:
                order = -1 if _number(cells[1]) is not None else 1
            name = cells[order]
            label = cells[1] if order == -1 else cells[2] if len(cells) > 2 else b""
            if label:
                labels.append(_whole(label))
            keys.append(key)
            text = name.decode(*CODEC)
        except (ValueError, IndexError, OverflowError) as error:
            raise DataError(
                f"{path}: line {number} is not of key, label, path ({one_line(error)}); delete it, or write it again"
            ) from error
        if not labels:
            folder = text.split("/", 1)[0] if "/" in text else ""
            folders.append(known.setdefault(folder, same_name(folder)))
        inside = inside and is_inside(text)
        block += name
        ends.append(len(block))
        marks.append(digest(name))
    found = np.frombuffer(keys, np.int64)
    if len(found) > 2 and found.min() >= 0 and found.max() <= 1:
        return None
    rows = np.argsort(found, kind="stable")
    found = found[rows]
    if (found[1:] == found[:-1]).any():
        raise DataError(
            f"{path}: the key {found[:-1][found[1:] == found[:-1]][0]} occurs twice; delete it, or write it again"
        )
    if labels and len(labels) != len(keys):
        raise DataError(f"{path}: {len(labels)} of {len(keys)} lines have a label; delete it, or write it again")
    names = Texts(np.frombuffer(block, np.uint8), np.frombuffer(ends, np.int64)).take(rows)
    identities = np.frombuffer(labels, np.int64)[rows] if labels else [folders[row] for row in rows]
    return Named(found, names if inside and distinct(marks) else None, identities)


def _lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file that are not empty."""
    try:
        with path.open("rb") as file:
            while line := file.readline(MOST_LINE):
                if len(line) == MOST_LINE:
                    raise DataError(f"{path}: a line longer than {MOST_LINE} bytes; delete it, or write it again")
                if line.strip():
                    yield line
    except OSError as error:
        raise DataError(f"{path}: can not be read ({one_line(error)})") from error


def _number(cell: bytes) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _whole(cell: bytes) -> int:
    """Parse a label: a whole number of at least -1, which may be written with zeros after its point."""
    whole, _, rest = cell.strip().partition(b".")
    if rest.strip(b"0") or int(whole) < -1:
        raise ValueError(f"label {cell[:20]!r}")
    return int(whole)
