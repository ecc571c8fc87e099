"""The index of a face set: what each image is called, who is on it, where its bytes lie and what they hash to.

An index is a folder of arrays, of which little is read: it opens for forty million images as for a thousand.
Rows lie in canonical order, by identity and name, in every form of a set. Letters: N images, P identities.
"""

from __future__ import annotations

import hashlib
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from facenet.data.pictures import Unreadable
from facenet.data.records import BLOCK, Records, Skipped, Table
from facenet.data.sources.folder import read_alignment, same_name
from facenet.data.sources.listing import Listing, Shard
from facenet.data.sources.shards import RangeFile
from facenet.errors import DataError
from facenet.files import atomic_write, read_array, read_csv, read_sealed, sha256_file, write_csv, write_sealed
from facenet.texts import CODEC, Texts, numbered

SCHEMA = "facenet-index-1"
ARRAYS = ("paths", "path_ends", "names", "name_ends", "labels", "shard", "offset", "length", "digest")
FEW = 1000  # a map is worth its memory if one of so many rows is asked for
MAPPED = ("names", "name_ends", "labels")  # which are read as a whole; of the others a command needs some rows


class Column:
    """An array in a file, of which only the rows that are asked for are read.

    If it were mapped, the system would make up to 2 MB around each of them part of the process's memory.
    """

    def __init__(self, path: Path) -> None:
        """Open a file of :func:`numpy.save`.

        Raises:
            DataError: as :func:`~facenet.files.read_array`.
        """
        array = read_array(path, mode="r")
        self._path, self._file = path, RangeFile(path)
        self._dtype, self._length, self._start = array.dtype, len(array), self._file.size - array.nbytes
        weakref.finalize(self, self._file.close)

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._length

    def __getitem__(self, rows: Any) -> Any:
        """Return one row, the rows of a slice, or those of an array of numbers; raises Unreadable."""
        if isinstance(rows, np.ndarray) and len(rows) * FEW > self._length:
            return np.asarray(read_array(self._path, mode="r")[rows])  # mapped for this moment
        if isinstance(rows, np.ndarray):
            return np.frombuffer(b"".join([self._read(row, row + 1) for row in rows.tolist()]), self._dtype)
        if isinstance(rows, slice):
            return np.frombuffer(self._read(*rows.indices(self._length)[:2]), self._dtype)
        return np.frombuffer(self._read(rows, rows + 1), self._dtype)[0]

    def _read(self, start: int, stop: int) -> bytes:
        size = self._dtype.itemsize
        return self._file.read(self._start + start * size, (stop - start) * size)

    def __reduce__(self) -> tuple[type, tuple[Path]]:
        """Leave the open file behind: another process opens its own."""
        return Column, (self._path,)


class Columns(NamedTuple):
    """N images in canonical order."""

    paths: Texts
    names: Texts  # P identities, sorted
    labels: np.ndarray  # (N,) int32, places in names, ascending
    shards: tuple[str, ...]  # relative to the set's folder: its larger files, or its folders of people
    shard: np.ndarray | Column  # (N,) uint16
    offset: np.ndarray | Column  # (N,) int64
    length: np.ndarray | Column  # (N,) int64
    digest: np.ndarray | Column | None = None  # (N,) uint64, see digest_of_image


def columns_of(listing: Listing) -> Columns:
    """Return the images of a listing in canonical order; numbers become texts of equal width."""
    names, labels = _numbered(listing.identities)
    if isinstance(listing.names, np.ndarray):
        order = np.lexsort((listing.names, labels))
        paths = padded(listing.names[order])
    else:
        texts = [name.encode(*CODEC) for name in listing.names]
        order = np.array(sorted(range(len(texts)), key=lambda row: (labels[row], texts[row])), np.int64)
        paths = Texts.of(listing.names[row] for row in order)
    where = (listing.shard[order], listing.offset[order], listing.length[order])
    return Columns(paths, names, labels[order], listing.shards, *where)


