"""The image files below a folder as a person left it, and what is there that can not be used, with the reason.

Links are followed, also out of the folder: sets are often put together of links. Below each folder right under the root
a real folder is read once, so a circle of links ends; what a second link leads to is listed.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from pathlib import Path
from typing import NamedTuple

from facenet.data.records import shown
from facenet.types import Progress

SUFFIXES = {".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".gif"}
# What a camera or a web page leaves among them, and nobody should miss without a word.
OTHER = {".avif", ".dng", ".heic", ".heif", ".jp2", ".jxl", ".psd", ".svg", ".tga"}
EMPTY, NO_FILE, BROKEN_LINK = "the file is empty", "no such file", "a link to nothing"


class Found(NamedTuple):
    """Image files with a name and bytes, and (path, reason) of others: POSIX paths below the root, both sorted."""

    paths: list[str]
    skipped: list[tuple[str, str]]


def walk(root: str | Path, progress: Progress | None = None) -> Found:
    """List the images below `root`; hidden files and files that are no images by their name are passed over.

    `progress` is called with (done, total) entries right under `root`.

    No file is opened. What can not be in a table (a name that is no UTF-8) is listed with its bytes escaped.

    Raises:
        OSError: `root` itself can not be read.
    """
    found = Found([], [])
    top = os.fspath(root)
    entries = list(_entries(top))
    for number, entry in enumerate(entries, 1):
        if _folder(entry):
            _below(top, entry, found)
        else:
            _judge(entry, entry.name, found)
        if progress:
            progress(number, len(entries))
    found.paths.sort()
    found.skipped.sort()
    return found


def why_not(path: str | Path) -> str:
    """Say why a path is no file with something in it; an empty string where it is one. Nothing is opened."""
    try:
        status = os.stat(path)  # noqa: PTH116 - for every file
    except OSError as error:
        return _failure(error, os.path.islink(path))  # noqa: PTH114 - a name may be too long for pathlib
    if stat.S_ISDIR(status.st_mode):
        return "a folder, not a file"
    if not stat.S_ISREG(status.st_mode):
        return "a pipe, socket or device, not a file"
    return "" if status.st_size else EMPTY


def _below(top: str, start: os.DirEntry[str], found: Found) -> None:
    """Walk one folder right under the root: real folders first, then those that links lead to."""
    read: dict[tuple[int, int], str] = {_identity(top): "."}
    images: list[str] = []  # folders with the name of an image
    folders, links = deque([start.name]), deque[str]()
    before = len(found.paths)
    if start.is_symlink():
        folders, links = links, folders
    while folders or links:
        path = (folders or links).popleft()
        try:
            key = _identity(f"{top}/{path}")
            if key in read:
                found.skipped.append((shown(path), f"a link to what is read already: {shown(read[key])}"))
                continue
            read[key] = path
            entries = _entries(f"{top}/{path}")
        except OSError as error:
            found.skipped.append((shown(path), f"a folder that can not be read ({error.strerror})"))
            continue
        if _suffix(path) in SUFFIXES:
            images.append(path)
        for entry in entries:
            below = f"{path}/{entry.name}"
            if not _folder(entry):
                _judge(entry, below, found)
            else:
                (links if entry.is_symlink() else folders).append(below)
    for path in images:
        if not any(name.startswith(f"{path}/") for name in found.paths[before:]):
            found.skipped.append((shown(path), "a folder, not a file"))


def _judge(entry: os.DirEntry[str], path: str, found: Found) -> None:
    """List one entry that is no folder, unless it is none of ours."""
    suffix = _suffix(entry.name)
    if suffix in OTHER:
        found.skipped.append((shown(path), f"{suffix} is not read; convert it to JPEG or PNG"))
    elif suffix in SUFFIXES or (entry.is_symlink() and not os.path.exists(entry.path)):  # noqa: PTH110 - as above
        reason = why_not(entry.path) or ("" if shown(path) == path else "its name is not UTF-8; rename it")
        if reason:
            found.skipped.append((shown(path), reason))
        else:
            found.paths.append(path)


def _entries(folder: str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as listing:
        return sorted((entry for entry in listing if not entry.name.startswith(".")), key=lambda entry: entry.name)


def _folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or a link to one; where the system will not say, it is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _identity(folder: str) -> tuple[int, int]:
    status = Path(folder).stat()
    return status.st_dev, status.st_ino


def _suffix(name: str) -> str:
    return Path(name).suffix.lower()


def _failure(error: OSError, link: bool) -> str:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return BROKEN_LINK if link else NO_FILE
    return f"not accessible ({error.strerror})"
