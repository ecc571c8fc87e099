"""The nouns of a gallery: items, people, filters, the recipe of an index."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from facenet.errors import ConfigError, DataError
from facenet.files import is_inside

Where = Mapping[str, Any] | None
Texts = tuple[str, str, str, str, str]  # id, identity, path, root, metadata as JSON
Block = tuple[np.ndarray, np.ndarray]  # item numbers (n,) and vectors (n, D)
COLUMNS = ("id", "identity", "path")  # what a filter finds in columns; everything else is metadata


class Item(NamedTuple):
    """One face of a gallery; `number` is what searches return as its row."""

    number: int
    id: str
    identity: str  # "" if unknown
    path: str  # relative to `root`, POSIX
    root: str
    metadata: dict[str, Any]
    fingerprint: str  # of the encoder that made the vector


class Person(NamedTuple):
    """One person of a gallery."""

    identity: str
    faces: int
    id: str  # of the first item
    number: int  # of the first item


class AddResult(NamedTuple):
    """What one `add` did, in items."""

    added: int
    replaced: int
    skipped: int


class State(NamedTuple):
    """The state that the last write left."""

    token: str  # another after each write
    items: int
    generation: int  # how many writes there were


class Recipe(NamedTuple):
    """What a gallery's index should be: a kind, or a FAISS factory string instead."""

    kind: str = "auto"
    factory: str = ""
    recall_target: float = 0.99  # of the nearest neighbour, over queries that the tuning did not see


class Labels(NamedTuple):
    """Whose face each item is, by number."""

    numbers: Sequence[int]
    identities: Sequence[str]
    encoders: Sequence[int]


def choices_of(where: Mapping[str, Any]) -> dict[str, list[str | int | float | None]]:
    """Return the values that each key of a filter admits.

    Raises:
        ConfigError: a value that is no text, number or truth value, or an empty key.
    """
    if not isinstance(where, Mapping):
        raise ConfigError(f"where: expected names and values as in {{camera: 2}}, got {where!r}")
    found = {}
    for key, value in where.items():
        if not isinstance(key, str) or not key:
            raise ConfigError(f"where: {key!r} is no name of a metadata field")
        choices = list(value) if isinstance(value, list | tuple) else [value]
        if any(not isinstance(choice, str | int | float | None) for choice in choices) or not choices:
            raise ConfigError(f"where.{key}: expected text, a number, true or false, or a list of them, got {value!r}")
        if key in COLUMNS:  # which hold texts
            choices = [str(int(choice)) if isinstance(choice, int) else choice and str(choice) for choice in choices]
        found[key] = choices
    return found


def listed(names: Sequence[str], most: int = 3) -> str:
    """Return some names and the right form of "to be".

    >>> listed(["a", "b"])
    "'a', 'b' are"
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more + (" is" if len(names) == 1 else " are")


def unholdable(place: object, error: Exception) -> DataError:
    """Return the error for what no gallery can store: half a pair of surrogates, a number that is too large."""
    return DataError(f"{place}: a text or number that no gallery can hold ({error})")


def least_one(limit: int) -> int:
    """Return `limit`; ConfigError below 1."""
    if limit < 1:
        raise ConfigError(f"limit: expected at least 1, got {limit}")
    return limit


_encode = json.JSONEncoder(default=repr).encode


def digest(row: Sequence[Any], vector: bytes) -> bytes:
    """Return BLAKE2b of an item's text columns, its encoder's fingerprint and its vector: 16 bytes."""
    return hashlib.blake2b(_encode(list(row)).encode() + vector, digest_size=16).digest()


def item_of(number: int, texts: Sequence[Any], fingerprint: Any) -> Item:
    """Return the item of its text columns.

    Raises:
        TypeError, ValueError, RecursionError: no texts, a path outside of its root, or metadata that is no JSON.
    """
    *plain, metadata = texts
    known = all(isinstance(text, str) for text in (*plain, fingerprint))
    if not known or not (plain[2] == "" or is_inside(plain[2])):
        raise TypeError("expected texts, and a path below its root")
    return Item._make((number, *plain, json.loads(metadata), fingerprint))


def above(prefix: str) -> str:
    """Return the least text above all that begin with a prefix, in the order of code points; "" if there is none."""
    rest = prefix.rstrip(chr(sys.maxunicode))
    if not rest:
        return ""
    after = ord(rest[-1]) + 1
    return rest[:-1] + chr(0xE000 if 0xD800 <= after < 0xE000 else after)