def _numbered(identities: Sequence[str] | np.ndarray) -> tuple[Texts, np.ndarray]:
    """Return the sorted distinct identities, and the place of each of N in them (N,) int32."""
    if isinstance(identities, np.ndarray):
        numbers, labels = np.unique(identities, return_inverse=True)
        unknown = int(len(numbers) > 0 and numbers[0] < 0)
        names = Texts.of([*[""] * unknown, *padded(numbers[unknown:])])
        return names, labels.astype(np.int32)
    distinct, places = numbered(map(same_name, identities))
    return Texts.of(distinct), places.astype(np.int32)


def padded(numbers: np.ndarray) -> Texts:
    """Return numbers (N,) of at least 0 as texts that are padded with zeros to the width of the largest."""
    width = len(str(int(numbers.max(initial=0))))
    powers = 10 ** np.arange(width - 1, -1, -1, dtype=np.int64)
    block = np.empty((len(numbers), width), np.uint8)
    for start in range(0, len(numbers), BLOCK):
        block[start : start + BLOCK] = numbers[start : start + BLOCK, None] // powers % 10 + ord("0")
    return Texts(block.reshape(-1), np.arange(1, len(numbers) + 1, dtype=np.int64) * width)


def digest_of_image(data: bytes) -> int:
    """Return the first 8 bytes of the SHA-256 of an encoded image, as a number."""
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "little")


