"""Numbers in place of a user's texts: filters compare them, so that no text becomes part of a query."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def tags_of(metadata: Mapping[str, Any]) -> list[int]:
    """Return 64-bit digests of an item's fields: of each name, and of each name with its value.

    Lists and objects have the former alone.
    """
    there = {tag_of(key) for key, value in metadata.items() if value is not None}
    return sorted(
        there | {tag_of(key, value) for key, value in metadata.items() if isinstance(value, str | int | float)}
    )


def tag_of(key: str, *value: Any) -> int:
    """Return the tag of a field, or of a field with that value; equal numbers have one tag, true is 1.

    >>> tag_of("door", 1) == tag_of("door", 1.0) == tag_of("door", True) != tag_of("door", "1")
    True
    """
    plain = [int(one) if isinstance(one, float) and one.is_integer() else one for one in value]
    plain = [int(one) if isinstance(one, bool) else one for one in plain]
    text = json.dumps([key, *plain])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), signed=True)
