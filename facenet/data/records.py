"""Folder, CSV or LFW tree to a table of (path, identity); what can not be read is listed, not fatal by surprise."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from facenet.data.sources.walk import SUFFIXES, shown, walk, why_not
from facenet.errors import ConfigError, DataError
from facenet.faces.align import Alignment
from facenet.files import is_inside, read_csv, read_sealed, write_csv, write_sealed
from facenet.types import image_key

ALIGNED = "align.json"  # lies in a folder of aligned faces and says how they were cut


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


def scan_folder(root: str | Path) -> Records:
    """List ``root/<identity>/.../<image>``; images right under `root` get the identity "".

    Hidden files and files that are no images by their names are passed over; what can not be used is listed as
    skipped, see :mod:`facenet.data.sources.walk`. Names of people are compared as they look (Unicode NFC). A folder that
    scripts/align.py wrote says how its faces were cut.

    Raises:
        DataError: no such folder, not readable, no image in it, or an unusable ``align.json``.
    """
    root = _folder(root)
    try:
        paths, left_out = walk(root)
    except OSError as error:
        raise DataError(f"{root}: not readable ({error.strerror}); give a folder you may read") from error
    skipped = tuple(Skipped(*pair) for pair in left_out)
    if not paths:
        kinds = " ".join(sorted(SUFFIXES))
        raise NothingUsable(f"{root}: no usable image in this folder ({kinds}); expected <identity>/<image>", skipped)
    names = tuple(same_name(path.split("/", 1)[0]) if "/" in path else "" for path in paths)
    return Records(tuple(paths), names, str(root), None, skipped, read_alignment(root))


def same_name(identity: str) -> str:
    """Return a person's name in the one of its spellings in Unicode that all compare by (NFC)."""
    return unicodedata.normalize("NFC", identity)


def read_alignment(root: str | Path) -> Alignment | None:
    """Return how the faces below a folder were cut out of photos, None where it does not say.

    Raises:
        DataError: its ``align.json`` is damaged or of another version.
    """
    file = Path(root) / ALIGNED
    if not file.is_file():
        return None
    try:
        return Alignment.from_dict(read_sealed(file))
    except ConfigError as error:
        raise DataError(f"{file}: {error}; align the photos again") from error


def write_alignment(root: str | Path, alignment: Alignment) -> None:
    """Write ``align.json``, which marks the images below a folder as aligned faces."""
    write_sealed(Path(root) / ALIGNED, alignment.to_dict())


def scan_lfw(root: str | Path) -> Records:
    """List an LFW tree: ``root/images/<Name>/<Name>_0001.jpg``, or the name folders right under `root`."""
    root = _folder(root)
    return scan_folder(root / "images" if (root / "images").is_dir() else root)


def scan_csv(file: str | Path, root: str | Path | None = None) -> Records:
    """Read a table with the columns ``path`` and ``identity``; paths are relative to `root` or to the table.

    Raises:
        DataError: no such table, a missing column, no usable row, or a path that leaves the root folder.
    """
    file = Path(file)
    rows = _table(file)
    root = _folder(root if root is not None else file.parent)
    inside = root.resolve()
    found, skipped = [], []
    for path, identity in rows:
        path = os.path.relpath(path, root) if os.path.isabs(path) else path  # noqa: PTH117 - texts, not files
        if not is_inside(path):
            raise DataError(f"{file}: the path {path[:80]!r} is empty or leads outside {root}; use paths below it")
        try:
            leaves = not (root / path).resolve().is_relative_to(inside)
        except (OSError, RuntimeError):  # a name too long, or a circle of links
            leaves = False
        if leaves:
            raise DataError(f"{file}: the path {path[:80]!r} is a link that leads outside {root}; use paths below it")
        reason = why_not(root / path)
        if reason:
            skipped.append(Skipped(path, reason))
        else:
            found.append((Path(path).as_posix(), same_name(identity)))
    if not found:
        raise NothingUsable(f"{file}: none of its {len(rows)} rows names a usable image under {root}", skipped)
    paths, identities = tuple(p for p, _ in found), tuple(i for _, i in found)
    return Records(paths, identities, str(root), None, tuple(skipped), read_alignment(root))


def _table(file: Path) -> list[tuple[str, str]]:
    """Read path and identity of every row of a table."""
    rows = read_csv(file, ("path", "identity"), remedy="give a CSV file with the columns path, identity")
    return [(row["path"].strip(), row["identity"].strip()) for row in rows]


def scan(path: str | Path) -> Records:
    """List images from a folder, a CSV table or a single image file."""
    path = Path(path)
    if path.suffix.lower() == ".csv":
        return scan_csv(path)
    if path.is_file():
        return Records((path.name,), ("",), str(path.parent), alignment=read_alignment(path.parent))
    return scan_lfw(path) if (path / "images").is_dir() else scan_folder(path)


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


def _folder(root: str | Path) -> Path:
    root = Path(root)
    if not root.is_dir():
        kind = "a file, not a folder" if root.exists() else "no such folder"
        raise DataError(f"{root}: {kind}; give the folder that holds <identity>/<image>")
    return root
