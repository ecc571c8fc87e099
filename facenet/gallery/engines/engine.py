"""What a gallery asks of the engine that holds its items. A new engine implements the abstract methods of `Engine`.

An engine stores items with their unit vectors, and finds candidates. It returns distances that were computed in float32
from the stored vectors, by :func:`facenet.gallery.engines.exact.rescored`. So each engine gives the same verdicts.

Letters: N items, n of them, Q queries, k neighbours, D embedding width.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from facenet.errors import DataError, NotThere, StorageError, Taken
from facenet.gallery.engines.encoders import EncoderRules
from facenet.gallery.items import (
    AddResult,
    Block,
    Item,
    Labels,
    Person,
    Recipe,
    State,
    Texts,
    Where,
    digest,
    item_of,
    listed,
)
from facenet.types import Neighbours
from facenet.vectors import UNIT_TOLERANCE, square_norms

T = TypeVar("T")


class Engine(EncoderRules):
    """The items of one gallery, and their encoders.

    Methods are called inside :meth:`reading` or :meth:`writing`, unless they say not.

    Errors are those of `facenet.errors`, with one line that names `place`.
    """

    transactions = True  # whether a session sees one state, and a write is made whole or not at all

    def __init__(self, place: str | Path) -> None:
        """Remember the place, as messages name it."""
        self.place = place
        self._kept: tuple[str, dict[Hashable, Any]] = "", {}  # the token of a state, and what was found then

    # Sessions

    @abstractmethod
    def close(self, *, write_index: bool) -> None:
        """Close the connection; a folder writes its index before if that is due. Outside of a session."""

    @abstractmethod
    def state(self) -> State:
        """Return the present state."""

    def kept(self, what: Hashable, find: Callable[[], T]) -> T:
        """Return what `find` tells of the present state; it is asked once a state for each `what`.

        Inside a write it must not be called after the first change.
        """
        token = self.state().token
        if self._kept[0] != token:
            self._kept = token, {}
        found = self._kept[1]
        if what not in found:
            found[what] = find()
        return found[what]

    # Settings

    @abstractmethod
    def setting(self, key: str) -> str | None:
        """Return the text of a key; None if there is none."""

    @abstractmethod
    def put_setting(self, key: str, value: str) -> None:
        """Store a text inside a write."""

    @abstractmethod
    def forget_settings(self, prefix: str, before: float) -> None:
        """Delete the JSON texts whose key has that prefix and whose "time" is earlier, inside a write."""

    @abstractmethod
    def hold(self, name: str) -> None:
        """Let other writes that hold the same name wait until this one ends."""

    @abstractmethod
    def remembered(self, name: str) -> dict[str, Any] | None:
        """Return what was stored by :meth:`remember`; None if there is nothing, or it is damaged."""

    @abstractmethod
    def remember(self, name: str, content: Mapping[str, Any]) -> None:
        """Store plain values that can be found again; failing is silent. Not inside a write."""

    # Items

    @abstractmethod
    def admitted(self, where: Where) -> Any:
        """Return the items that a filter admits, in the engine's own form; None without a filter.

        Every key must equal its value, or one of a list. Keys are `COLUMNS` or names in the metadata. None means that
        the key is absent or null.

        Raises:
            ConfigError: as :func:`facenet.gallery.items.choices_of`.
        """

    @abstractmethod
    def size(self, admitted: Any = None) -> int:
        """Return how many items there are, or are `admitted`."""

    @abstractmethod
    def numbers_of_ids(self, ids: Sequence[str]) -> dict[str, int]:
        """Return the number of each id that is there."""

    @abstractmethod
    def numbers_of_identity(self, identity: str) -> list[int]:
        """Return the numbers of a person's items."""

    @abstractmethod
    def next_numbers(self, after: int, limit: int, identity: str | None) -> list[int]:
        """Return the next `limit` numbers above `after`, of all items or of one identity."""

    @abstractmethod
    def find(self, numbers: np.ndarray) -> dict[int, Item]:
        """Return the items of these numbers (n,) that are there.

        Raises:
            DataError: an item whose digest or content is wrong.
        """

    @abstractmethod
    def people(self, after: str, limit: int, prefix: str) -> list[Person]:
        """Return the next `limit` people whose names are above `after` and begin with `prefix`, by name."""

    @abstractmethod
    def identities(self) -> set[str]:
        """Return the names of the people, without "" (unknown)."""

    @abstractmethod
    def count_identities(self, most: int = -1) -> int:
        """Return how many people there are; with `most` counting may end there."""

    @abstractmethod
    def count_unknown(self) -> int:
        """Return how many items have no identity."""

    @abstractmethod
    def labels(self, admitted: Any = None) -> Labels:
        """Return whose face each item is, of all or of the `admitted`, by number."""

    @abstractmethod
    def vectors(self, numbers: np.ndarray) -> np.ndarray:
        """Return the stored vectors (n, D) of item numbers (n,), in that order.

        Raises:
            DataError: an item is not there, or a vector is not of that width or not of unit length.
        """

    @abstractmethod
    def vector_blocks(self) -> Iterator[Block]:
        """Yield numbers (n,) and vectors (n, D) of all items by number; no digest is checked."""

    @abstractmethod
    def item_blocks(self) -> Iterator[tuple[list[Item], np.ndarray]]:
        """Yield all items with their vectors (n, D), by number."""

    def listed(self, numbers: Sequence[int]) -> list[Item]:
        """Return the items of these numbers, in that order.

        Raises:
            NotThere: a number is -1, or its item was removed.
        """
        found = self.find(np.array(numbers, np.int64))
        absent = [number for number in numbers if number not in found]
        if absent:
            raise NotThere(f"{self.place}: no item number {absent[0]} (removed since the search?); search again")
        return [found[number] for number in numbers]

    def named(self, name: str) -> tuple[Item, np.ndarray]:
        """Return the item of an id, and its stored vector (D,).

        Raises:
            NotThere: no such id.
        """
        number = self.numbers_of_ids([name]).get(name)
        if number is None:
            raise NotThere(f"{self.place}: no id {name!r} in the gallery")
        return self.find(np.array([number]))[number], self.vectors(np.array([number]))[0]

    # Searching

    @abstractmethod
    def nearest(
        self, queries: np.ndarray, k: int, admitted: Any, *, rescore: bool | None, threads: int | None
    ) -> Neighbours:
        """Return the k nearest items of unit `queries` (Q, D), of all or of the `admitted`.

        With `rescore` sq_dist is that of the stored vectors. Without it an engine whose index knows distances may
        return those. None leaves it to the engine. Absent places hold row -1 and sq_dist inf.
        """

    @abstractmethod
    def within(self, queries: np.ndarray, max_sq_dist: float, admitted: Any) -> list[Neighbours]:
        """Return for each of Q queries every item with sq_dist <= max_sq_dist, nearest first; none is missing."""

    @abstractmethod
    def count_within(self, queries: np.ndarray, max_sq_dist: float, admitted: Any, most: int) -> int:
        """Return how many items are within a radius of the queries (Q, D), about; counting may end at `most`."""

    # Writing

    @abstractmethod
    def add(
        self, rows: Sequence[tuple[Texts, np.ndarray]], encoder: int, fingerprint: str, on_duplicate: str
    ) -> AddResult:
        """Add items of distinct ids with their unit vectors (D,) of one encoder; an id that is there as `Gallery.add`.

        Raises:
            Taken: an id that is there, with on_duplicate="error".
        """

    @abstractmethod
    def remove(self, numbers: Sequence[int]) -> int:
        """Remove items; returns how many were there."""

    @abstractmethod
    def rename(self, numbers: Sequence[int], identity: str) -> int:
        """Give these items that identity; they keep their numbers. Returns how many were there."""

    @abstractmethod
    def old_items(
        self, encoders: Sequence[int], after: int, most: int, among: Sequence[int] | None
    ) -> list[tuple[int, Texts]]:
        """Return number and texts of the next `most` items of these encoders above `after`, of all or `among` some.

        They stay as they are until the write ends.
        """

    @abstractmethod
    def count_old(self, encoders: Sequence[int]) -> tuple[int, int]:
        """Return how many items these encoders have, and of how many roots."""

    @abstractmethod
    def exchange(self, items: Sequence[tuple[int, Texts]], vectors: np.ndarray, encoder: int, fingerprint: str) -> None:
        """Give items (n) of :meth:`old_items` new vectors (n, D) of another encoder; they may get new numbers."""

    # The index, and care

    @abstractmethod
    def recipe(self) -> Recipe:
        """Return what the index should be."""

    @abstractmethod
    def configure(self, recipe: Recipe) -> None:
        """Store what the index should be; it is made before the next search. Outside of a session.

        Raises:
            ConfigError: a kind or factory string that the engine does not know, or a target outside (0, 1].
        """

    @abstractmethod
    def save_index(self, *, force: bool = False) -> bool:
        """Bring a folder's index up to date if that is due or by `force`; True if done. Outside of a session.

        A database makes an index that is due by `force` alone: that takes long, and rights.
        """

    def info(self) -> dict[str, Any]:
        """Return what :meth:`facenet.gallery.gallery.Gallery.info` says."""
        state, counts = self.state(), self.counts()
        return {
            "count": state.items,
            "identities": self.kept("people", self.count_identities),
            "dim": self.dim(),
            "fingerprint": self.first(),
            "fingerprints": {name: counts.get(number, 0) for name, number in self.encoders().items()},
            "generation": state.generation,
            **self.describe(),
        }

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return what there is to tell beside counts and encoders: kind and state of the index, bytes."""

    @abstractmethod
    def problems(self) -> Iterator[str]:
        """Read everything; yields what is wrong, one line each."""

    @abstractmethod
    def compact(self) -> dict[str, int]:
        """Give the space of removed items back; returns bytes before and after. Outside of a session."""

    # What is stored, checked

    def sealed(self, number: int, texts: Sequence[Any], fingerprint: Any, vector: bytes, seal: bytes) -> Item:
        """Return an item of its columns, and its vector in little-endian float32.

        Raises:
            StorageError: the digest does not fit, or the columns are none of an item.
        """
        if seal != digest((*texts, fingerprint), vector):
            raise self.damaged(f"the content of item {number}")
        try:
            return item_of(number, texts, fingerprint)
        except (TypeError, ValueError, RecursionError) as error:
            raise self.damaged(f"texts, metadata or encoder of item {number}") from error

    def sound(self, vectors: np.ndarray) -> np.ndarray:
        """Return stored vectors (n, D) themselves; StorageError if one is not of unit length."""
        if not (np.abs(square_norms(vectors) - 1) <= 3 * UNIT_TOLERANCE).all():
            raise self.damaged("a vector not of unit length")
        return vectors

    def damaged(self, why: str) -> DataError:
        """Return the error for items that contradict themselves."""
        return StorageError(f"{self.place}: damaged ({why}); see Gallery.check, restore a backup or index again")

    def taken(self, ids: Sequence[str]) -> Taken:
        """Return the error for ids that are there already."""
        return Taken(
            f"{self.place}: {listed(ids)} in the gallery already; nothing was added (on_duplicate=skip or replace)"
        )
