"""Millions of names as one block of bytes, of which nothing is read but what is asked for."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

import numpy as np

CODEC = "utf-8", "surrogateescape"  # file names that are no UTF-8 are kept as they are
TOGETHER = 1 << 16  # texts that are looked up at once


class Texts(Sequence[str]):
    """N texts, a view of some rows of a block that may lie in a file.

    A text takes its bytes and 8 more in the block, and a row number in each view. It equals any sequence of the same
    texts.
    """

    def __init__(self, block: np.ndarray, ends: np.ndarray, rows: np.ndarray | None = None) -> None:
        """Take UTF-8 bytes (uint8), the end of each text in them (int64), and which texts are meant (None: all)."""
        self.block, self.ends, self.rows = block, ends, rows

    @classmethod
    def of(cls, texts: Iterable[str]) -> Texts:
        """Return texts from memory."""
        if isinstance(texts, cls):
            return texts
        block, ends = bytearray(), array("q")
        for text in texts:  # nothing else is held of an iterator
            block += text.encode(*CODEC)
            ends.append(len(block))
        return cls(np.frombuffer(block, np.uint8), np.frombuffer(ends, np.int64))

    @classmethod
    def repeated(cls, texts: Iterable[str]) -> Texts:
        """Return texts of which many are equal, such as the names of people; each is kept once."""
        places: dict[str, int] = {}
        rows = np.fromiter((places.setdefault(text, len(places)) for text in texts), np.int64)
        return cls.of(places).take(rows)

    def take(self, rows: np.ndarray) -> Texts:
        """Return a view of the given rows, which may repeat."""
        return Texts(self.block, self.ends, rows if self.rows is None else self.rows[rows])

    def packed(self) -> Texts:
        """Return the same texts as a block of their own, in which every text stands once and in order."""
        return self if self.rows is None else Texts.of(iter(self))

    def __len__(self) -> int:
        """Return N."""
        return len(self.ends if self.rows is None else self.rows)

    @overload
    def __getitem__(self, place: int) -> str: ...

    @overload
    def __getitem__(self, place: slice) -> Texts: ...

    def __getitem__(self, place: int | slice) -> str | Texts:
        """Return one text, or a view of some."""
        if isinstance(place, slice):
            return self.take(np.arange(len(self))[place])
        row = range(len(self))[place]  # IndexError where there is none
        return self._text(row if self.rows is None else int(self.rows[row]))

    def __iter__(self) -> Iterator[str]:
        """Yield the texts in order; where they lie is looked up for many at a time."""
        for first in range(0, len(self), TOGETHER):
            rows = np.arange(first, min(first + TOGETHER, len(self)))
            rows = rows if self.rows is None else self.rows[rows]
            starts = np.where(rows > 0, self.ends[np.maximum(rows, 1) - 1], 0)
            for start, end in zip(starts.tolist(), self.ends[rows].tolist(), strict=True):
                yield self._decoded(start, end)

    def __eq__(self, other: object) -> bool:
        """Whether the other is a sequence of the same texts."""
        if isinstance(other, str) or not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Return an array of all texts."""
        return np.array([*self], dtype or str)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """Return the first texts and how many there are."""
        return f"Texts({[*self[:3]]!r}, {len(self)} in all)"

    def _text(self, row: int) -> str:
        return self._decoded(int(self.ends[row - 1]) if row else 0, int(self.ends[row]))

    def _decoded(self, start: int, end: int) -> str:
        text: str = self.block[start:end].tobytes().decode(*CODEC)
        return text


def numbered(names: Iterable[str]) -> tuple[list[str], np.ndarray]:
    """Return the sorted distinct names, and for each of N names its place among them (N,) int64.

    >>> numbered(["b", "a", "b"])
    (['a', 'b'], array([1, 0, 1]))
    """
    places: dict[str, int] = {}
    found = np.fromiter((places.setdefault(name, len(places)) for name in names), np.int64)
    known = sorted(places)
    order = np.empty(len(known), np.int64)
    order[[places[name] for name in known]] = np.arange(len(known))
    return known, order[found]
