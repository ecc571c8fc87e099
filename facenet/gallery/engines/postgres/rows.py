"""Vectors of the table ``items`` to and from numpy, as pgvector sends them.

Letters: n items, D embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

BLOCK = 8192  # rows read or written at once
TEXTS = "id, identity, path, root, metadata"
HEADER = 4  # bytes before the numbers of a vector, as pgvector sends it: its width, and two of nothing


def decoded(vectors: Sequence[bytes]) -> np.ndarray | None:
    """Return vectors (n, D), float32, of what ``vector_send`` returned; None if one is of another width."""
    size = len(vectors[0]) if vectors else HEADER
    if size < HEADER or any(len(vector) != size for vector in vectors):
        return None
    rows = np.frombuffer(b"".join(vectors), np.uint8).reshape(len(vectors), size)[:, HEADER:]
    return np.ascontiguousarray(rows).view(">f4").astype(np.float32)


def little_endian(vector: bytes) -> bytes:
    """Return the numbers of what ``vector_send`` returned as a digest reads them."""
    return np.frombuffer(vector, ">f4", offset=HEADER).astype("<f4").tobytes()
