"""Folders of images by person, and LFW trees, listed as records; the mark that a folder holds aligned faces."""

from __future__ import annotations

import unicodedata
from pathlib import Path

from facenet.data.records import NothingUsable, Records, Skipped
from facenet.data.sources.walk import SUFFIXES, walk
from facenet.errors import ConfigError, DataError
from facenet.faces.alignment import Alignment
from facenet.files import read_sealed, write_sealed
from facenet.types import Progress

ALIGNED = "align.json"  # lies in a folder of aligned faces and says how they were cut


def scan_folder(root: str | Path, progress: Progress | None = None) -> Records:
    """List ``root/<identity>/.../<image>``; images right under `root` get the identity "".

    Hidden files and files without the suffix of an image are passed over. Other files that can not be used are listed
    as skipped, see :mod:`facenet.data.sources.walk`. Names of people are compared as they look (Unicode NFC). A folder
    that facenet align wrote says how its faces were cut. `progress` is called with (done, total) people.

    Raises:
        DataError: no such folder, not readable, no image in it, or an unusable ``align.json``.
    """
    root = folder(root)
    try:
        paths, left_out = walk(root, progress)
    except OSError as error:
        raise DataError(f"{root}: not readable ({error.strerror}); give a folder you may read") from error
    skipped = tuple(Skipped(*pair) for pair in left_out)
    if not paths:
        kinds = " ".join(sorted(SUFFIXES))
        raise NothingUsable(f"{root}: no usable image in this folder ({kinds}); expected <identity>/<image>", skipped)
    names = tuple(same_name(path.split("/", 1)[0]) if "/" in path else "" for path in paths)
    return Records.of(tuple(paths), names, str(root), None, skipped, read_alignment(root))


def scan_lfw(root: str | Path, progress: Progress | None = None) -> Records:
    """List an LFW tree: ``root/images/<Name>/<Name>_0001.jpg``, or the name folders right under `root`."""
    root = folder(root)
    return scan_folder(root / "images" if (root / "images").is_dir() else root, progress)


def folder(root: str | Path) -> Path:
    """Return `root` as a path; raises DataError if it is no folder."""
    root = Path(root)
    if not root.is_dir():
        kind = "a file, not a folder" if root.exists() else "no such folder"
        raise DataError(f"{root}: {kind}; give the folder that holds <identity>/<image>")
    return root


def same_name(identity: str) -> str:
    """Return a person's name in the one of its spellings in Unicode that all compare by (NFC)."""
    return unicodedata.normalize("NFC", identity)


def read_alignment(root: str | Path) -> Alignment | None:
    """Return how the faces below a folder were cut out of photos; None if the folder does not say.

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
