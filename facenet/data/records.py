"""N images as a table of (path, identity), and the list of files that are not used, each with its reason."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from facenet.errors import DataError
from facenet.faces.alignment import Alignment
from facenet.files import write_csv
from facenet.types import image_key


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


@dataclass(frozen=True)
class Records:
    """N images with their identities; the pixels lie in files under `root` or in the array `images`.

    An identity with one image is kept: it serves as a negative. `skipped` lists what was left out.
    """

    paths: tuple[str, ...]  # N, relative to root, POSIX
    identities: tuple[str, ...]  # N, "" where unknown
    root: str = ""
    images: np.ndarray | None = None  # (N, H, W, 3) uint8
    skipped: tuple[Skipped, ...] = field(default=())
    alignment: Alignment | None = None  # how the faces were cut out of photos, where a folder says so

    def __len__(self) -> int:
        """Return N."""
        return len(self.paths)

    @property
    def keys(self) -> list[str]:
        """Image keys, see :func:`facenet.types.image_key`."""
        return [image_key(path) for path in self.paths]

    @property
    def labels(self) -> np.ndarray:
        """Identity numbers (N,) int64, in the order of the sorted names."""
        return np.unique(np.asarray(self.identities, str), return_inverse=True)[1].astype(np.int64)

    @property
    def names(self) -> list[str]:
        """Sorted distinct identities."""
        return sorted(set(self.identities))

    def source(self, row: int) -> Path | np.ndarray:
        """Return the pixels (H, W, 3) of a row, or the file that holds them."""
        return self.images[row] if self.images is not None else Path(self.root) / self.paths[row]

    def mark(self, digest: Any) -> None:
        """Feed what tells these images from changed ones into a hash: names, and sizes and times, or pixels."""
        for row, path in enumerate(self.paths):
            if self.images is not None:
                digest.update(f"{path}\0".encode() + self.images[row].tobytes())
            else:
                digest.update(f"{path}\0{_state(Path(self.root) / path)}\n".encode())

    def subset(self, rows: Sequence[int] | np.ndarray) -> Records:
        """Return the given rows, in that order."""
        rows = np.asarray(rows, np.int64)
        images = self.images[rows] if self.images is not None else None
        paths, identities = (tuple(column[i] for i in rows) for column in (self.paths, self.identities))
        return replace(self, paths=paths, identities=identities, images=images)

    def of_people(self, people: Iterable[str]) -> Records:
        """Return the rows of the given identities."""
        wanted = set(people)
        return self.subset([i for i, name in enumerate(self.identities) if name in wanted])

    def without(self, bad: Sequence[tuple[int, str]]) -> Records:
        """Return the records less the given (row, reason), which join `skipped`."""
        reasons = dict(bad)
        skipped = (*self.skipped, *(Skipped(self.paths[row], reason) for row, reason in bad))
        return replace(self.subset([i for i in range(len(self)) if i not in reasons]), skipped=skipped)


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
