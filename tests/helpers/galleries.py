"""Random faces, galleries of them, and search over them by plain loops."""

from __future__ import annotations

import contextlib
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from facenet.gallery.gallery import Gallery
from facenet.types import EmbeddingSet
from facenet.vectors import normalise

OURS, THEIRS = "ab" * 32, "cd" * 32
D = 16
FACTORIES = ("Flat", "HNSW16", "IVF32,SQ8", "IVF32,PQ8", "SQ8", "PCA16,IVF32,SQ8", "PCA16,Flat")


def unit(n: int, seed: int = 0, dim: int = D) -> np.ndarray:
    return normalise(np.random.default_rng(seed).normal(size=(n, dim)))


def vector_of(name: str) -> np.ndarray:
    return unit(1, zlib.crc32(name.encode()))[0]


def faces(names: list[str], fingerprint: str = OURS) -> EmbeddingSet:
    """Items named "person/image", each with a vector that follows from its name."""
    vectors = np.array([vector_of(name) for name in names]).reshape(-1, D)
    return EmbeddingSet(vectors, names, [name.split("/")[0] for name in names], fingerprint)


def people(count: int, images: int = 4, start: int = 0) -> list[str]:
    return [f"p{i}/{j}" for i in range(start, start + count) for j in range(images)]


def brute(vectors: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Squared L2 (Q, N) in double precision."""
    a, b = queries.astype(np.float64), vectors.astype(np.float64)
    return np.maximum((a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T, 0)


def clustered(
    count: int = 100, each: int = 6, *, seed: int = 0, noise: int = 0, dim: int = 32
) -> tuple[np.ndarray, list[str]]:
    """Unit vectors around a centre for each person, and identities; another `noise` is other pictures of them."""
    centres = np.random.default_rng(seed).normal(size=(count, dim))
    spread = np.random.default_rng([seed, noise, 1]).normal(size=(count, each, dim))
    vectors = normalise((centres[:, None] + 0.6 * spread).reshape(-1, dim))
    return vectors, [f"p{i}" for i in range(count) for _ in range(each)]


def numbered(vectors: np.ndarray, identities: list[str], prefix: str = "f") -> EmbeddingSet:
    """Embeddings whose ids are the rows behind a prefix."""
    return EmbeddingSet(vectors, [f"{prefix}{i}" for i in range(len(vectors))], identities, OURS)


def filled(folder: Path, factory: str, vectors: np.ndarray, identities: list[str], **options: float) -> None:
    """Write a gallery with an index of that factory string; few faces can be sure of a recall of 0.9, not of 0.99."""
    with Gallery.open(folder, create=True) as gallery:
        gallery.add(numbered(vectors, identities))
        gallery.configure(factory=factory, **{"recall_target": 0.9, **options})


def as_queries(vectors: np.ndarray, fingerprint: str = OURS, compatible_with: Sequence[str] = ()) -> EmbeddingSet:
    return EmbeddingSet.unnamed(vectors, fingerprint, compatible_with=compatible_with)


def joining(embeddings: EmbeddingSet, encoders: Sequence[str]) -> EmbeddingSet:
    """The same embeddings, which may join galleries of these encoders."""
    return replace(embeddings, compatible_with=tuple(encoders))


def assert_answers(gallery: Gallery, names: list[str], k: int = 5, queries: int = 6) -> None:
    """The gallery holds exactly :func:`faces` of `names`, and its hits are those of a double precision loop."""
    assert len(gallery) == len(names)
    asked = unit(queries, 99)
    found = gallery.hits(as_queries(asked), k)
    if not names:
        assert found == [[]] * queries
        return
    exact = brute(faces(names).vectors, asked)
    for hits, row in zip(found, exact, strict=True):
        assert [hit.rank for hit in hits] == list(range(1, min(k, len(names)) + 1))
        assert [hit.id for hit in hits] == [names[i] for i in np.argsort(row, kind="stable")[:k]]
        np.testing.assert_allclose([hit.sq_dist for hit in hits], np.sort(row)[:k], atol=2e-6)
        assert all(hit.identity == hit.id.split("/")[0] and hit.path == hit.id for hit in hits)


@contextlib.contextmanager
def tables_of(folder: Path) -> Iterator[sqlite3.Connection]:
    """A plain connection to a gallery's tables, which commits each statement."""
    with contextlib.closing(sqlite3.connect(folder / "items.sqlite", isolation_level=None)) as db:
        yield db


def state_of(folder: Path) -> tuple[Any, ...]:
    """All rows of a gallery's tables."""
    names = ("items", "writes", "encoders", "removed", "meta")
    with tables_of(folder) as db:
        return tuple(tuple(db.execute(f"SELECT * FROM {name}")) for name in names)
