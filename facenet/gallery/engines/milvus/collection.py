"""The collection of a gallery's items: pages, chunks and counts of its rows. The first vectors make it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from facenet.gallery.engines.milvus.connection import PAGE, Connection, Row
from facenet.gallery.engines.milvus.schema import items_schema

BLOCK = 1000  # items of a request that carries texts and vectors


class Collection:
    """The items of one gallery by their numbers."""

    def __init__(self, connection: Connection) -> None:
        self.connection, self.name = connection, connection.address.name
        self._ready = False  # whether it is known to be there, and loaded

    def is_there(self) -> bool:
        """Tell whether there is a collection, and make it ready."""
        if not self._ready and self.connection.has(self.name):
            self.connection.make_ready(self.name)
            self._ready = True
        return self._ready

    def make(self, dim: int) -> None:
        """Make the collection, for vectors of width `dim`, if it is not there."""
        if not self.is_there():
            items_schema(self.connection, self.name, dim)

    def count(self, expression: str = "") -> int:
        """Return how many rows an expression admits."""
        return self.connection.count(self.name, expression) if self.is_there() else 0

    def stream(self, expression: str, fields: Sequence[str], page: int = PAGE) -> Iterator[list[Row]]:
        """Yield rows in pages, by number."""
        return self.connection.stream(self.name, expression, fields, page) if self.is_there() else iter(())

    def chunks(self, numbers: Sequence[int], fields: Sequence[str]) -> Iterator[list[Row]]:
        """Yield the rows of these numbers that are there, in any order."""
        for start in range(0, len(numbers) if self.is_there() else 0, BLOCK):
            chunk = [int(number) for number in numbers[start : start + BLOCK]]
            yield self.connection.rows(self.name, f"number in {chunk}", ["number", *fields], BLOCK)

    def next_rows(self, expression: str, fields: Sequence[str], most: int) -> list[Row]:
        """Return the first rows that an expression admits, by number; fewer than `most` are all."""
        found: list[Row] = []
        for page in self.stream(expression, fields, min(most, BLOCK)):
            found += page
            if len(found) >= most:
                break
        return found[:most]

    def names(self) -> dict[str, tuple[int, int]]:
        """Return how many faces each person has, and the number of the first; all names are read."""
        found: dict[str, tuple[int, int]] = {}
        for row in rows_of(self.stream("", ["identity"])):
            if row["identity"]:
                count, first = found.get(row["identity"], (0, row["number"]))
                found[row["identity"]] = count + 1, min(first, row["number"])
        return found


def rows_of(pages: Iterable[Iterable[Row]]) -> Iterator[Row]:
    """Yield the rows of pages."""
    for page in pages:
        yield from page
