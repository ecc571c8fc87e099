"""Random faces, and search over them by plain loops."""

from __future__ import annotations

import zlib

import numpy as np

from facenet.types import EmbeddingSet
from facenet.vectors import normalise

OURS, THEIRS = "ab" * 32, "cd" * 32


D = 16


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
    return ((queries[:, None].astype(np.float64) - vectors[None].astype(np.float64)) ** 2).sum(2)
