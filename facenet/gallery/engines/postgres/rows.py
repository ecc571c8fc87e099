"""Rows of the table ``items`` to and from numpy: vectors, digests, and the tags by which metadata is found.

Letters: n items, D embedding width.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

HEADER = 4  # bytes before the numbers of a vector, as pgvector sends it: its width, and two of nothing


def decoded(vectors: Sequence[bytes], dim: int) -> np.ndarray | None:
    """Return vectors (n, D), float32, of what ``vector_send`` returned; None if one is not of that width."""
    if any(len(vector) != HEADER + 4 * dim for vector in vectors):
        return None
    rows = np.frombuffer(b"".join(vectors), np.uint8).reshape(-1, HEADER + 4 * dim)[:, HEADER:]
    return np.ascontiguousarray(rows).view(">f4").astype(np.float32)


def little_endian(vector: bytes) -> bytes:
    """Return the numbers of what ``vector_send`` returned as a digest reads them."""
    return np.frombuffer(vector, ">f4", offset=HEADER).astype("<f4").tobytes()


def tags_of(metadata: Mapping[str, Any]) -> list[int]:
    """Return 64-bit digests of an item's fields: of each name, and of each name with its value.

    Filters compare these numbers, so that no text of a user becomes part of a query. Lists and objects have none.
    """
    there = {key: value for key, value in metadata.items() if isinstance(value, str | int | float)}
    return sorted({tag for key, value in there.items() for tag in (tag_of(key), tag_of(key, value))})


def tag_of(key: str, *value: Any) -> int:
    """Return the tag of a field, or of a field with that value; equal numbers have one tag, true is 1.

    >>> tag_of("door", 1) == tag_of("door", 1.0) == tag_of("door", True) != tag_of("door", "1")
    True
    """
    plain = [int(one) if isinstance(one, float) and one.is_integer() else one for one in value]
    plain = [int(one) if isinstance(one, bool) else one for one in plain]
    text = json.dumps([key, *plain])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), signed=True)
