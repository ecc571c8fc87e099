"""Folder, CSV or LFW tree to a table of (path, identity); what can not be read is listed, not fatal by surprise."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from facenet.align import Alignment
from facenet.errors import ConfigError, DataError, one_line
from facenet.reading import is_inside, read_sealed, write_sealed
from facenet.types import image_key

ALIGNED = "align.json"  # lies in a folder of aligned faces and says how they were cut
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".gif"}


class Skipped(NamedTuple):
    """A file that is not used, and why."""

    path: str
    reason: str


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
                status = (Path(self.root) / path).stat()
                digest.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())

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


def scan_folder(root: str | Path) -> Records:
    """List ``root/<identity>/.../<image>``; images right under `root` get the identity "".

    Hidden files and other file types are passed over; empty image files are listed as skipped. A folder that
    scripts/align.py wrote says how its faces were cut.

    Raises:
        DataError: no such folder, no image in it, or an unusable ``align.json``.
    """
    root = _folder(root)
    found, skipped = [], []
    for path in sorted(root.rglob("*")):
        relative = path.relative_to(root)
        if path.suffix.lower() not in SUFFIXES or any(part.startswith(".") for part in relative.parts):
            continue
        if not path.is_file():
            continue
        if path.stat().st_size == 0:
            skipped.append(Skipped(relative.as_posix(), "the file is empty"))
        else:
            found.append((relative.as_posix(), relative.parts[0] if len(relative.parts) > 1 else ""))
    if not found:
        kinds = " ".join(sorted(SUFFIXES))
        raise DataError(f"{root}: no usable image in this folder ({kinds}); expected <identity>/<image>")
    paths, identities = tuple(p for p, _ in found), tuple(i for _, i in found)
    return Records(paths, identities, str(root), None, tuple(skipped), read_alignment(root))


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
    root = _folder(root if root is not None else file.parent)
    try:
        with file.open(newline="", encoding="utf-8-sig") as handle:
            reader = csv.DictReader(handle)
            missing = {"path", "identity"} - set(reader.fieldnames or ())
            if missing:
                raise DataError(f"{file}: expected the columns path, identity; missing {sorted(missing)}")
            rows = [(str(row["path"] or "").strip(), str(row["identity"] or "").strip()) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file}: not readable as CSV ({error})") from error
    found, skipped = [], []
    for path, identity in rows:
        path = os.path.relpath(path, root) if os.path.isabs(path) else path  # noqa: PTH117 - texts, not files
        if not is_inside(path):
            raise DataError(f"{file}: the path {path[:80]!r} is empty or leads outside {root}; use paths below it")
        try:
            size = (root / path).stat().st_size if (root / path).is_file() else None
            leaves = not (root / path).resolve().is_relative_to(root.resolve())
        except (OSError, RuntimeError) as error:  # a name too long, a loop of links
            skipped.append(Skipped(path, one_line(error)))
            continue
        if leaves:
            raise DataError(f"{file}: the path {path[:80]!r} is a link that leads outside {root}; use paths below it")
        if not size:
            skipped.append(Skipped(path, "no such file" if size is None else "the file is empty"))
        else:
            found.append((Path(path).as_posix(), identity))
    if not found:
        raise DataError(f"{file}: none of its {len(rows)} rows names a usable image under {root}")
    paths, identities = tuple(p for p, _ in found), tuple(i for _, i in found)
    return Records(paths, identities, str(root), None, tuple(skipped), read_alignment(root))


def scan(path: str | Path) -> Records:
    """List images from a folder, a CSV table or a single image file."""
    path = Path(path)
    if path.suffix.lower() == ".csv":
        return scan_csv(path)
    if path.is_file():
        return Records((path.name,), ("",), str(path.parent), alignment=read_alignment(path.parent))
    return scan_lfw(path) if (path / "images").is_dir() else scan_folder(path)


def write_skipped(file: str | Path, skipped: Sequence[Skipped]) -> None:
    """Write ``skipped.csv`` (path, reason)."""
    with Path(file).open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(["path", "reason"])
        writer.writerows(skipped)


def write_images(records: Records, root: str | Path) -> None:
    """Write records whose pixels are in memory as PNG files under `root`, at their own paths."""
    if records.images is None:
        raise DataError("write_images: these records are files already")
    for path, image in zip(records.paths, records.images, strict=True):
        target = (Path(root) / path).with_suffix(".png")
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.ascontiguousarray(image)).save(target, compress_level=1)


def _folder(root: str | Path) -> Path:
    root = Path(root)
    if not root.is_dir():
        kind = "a file, not a folder" if root.exists() else "no such folder"
        raise DataError(f"{root}: {kind}; give the folder that holds <identity>/<image>")
    return root
