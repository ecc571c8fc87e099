"""N images as columns (path, identity), and the list of files that are not used, each with its reason."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from PIL import Image

from facenet.errors import DataError
from facenet.faces.alignment import Alignment
from facenet.files import write_csv
from facenet.texts import CODEC, Texts, numbered
from facenet.types import image_key

BLOCK = 1 << 20  # rows that are looked at together, so that intermediate arrays stay small


class Skipped(NamedTuple):
    """A file that is not used, and why."""

    path: str
    reason: str

    @property
    def kind(self) -> str:
        """The reason without what belongs to this file alone: what stands before a colon or a parenthesis."""
        return re.split(r": | \(", self.reason, maxsplit=1)[0]


class NothingUsable(DataError):
    """There are files, and not one of them is an image that can be used; `skipped` says why."""

    def __init__(self, message: str, skipped: Sequence[Skipped]) -> None:
        super().__init__(f"{message}{f'; {summary(skipped)}' if skipped else ''}")
        self.skipped = tuple(skipped)


class Encoded(Protocol):
    """Encoded images inside larger files, by their row in a table."""

    def read(self, row: int) -> bytes:
        """Return the bytes of an image; raises Unreadable if they are not what the table says."""

    def mark(self, rows: np.ndarray) -> bytes:
        """Return what tells the images of the given rows from changed ones."""

    def as_they_lie(self, rows: np.ndarray) -> np.ndarray:
        """Return the places of the rows (M,) in the order in which their bytes lie in the larger files."""


class Table(NamedTuple):
    """What is known of all images of a set, in memory or mapped from an index; views of it are :class:`Records`."""

    paths: Texts
    encoded: Encoded | None = None  # None: each image is a file


@dataclass(frozen=True, eq=False)
class Records:
    """N images with their identities; the pixels lie in files under `root`, inside larger files, or in `images`.

    An identity with one image is kept: it serves as a negative. `skipped` lists what was left out. The records are a
    view of a table: an image takes the bytes of its row number and of its label, 8 together.
    """

    table: Table
    names: Texts  # P distinct identities, sorted; "" where unknown
    labels: np.ndarray  # (N,) int32, places in `names`
    root: str = ""
    images: np.ndarray | None = None  # (N, H, W, 3) uint8
    skipped: tuple[Skipped, ...] = field(default=())
    alignment: Alignment | None = None  # how the faces were cut out of photos, where a folder says so
    rows: np.ndarray | None = None  # (N,) rows of the table; None: all, in order

    @classmethod
    def of(
        cls,
        paths: Sequence[str],
        identities: Sequence[str],
        root: str = "",
        images: np.ndarray | None = None,
        skipped: tuple[Skipped, ...] = (),
        alignment: Alignment | None = None,
    ) -> Records:
        """Return records of N paths, relative to `root`, POSIX, and N identities."""
        names, labels = numbered(identities)
        table = Table(Texts.of(paths))
        return cls(table, Texts.of(names), labels.astype(np.int32), root, images, skipped, alignment)

    def __len__(self) -> int:
        """Return N."""
        return len(self.labels)

    @property
    def paths(self) -> Texts:
        """N paths, relative to root, POSIX; inside a larger file, the names of its images."""
        return self.table.paths if self.rows is None else self.table.paths.take(self.rows)

    @property
    def identities(self) -> Texts:
        """N names, "" where unknown."""
        return self.names.take(self.labels)

    @property
    def keys(self) -> list[str]:
        """Image keys, see :func:`facenet.types.image_key`."""
        return [image_key(path) for path in self.paths]

    @property
    def counts(self) -> np.ndarray:
        """How many images each of the P identities has, (P,) int64."""
        found = np.zeros(len(self.names), np.int64)
        for part in blocks(len(self)):
            found += np.bincount(self.labels[part], minlength=len(self.names))
        return found

    def source(self, row: int) -> Path | bytes | np.ndarray:
        """Return the pixels (H, W, 3) of a row, its encoded bytes, or the file that holds them.

        Raises:
            Unreadable: the larger file does not hold what its index says.
        """
        if self.images is not None:
            return self.images[row]
        there = row if self.rows is None else int(self.rows[row])
        if self.table.encoded is not None:
            return self.table.encoded.read(there)
        return Path(self.root) / self.table.paths[there]

    def as_they_lie(self, rows: np.ndarray) -> np.ndarray:
        """Return the places of some rows (M,) in the order in which they are read best: those that lie near together.

        Where each image is a file, or in memory, that is their own order.
        """
        if self.table.encoded is None or self.images is not None:
            return np.arange(len(rows))
        return self.table.encoded.as_they_lie(rows if self.rows is None else self.rows[rows])

    def mark(self, digest: Any) -> None:
        """Feed what tells these images from changed ones into a hash: names, and sizes and times, or pixels."""
        if self.table.encoded is not None:
            digest.update(self.table.encoded.mark(np.arange(len(self)) if self.rows is None else self.rows))
            return
        for row, path in enumerate(self.paths):
            if self.images is not None:
                digest.update(f"{path}\0".encode() + self.images[row].tobytes())
            else:
                digest.update(f"{path}\0{_state(Path(self.root) / path)}\n".encode())

    def subset(self, rows: Sequence[int] | np.ndarray) -> Records:
        """Return the given rows, in that order."""
        rows = np.asarray(rows, self._row_type)
        return self._of_parts((rows[part] for part in blocks(len(rows))), len(rows))

    def of_people(self, people: Iterable[str]) -> Records:
        """Return the rows of the given identities."""
        wanted = set(people)
        return self.of_labels(np.fromiter((name in wanted for name in self.names), bool, len(self.names)))

    def of_labels(self, wanted: np.ndarray) -> Records:
        """Return the rows of the identities that are marked in `wanted` (P,) bool."""
        parts = (np.flatnonzero(wanted[self.labels[part]]) + part.start for part in blocks(len(self)))
        return self._of_parts(parts, int(self.counts[wanted].sum()))

    def _of_parts(self, parts: Iterable[np.ndarray], count: int) -> Records:
        """Return the rows that the parts give, `count` together; beyond the result it takes the memory of one part."""
        rows, labels = np.empty(count, self._row_type), np.empty(count, np.int32)
        images = None if self.images is None else np.empty((count, *self.images.shape[1:]), self.images.dtype)
        end = 0
        for part in parts:
            place = slice(end, end := end + len(part))
            rows[place] = part if self.rows is None else self.rows[part]
            labels[place] = self.labels[part]
            if images is not None and self.images is not None:
                images[place] = self.images[part]
        places = renumber(labels, len(self.names))
        return replace(self, names=self.names.take(places), labels=labels, images=images, rows=rows)

    @property
    def _row_type(self) -> type[np.unsignedinteger[Any]]:
        return np.uint32 if len(self.table.paths) < 1 << 32 else np.uint64

    def without(self, bad: Sequence[tuple[int, str]]) -> Records:
        """Return the records less the given (row, reason), which join `skipped`."""
        if not bad:
            return self
        kept = np.ones(len(self), bool)
        kept[[row for row, _ in bad]] = False
        paths = self.paths
        skipped = (*self.skipped, *(Skipped(paths[row], reason) for row, reason in bad))
        return replace(self.subset(np.flatnonzero(kept)), skipped=skipped)

    def in_order(self) -> Records:
        """Return the records sorted by identity and name, the order of every form of a set."""
        paths = [path.encode(*CODEC) for path in self.paths]
        order = sorted(range(len(self)), key=lambda row: (self.labels[row], paths[row]))
        return self if order == list(range(len(self))) else self.subset(order)


def blocks(count: int) -> Iterator[slice]:
    """Yield the slices of at most `BLOCK` rows that `count` rows consist of."""
    return (slice(start, min(start + BLOCK, count)) for start in range(0, count, BLOCK))


def renumber(labels: np.ndarray, count: int) -> np.ndarray:
    """Return which of `count` numbers labels (N,) hold, ascending; each label becomes its place there."""
    there = np.zeros(count, bool)
    for part in blocks(len(labels)):
        there[labels[part]] = True
    places = np.cumsum(there, dtype=np.int32) - 1
    for part in blocks(len(labels)):
        labels[part] = places[labels[part]]
    return np.flatnonzero(there)


def summary(skipped: Sequence[Skipped]) -> str:
    """Count what is not used by its reason, the most frequent first.

    >>> summary([Skipped("a", "the file is empty"), Skipped("b", "no file: x"), Skipped("c", "no file: y")])
    '2 no file, 1 the file is empty'
    """
    counts = Counter(one.kind for one in skipped).most_common()
    shown_first = [f"{count} {kind}" for kind, count in counts[:5]]
    return ", ".join([*shown_first, *([f"{sum(n for _, n in counts[5:])} others"] if counts[5:] else [])])


def shown(path: str) -> str:
    r"""Return a path as text that every table and terminal takes: bytes that are no UTF-8 as ``\xe9``.

    >>> shown("Ren\udce9/1.jpg")
    'Ren\\xe9/1.jpg'
    """
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def write_skipped(file: str | Path, skipped: Sequence[Skipped]) -> None:
    """Write ``skipped.csv`` (path, reason), atomically.

    Raises:
        DataError: the folder can not be written.
    """
    write_csv(file, ("path", "reason"), ((shown(path), shown(reason)) for path, reason in skipped))


def write_images(records: Records, root: str | Path) -> None:
    """Write records whose pixels are in memory as PNG files under `root`, at their own paths."""
    if records.images is None:
        raise DataError("write_images: these records are files already")
    for path, image in zip(records.paths, records.images, strict=True):
        target = (Path(root) / path).with_suffix(".png")
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.ascontiguousarray(image)).save(target, compress_level=1)


def _state(file: Path) -> str:
    """Size and time of a file; of one that has gone, that it has."""
    try:
        status = file.stat()
    except OSError:
        return "gone"
    return f"{status.st_size}\0{status.st_mtime_ns}"
