"""The nouns of the pipeline: EmbeddingSet (and its folder on disk), Pairs, Neighbours, Triplets.

Letters: N embeddings, D embedding width, P pairs, Q queries, k neighbours, T triplets. This module imports no torch.
"""

from __future__ import annotations

import csv
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from facenet.errors import DataError, one_line
from facenet.files import atomic_write, is_inside, read_array, read_sealed, sha256_file, write_csv, write_sealed
from facenet.texts import Texts
from facenet.vectors import square_norms

if TYPE_CHECKING:
    import torch

EMBEDDINGS_SCHEMA = 1
EMBEDDINGS_FILES = ("vectors.npy", "items.csv")  # beside meta.json
ITEMS_COLUMNS = ("row", "path", "identity")  # of items.csv
META_FIELDS = ("schema", "fingerprint", "count", "dim", "root", "sha256", "plan")  # of meta.json, beside `extra`
ROWS = 1 << 16  # vectors that are written or checked at a time
Progress = Callable[[int, int], None]  # called with (done, total)


def image_key(path: str | Path) -> str:
    """Name an image independent of folder root and file type: its POSIX path without the suffix.

    >>> image_key("Ada_Byron/Ada_Byron_0001.jpg")
    'Ada_Byron/Ada_Byron_0001'
    """
    return PurePath(path).with_suffix("").as_posix()


class MiningStats(NamedTuple):
    """What one mining pass counted over the anchor-positive pairs of a batch."""

    pairs: int  # anchor-positive pairs (ordered)
    semi_hard_pairs: int  # of these, pairs with at least one semi-hard negative
    hard_pairs: int  # of these, pairs with at least one negative no farther than the positive
    triplets: int  # triplets found before the cap `max_triplets`
    mean_positive: float  # mean squared distance of the pairs; 0 if there are none
    mean_negative: float  # mean squared distance of anchors (rows with a positive) to negatives; 0 if none
    negatives: int  # anchor-negative pairs under `mean_negative`


class Triplets(NamedTuple):
    """Row numbers of T triplets, int64 tensors (T,), and the statistics of their mining pass."""

    anchor: torch.Tensor
    positive: torch.Tensor
    negative: torch.Tensor
    stats: MiningStats


@dataclass(frozen=True)
class Pairs:
    """P verification pairs: two image keys each, whether they show one person, and the fold."""

    first: tuple[str, ...]
    second: tuple[str, ...]
    same: np.ndarray  # (P,) bool
    fold: np.ndarray  # (P,) int64, 0-based

    def __len__(self) -> int:
        """Return P."""
        return len(self.first)

    def subset(self, rows: Sequence[int] | np.ndarray) -> Pairs:
        """Return the given pairs, in that order."""
        rows = np.asarray(rows, np.int64)
        first, second = (tuple(side[i] for i in rows) for side in (self.first, self.second))
        return Pairs(first, second, self.same[rows], self.fold[rows])


class Neighbours(NamedTuple):
    """The k nearest gallery rows of Q queries, nearest first; absent places hold row -1 and sq_dist inf."""

    rows: np.ndarray  # (Q, k) int64 gallery row numbers
    sq_dist: np.ndarray  # (Q, k) float32


