"""The nouns of the pipeline: EmbeddingSet (and its folder on disk), Pairs, Neighbours, Triplets.

Letters: N embeddings, D embedding width, P pairs, Q queries, k neighbours, T triplets. This module imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from facenet.errors import DataError
from facenet.files import (
    atomic_write,
    is_inside,
    read_array,
    read_csv,
    read_sealed,
    sha256_file,
    write_csv,
    write_sealed,
)
from facenet.vectors import square_norms

if TYPE_CHECKING:
    import torch

EMBEDDINGS_SCHEMA = 1
EMBEDDINGS_FILES = ("vectors.npy", "items.csv")  # beside meta.json
ITEMS_COLUMNS = ("row", "path", "identity")  # of items.csv
META_FIELDS = ("schema", "fingerprint", "count", "dim", "root", "sha256")  # of meta.json, beside what `extra` holds
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
        paths = [self.paths[i] for i in rows]
        identities = [self.identities[i] for i in rows]
        return replace(self, vectors=self.vectors[rows], paths=paths, identities=identities, extra=dict(self.extra))

    def save(self, folder: str | Path, *, beside: Sequence[str] = ()) -> None:
        """Write the folder; ``meta.json`` comes last, so a half-written folder does not load.

        `beside` names further files of the folder whose SHA-256 goes into ``meta.json``.

        Raises:
            DataError: a path that leads outside the root, or a folder that can not be written.
        """
        folder = Path(folder)
        _check_paths(self.paths, folder)
        try:
            (folder / "meta.json").unlink(missing_ok=True)
        except OSError as error:
            raise DataError(f"{folder}: can not be written ({error.strerror}); choose another folder") from error
        with atomic_write(folder / "vectors.npy") as file:
            np.save(file, np.ascontiguousarray(self.vectors))
        write_csv(folder / "items.csv", ITEMS_COLUMNS, zip(range(len(self)), self.paths, self.identities, strict=True))
        meta = {
            "schema": EMBEDDINGS_SCHEMA,
            "fingerprint": self.fingerprint,
            "count": len(self),
            "dim": self.dim,
            "root": self.root,
            "sha256": {name: sha256_file(folder / name) for name in (*EMBEDDINGS_FILES, *beside)},
        }
        write_sealed(folder / "meta.json", {**self.extra, **meta})

    @classmethod
    def load(cls, folder: str | Path, *, mmap: bool = False) -> EmbeddingSet:
        """Read a folder written by :meth:`save`; anything missing, changed or foreign raises DataError."""
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
        if not np.isfinite(square_norms(vectors)).all():
            raise DataError(f"{folder}/vectors.npy: a vector that is not finite; embed again")
        return cls(vectors, paths, identities, fingerprint, root, extra)


def _check_paths(paths: Sequence[str], where: Path) -> None:
    """Raise DataError if a path does not stay below its root."""
    for path in paths:
        if not is_inside(path):
            raise DataError(f"{where}: the path {path[:80]!r} is empty or leads outside its root; use paths below it")


def _read_items(file: Path) -> tuple[list[str], list[str]]:
    """Return the paths and identities of ``items.csv``; raises DataError."""
    rows = read_csv(file, ITEMS_COLUMNS, remedy="embed again", whole=True)
    if any(len(row) != len(ITEMS_COLUMNS) or row["row"] != str(number) for number, row in enumerate(rows)):
        raise DataError(f"{file}: expected the columns row, path, identity, rows numbered from 0; embed again")
    paths = [row["path"] for row in rows]
    _check_paths(paths, file)
    return paths, [row["identity"] for row in rows]