class IndexedImages:
    """Encoded images by their row in an index; files are opened when they are first read, in each process anew.

    An image whose bytes are not those of the scan is refused before anything decodes it.
    """

    def __init__(self, folder: Path, columns: Columns, open_shard: Callable[[Path], Shard] | None) -> None:
        """Take the set's folder and how its files are opened; None if each image is a file."""
        self._columns = columns._replace(labels=np.zeros(0, np.int32))  # so that a map of the labels can be given back
        self._folder, self._open_shard = folder, open_shard
        self._begin()

    def _begin(self) -> None:
        self._opened: dict[int, Shard] = {}
        self._lock = threading.Lock()
        weakref.finalize(self, _close_all, self._opened)

    def read(self, row: int) -> bytes:
        """Return the bytes of an image.

        Raises:
            Unreadable: they can not be read, or have changed since the scan.
        """
        columns = self._columns
        if self._open_shard is None:
            data = _read_file(self._folder / columns.paths[row])
        else:
            data = self._shard(int(columns.shard[row])).read(int(columns.offset[row]), int(columns.length[row]))
        if columns.digest is not None and digest_of_image(data) != int(columns.digest[row]):
            raise Unreadable("picture: its bytes are not those that were scanned (damaged?); run facenet scan again")
        return data

    def as_they_lie(self, rows: np.ndarray) -> np.ndarray:
        """Return the places of the rows (M,) in the order of file and offset."""
        return np.lexsort((self._columns.offset[rows], self._columns.shard[rows]))

    def mark(self, rows: np.ndarray) -> bytes:
        """Return what tells these images from changed ones: their digests, or the states of their files."""
        columns = self._columns
        known = columns.digest[rows].tobytes() if columns.digest is not None else b""
        return known or repr(states(self._folder, columns.shards)).encode() + columns.offset[rows].tobytes()

    def _shard(self, number: int) -> Shard:
        found = self._opened.get(number)
        if found is None:
            assert self._open_shard is not None
            with self._lock:
                path = self._folder / self._columns.shards[number]
                found = self._opened.get(number) or self._opened.setdefault(number, self._open_shard(path))
        return found

    def __getstate__(self) -> dict[str, Any]:
        """Leave open files and the lock behind: another process opens its own."""
        return {key: value for key, value in self.__dict__.items() if key not in ("_opened", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Begin without an open file."""
        self.__dict__.update(state)
        self._begin()


def _close_all(opened: dict[int, Shard]) -> None:
    for shard in opened.values():
        shard.close()


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Unreadable(f"picture: can not be read ({error.strerror})") from error


def states(folder: Path, shards: Iterable[str]) -> list[list[int]]:
    """Return size and time of each file; of one that is not there, nothing."""
    found: list[list[int]] = []
    for name in shards:
        try:
            status = (folder / name).stat()
            found.append([status.st_size, status.st_mtime_ns])
        except OSError:
            found.append([])
    return found


@dataclass(frozen=True)
class Index:
    """An index, and the set that it is of."""

    form: str  # folder, or the name of a form of larger files
    folder: Path  # that of the set
    columns: Columns
    skipped: tuple[Skipped, ...] = ()

    def records(self, open_shard: Callable[[Path], Shard] | None, root: str | Path) -> Records:
        """Return all images as records of `root`, the path of the set."""
        columns = self.columns
        encoded = None
        if open_shard is not None or columns.digest is not None:
            encoded = IndexedImages(self.folder, columns, open_shard)
        table = Table(columns.paths, encoded)
        return Records(table, columns.names, columns.labels, str(root), None, self.skipped, read_alignment(self.folder))

    def save(self, path: Path) -> None:
        """Write the index as a folder; ``index.json`` comes last, so that a half-written one does not open.

        Raises:
            DataError: the folder can not be written.
        """
        columns = self.columns
        (path / "index.json").unlink(missing_ok=True)
        digest = np.zeros(0, np.uint64) if columns.digest is None else columns.digest
        texts = (columns.paths.packed(), columns.names.packed())
        parts = [part for text in texts for part in (text.block, text.ends)]
        for name, array in zip(ARRAYS, (*parts, *columns[2:3], *columns[4:7], digest), strict=True):
            with atomic_write(path / f"{name}.npy") as file:
                np.save(file, np.ascontiguousarray(array))
        write_csv(path / "skipped.csv", ("path", "reason"), self.skipped, errors="surrogateescape")
        files = [*(f"{name}.npy" for name in ARRAYS), "skipped.csv"]
        content = {
            "schema": SCHEMA,
            "form": self.form,
            "images": len(columns.labels),
            "identities": len(columns.names),
            "shards": list(columns.shards),
            "states": states(self.folder, columns.shards),
            "sha256": {name: sha256_file(path / name) for name in files},
        }
        write_sealed(path / "index.json", content)

    @classmethod
    def open(cls, path: Path, folder: Path) -> Index:
        """Map an index of the set in `folder`.

        Raises:
            DataError: damaged, of another version, or the set has changed since.
        """
        head = read_sealed(path / "index.json")
        again = "delete it, or run facenet scan again"
        if head.get("schema") != SCHEMA:
            raise DataError(f"{path}/index.json: schema {head.get('schema')!r}, this version reads {SCHEMA}; {again}")
        for name, sum_ in head["sha256"].items():
            if not (path / name).is_file() or sha256_file(path / name) != sum_:
                raise DataError(f"{path}/{name}: missing or damaged (its SHA-256 is not that of index.json); {again}")
        if states(folder, head["shards"]) != head["states"]:
            raise DataError(f"{path}: the files of {folder} have changed since the scan; {again}")
        array: dict[str, Any] = {name: (_mapped if name in MAPPED else Column)(path / f"{name}.npy") for name in ARRAYS}
        paths, names = (Texts(array[f"{one}s"], array[f"{one}_ends"]) for one in ("path", "name"))
        digest = array["digest"] if len(array["digest"]) else None
        where = array["labels"], tuple(head["shards"]), array["shard"], array["offset"], array["length"], digest
        rows = read_csv(path / "skipped.csv", ("path", "reason"), remedy=again, whole=True)
        skipped = tuple(Skipped(row["path"], row["reason"]) for row in rows)
        return cls(head["form"], folder, Columns(paths, names, *where), skipped)


def _mapped(path: Path) -> Any:
    return np.asarray(read_array(path, mode="r"))  # rows of a plain array are several times as fast as a memmap's


def set_folder(root: str | Path) -> Path:
    """Return the folder that the paths of a set begin in: `root`, its folder ``images``, or the folder of a file."""
    root = Path(root)
    if root.is_file():
        return root.parent
    return root / "images" if (root / "images").is_dir() else root


def index_folder(root: str | Path) -> Path:
    """Return the place of the index of a set: beside it, with ``.index`` behind its name."""
    root = Path(root).absolute()
    return root.with_name(f"{root.name}.index")