@dataclass(frozen=True)
class EmbeddingSet:
    """N unit vectors with the image and identity each one came from, and the encoder that made them.

    On disk the set is a folder. ``vectors.npy`` (N, D) float32 can be mapped into memory; ``items.csv`` has the columns
    row, path, identity; ``meta.json`` holds the encoder's fingerprint, the shape and the SHA-256 of every file.
    `compatible_with` is not written, because the encoder's own record holds it and may grow.
    """

    vectors: np.ndarray  # (N, D) float32, unit rows
    paths: Sequence[str]  # N paths, relative to `root`, POSIX
    identities: Sequence[str]  # N names; "" if unknown
    fingerprint: str
    root: str = ""
    extra: dict[str, Any] = field(default_factory=dict)
    compatible_with: tuple[str, ...] = ()  # fingerprints of the encoders whose galleries these vectors may join

    def __post_init__(self) -> None:
        """Check shapes and values; raises DataError."""
        n = len(self.paths)
        if self.vectors.ndim != 2 or self.vectors.shape[0] != n or len(self.identities) != n:
            raise DataError(
                f"embeddings: vectors {self.vectors.shape} do not fit {n} paths and {len(self.identities)} identities"
            )
        if self.vectors.dtype != np.float32:
            raise DataError(f"embeddings: expected float32 vectors, got {self.vectors.dtype}")

    @classmethod
    def unnamed(cls, vectors: np.ndarray, fingerprint: str, *, compatible_with: Sequence[str] = ()) -> EmbeddingSet:
        """Return a set of `vectors` (N, D) alone, without images or identities: for instance, queries."""
        blank = [""] * len(vectors)
        return cls(vectors, blank, blank, fingerprint, compatible_with=tuple(compatible_with))

    def __len__(self) -> int:
        """Return N."""
        return len(self.paths)

    @property
    def dim(self) -> int:
        """Embedding width D."""
        return int(self.vectors.shape[1])

    @property
    def keys(self) -> list[str]:
        """Image keys, see :func:`image_key`."""
        return [image_key(path) for path in self.paths]

    def rows_by_key(self, what: str) -> dict[str, int]:
        """Return the row of each image key; if two images share one, raise DataError that begins with `what`."""
        rows: dict[str, int] = {}
        for row, key in enumerate(self.keys):
            if key in rows:
                raise DataError(f"{what}: several images have the key {key!r}; keep one file type for each image")
            rows[key] = row
        return rows

    def subset(self, rows: Sequence[int] | np.ndarray) -> EmbeddingSet:
        """Return the given rows as a new set, in that order."""
        rows = np.asarray(rows, np.int64)
        paths, identities = (
            column.take(rows) if isinstance(column, Texts) else [column[i] for i in rows]
            for column in (self.paths, self.identities)
        )
        return replace(self, vectors=self.vectors[rows], paths=paths, identities=identities, extra=dict(self.extra))

    def save(self, folder: str | Path, *, beside: Sequence[str] = ()) -> None:
        """Write the folder; ``meta.json`` comes last, so a half-written folder does not load.

        `beside` names further files of the folder whose SHA-256 goes into ``meta.json``.

        Raises:
            DataError: a path that leads outside the root, or a folder that can not be written.
        """
        rows = (self.vectors[start : start + ROWS] for start in range(0, len(self), ROWS))
        texts = self.paths, self.identities
        extra = {**self.extra, "root": self.root}
        save_embeddings(folder, rows, self.vectors.shape, *texts, self.fingerprint, extra=extra, beside=beside)

    @classmethod
    def load(cls, folder: str | Path, *, mmap: bool = False) -> EmbeddingSet:
        """Read a folder written by :meth:`save`; anything missing, changed or foreign raises DataError.

        With `mmap` the vectors stay on disk: they are checked in blocks, and read when they are used.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise DataError(f"{folder}: no such embeddings folder; make one with facenet embed")
        meta = read_sealed(folder / "meta.json")
        if meta.get("schema") != EMBEDDINGS_SCHEMA:
            expected = f"this version reads {EMBEDDINGS_SCHEMA}"
            raise DataError(f"{folder}/meta.json: schema {meta.get('schema')!r}, {expected}; embed again")
        sums = meta.get("sha256")
        sums = sums if isinstance(sums, dict) else {}
        for name in (*EMBEDDINGS_FILES, *(name for name in sums if "/" not in name and (folder / name).is_file())):
            if not (folder / name).is_file():
                raise DataError(f"{folder}/{name}: no such file; embed again")
            if sums.get(name) != sha256_file(folder / name):
                raise DataError(f"{folder}/{name}: its SHA-256 is not the one in meta.json (damaged?); embed again")
        vectors = read_array(folder / "vectors.npy", mode="r" if mmap else None)
        paths, identities = _read_items(folder / "items.csv")
        extra = {key: value for key, value in meta.items() if key not in META_FIELDS}
        fingerprint, root, shape = meta.get("fingerprint"), meta.get("root"), [meta.get("count"), meta.get("dim")]
        if not isinstance(fingerprint, str) or not isinstance(root, str) or shape != [*vectors.shape]:
            raise DataError(f"{folder}/meta.json: not of the vectors {vectors.shape} beside it; embed again")
        found = cls(vectors, paths, identities, fingerprint, root, extra)
        _check_finite(folder / "vectors.npy", found.vectors.shape)
        return found


def save_embeddings(
    folder: str | Path,
    blocks: Iterable[np.ndarray],
    shape: tuple[int, ...],
    paths: Sequence[str],
    identities: Sequence[str],
    fingerprint: str,
    *,
    extra: Mapping[str, Any],
    beside: Sequence[str] = (),
) -> None:
    """Write an embeddings folder from blocks of vectors (n, D) float32 that are N in all; see `EmbeddingSet.save`.

    Memory holds one block. `extra` holds further fields of ``meta.json``, `root` among them.

    Raises:
        DataError: a path that leads outside the root, or a folder that can not be written.
    """
    folder = Path(folder)
    _check_paths(paths, folder)
    try:
        (folder / "meta.json").unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: can not be written ({error.strerror}); choose another folder") from error
    with atomic_write(folder / "vectors.npy") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": tuple(map(int, shape))}
        np.lib.format.write_array_header_1_0(file, header)
        for block in blocks:
            file.write(np.ascontiguousarray(block, "<f4").data)
    write_csv(folder / "items.csv", ITEMS_COLUMNS, zip(range(shape[0]), paths, identities, strict=True))
    sums = {name: sha256_file(folder / name) for name in (*EMBEDDINGS_FILES, *beside)}
    meta = {"schema": EMBEDDINGS_SCHEMA, "fingerprint": fingerprint, "count": int(shape[0]), "dim": int(shape[1])}
    write_sealed(folder / "meta.json", {"root": "", **extra, **meta, "sha256": sums})


def _check_paths(paths: Sequence[str], where: Path) -> None:
    """Raise DataError if a path does not stay below its root."""
    for path in paths:
        if not is_inside(path):
            raise DataError(f"{where}: the path {path[:80]!r} is empty or leads outside its root; use paths below it")


def _check_finite(file: Path, shape: tuple[int, ...]) -> None:
    """Raise DataError for a vector (D,) that is not finite; the file is read in blocks and not mapped."""
    with file.open("rb") as stream:
        stream.seek(file.stat().st_size - 4 * shape[0] * shape[1])
        for _ in range(0, shape[0], ROWS):
            block = np.fromfile(stream, np.float32, ROWS * shape[1]).reshape(-1, shape[1])
            if not np.isfinite(square_norms(block)).all():
                raise DataError(f"{file}: a vector that is not finite; embed again")


def _read_items(file: Path) -> tuple[Texts, Texts]:
    """Return the paths and identities of ``items.csv``, line by line; raises DataError."""
    people: dict[str, int] = {}
    rows = array("q")  # of each image's identity among the people

    def read(stream: Iterable[str]) -> Iterator[str]:
        lines = csv.reader(stream, strict=True)
        whole = next(lines, None) == [*ITEMS_COLUMNS]
        for number, line in enumerate(line for line in lines if line):
            if not whole or len(line) != len(ITEMS_COLUMNS) or line[0] != str(number):
                whole = False
                break
            rows.append(people.setdefault(line[2], len(people)))
            yield line[1]
        if not whole:
            raise DataError(f"{file}: expected the columns row, path, identity, rows numbered from 0; embed again")

    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            paths = Texts.of(read(stream))
    except (OSError, ValueError, csv.Error) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{file}: not readable as CSV ({one_line(error)}); embed again") from error
    _check_paths(paths, file)
    return paths, Texts.of(people).take(np.frombuffer(rows, np.int64))
