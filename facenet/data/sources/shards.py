"""Files that hold many images: which of them belong to a set, reading at a place, and the table of their members."""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import threading
from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from facenet.data.pictures import Unreadable
from facenet.data.records import NothingUsable, Skipped, shown
from facenet.data.sources.folder import same_name
from facenet.data.sources.listing import Listing
from facenet.data.sources.walk import OTHER, SUFFIXES
from facenet.errors import DataError, one_line
from facenet.files import is_inside
from facenet.texts import CODEC, Texts

MOST_BYTES = 1 << 26  # of one image: 64 MB, a hundred times a large photo
MOST_SHARDS = 1 << 16  # a listing numbers them by 16 bits
DATA = "data"  # the folder in which copies on a hub keep their shards
TWICE = "a name that occurs twice in this file"
OUTSIDE = "its name is empty or leads outside of this file"


class RangeFile:
    """A file that is read at any place by any thread; a file that shrinks meanwhile raises and does not crash."""

    def __init__(self, path: Path) -> None:
        """Open an ordinary file.

        Raises:
            DataError: missing, no ordinary file, or not readable.
        """
        try:
            if path.exists() and not path.is_file():
                raise DataError(f"{path}: not a file; give the file itself")
            self._file = path.open("rb", buffering=0)
        except FileNotFoundError:
            raise DataError(f"{path}: no such file") from None
        except (OSError, ValueError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{path}: can not be read ({one_line(error)})") from error
        self.path, self._descriptor = path, self._file.fileno()
        self.size = os.fstat(self._descriptor).st_size
        self._lock = threading.Lock()

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset`.

        Raises:
            Unreadable: they do not all lie in the file, or the system refuses to read them.
        """
        if offset < 0 or length < 0 or offset + length > self.size:
            raise Unreadable(f"{self.path}: bytes {offset} to {offset + length} do not lie in a file of {self.size}")
        try:
            data = self._read(offset, length)
        except (OSError, ValueError) as error:  # ValueError: closed
            raise Unreadable(f"{self.path}: byte {offset} can not be read ({one_line(error)})") from error
        if len(data) != length:
            raise Unreadable(f"{self.path}: it ends before byte {offset + length}, and did not when it was opened")
        return data

    def _read(self, offset: int, length: int) -> bytes:
        if hasattr(os, "pread"):
            return os.pread(self._descriptor, length, offset)
        with self._lock:
            self._file.seek(offset)
            return self._file.read(length) or b""

    def mapped(self) -> contextlib.AbstractContextManager[bytes | mmap.mmap]:
        """Return the whole file, mapped into memory, for a with block."""
        if not self.size:
            return contextlib.nullcontext(b"")
        return mmap.mmap(self._descriptor, self.size, access=mmap.ACCESS_READ)

    def close(self) -> None:
        """Close the file; reading raises Unreadable from now on."""
        self._descriptor = -1
        self._file.close()


def shards_of(root: Path, suffixes: Sequence[str]) -> list[Path]:
    """Return the files of a set, sorted: `root` itself, or the files of these suffixes right in it or its ``data``.

    If names of some begin with "train", the others (validation, test) are left out. Hidden files are passed over.
    """
    if not root.is_dir():
        return [root] if _ends(root, suffixes) else []
    for folder in (root, root / DATA):
        try:
            found = sorted(path for path in folder.iterdir() if _ends(path, suffixes) and path.is_file())
        except OSError:
            continue
        if found:
            return [path for path in found if path.name.lower().startswith("train")] or found
    return []


def is_packed(root: Path, suffixes: Sequence[str]) -> bool:
    """Return whether a path is such a file, or a folder of such files without pictures or folders beside them."""
    if not root.is_dir() or not shards_of(root, suffixes):
        return root.is_file() and _ends(root, suffixes)
    with os.scandir(root) as entries:
        shown = [entry for entry in entries if not entry.name.startswith(".")]
    pictures = any(Path(entry.name).suffix.lower() in SUFFIXES for entry in shown)
    return not pictures and not any(entry.is_dir() and entry.name != DATA for entry in shown)


def relative(shards: Sequence[Path], root: Path) -> tuple[str, ...]:
    """Return paths as the listing wants them: relative to the root if that is a folder, else to its folder.

    Raises:
        DataError: more files than a listing can number.
    """
    if len(shards) > MOST_SHARDS:
        raise DataError(f"{root}: {len(shards):,} files, more than {MOST_SHARDS:,}; join some of them")
    folder = root if root.is_dir() else root.parent
    return tuple(path.relative_to(folder).as_posix() for path in shards)


def distinct(names: Sequence[bytes] | array[int]) -> bool:
    """Return whether no two of the given names (or their :func:`digest`) are the same."""
    marks = np.frombuffer(names, np.uint64) if isinstance(names, array) else [digest(name) for name in names]
    return len(np.unique(np.asarray(marks, np.uint64))) == len(names)


def digest(name: bytes) -> int:
    """Return 64 bits of a hash of a name, by which millions are compared."""
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little")


class Members:
    """Images by name in archives, as they are found; the listing of all of them.

    The identity is the first folder of a name, once the folders that all names of one archive begin with are taken
    off; the last of those stays, if they are all there is. Labels that an archive brings itself take its place.
    """

    def __init__(self, root: Path, shards: Sequence[Path]) -> None:
        """Take the set's path and its archives."""
        self.root, self.shards = root, relative(shards, root)
        self.skipped: list[Skipped] = []
        self._block, self._ends, self._marks = bytearray(), array("q"), array("Q")
        self._shard, self._offset, self._length = array("H"), array("q"), array("q")
        self._identities: list[str] = []
        self._labels = array("q")
        self._known: dict[str, str] = {}

    def __len__(self) -> int:
        """Return how many images there are."""
        return len(self._shard)

    def skip(self, shard: int, name: str, reason: str) -> None:
        """List a member that is not used."""
        self.skipped.append(Skipped(shown(f"{self.shards[shard]}/{name}"), reason))

    def judge(self, shard: int, name: str) -> bool:
        """Return whether a member is an image by its name; one whose name can not be used is listed as skipped."""
        suffix = "." + name.rpartition(".")[2].lower()
        if suffix not in SUFFIXES and suffix not in OTHER:
            return False
        parts = name.split("/")
        if any(part[:1] == "." and part not in (".", "..") for part in parts) or parts[0] == "__MACOSX":
            return False
        if suffix in OTHER:
            self.skip(shard, name, f"{suffix} is not read; convert it to JPEG or PNG")
        elif not is_inside(name):
            self.skip(shard, name, OUTSIDE)
        elif shown(name) != name:
            self.skip(shard, name, "its name is not UTF-8; rename it")
        else:
            return True
        return False

    def add(self, shard: int, found: Sequence[tuple[str, int, int]], labels: dict[str, int] | None = None) -> None:
        """Take the images (name, offset, length) of one archive; with `labels`, the label of each name."""
        top = _top([name for name, _, _ in found]) if labels is None else 0
        seen: set[int] = set()
        for name, offset, length in found:
            parts = [part for part in name.split("/") if part not in ("", ".")]
            short = "/".join(parts[top:]).encode(*CODEC)
            mark = digest(short)
            if mark in seen:
                self.skip(shard, name, TWICE)
                continue
            seen.add(mark)
            if labels is None:
                first = parts[top] if len(parts) > top + 1 else ""
                self._identities.append(self._known.setdefault(first, same_name(first)))
            else:
                self._labels.append(labels[name])
            self._block += short
            self._ends.append(len(self._block))
            self._marks.append(mark)
            self._shard.append(shard)
            self._offset.append(offset)
            self._length.append(length)

    def listing(self, what: str) -> Listing:
        """Return the table; names that occur in several archives get their archive's name in front, as all others do.

        Raises:
            NothingUsable: there is no image; `what` says what was expected.
        """
        if not len(self):
            raise NothingUsable(f"{self.root}: no usable image in it; expected {what}", self.skipped)
        names: Texts = Texts(np.frombuffer(self._block, np.uint8), np.frombuffer(self._ends, np.int64))
        shard = np.frombuffer(self._shard, np.uint16)
        if len(self.shards) > 1 and not distinct(self._marks):
            stems = [path.rpartition(".")[0] for path in self.shards]
            names = Texts.of(f"{stems[place]}/{name}" for place, name in zip(shard, names, strict=True))
        identities = np.frombuffer(self._labels, np.int64) if self._labels else self._identities
        offset, length = np.frombuffer(self._offset, np.int64), np.frombuffer(self._length, np.int64)
        return Listing(names, identities, self.shards, shard, offset, length, tuple(self.skipped))


def _top(names: Sequence[str]) -> int:
    """Return how many folders all names begin with, at most one fewer than the folders of any."""
    common: list[str] | None = None
    least = 0
    for name in names:
        folders = [part for part in name.split("/") if part not in ("", ".")][:-1]
        least = len(folders) if common is None else min(least, len(folders))
        if common is None:
            common = folders
        elif folders != common:
            same = 0
            for a, b in zip(common, folders, strict=False):
                if a != b:
                    break
                same += 1
            common = common[:same]
        if not common:
            return 0
    return min(len(common or ()), max(0, least - 1))


def _ends(path: Path, suffixes: Sequence[str]) -> bool:
    return path.name.lower().endswith(tuple(suffixes)) and not path.name.startswith(".")
