"""A gallery in a folder: SQLite holds the truth, FAISS is its cache. One process writes at a time, any number read.

Letters: N items, n of them, Q queries, k neighbours, D embedding width.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from facenet.errors import DataError
from facenet.files import read_sealed, write_sealed
from facenet.gallery.engines.engine import Engine
from facenet.gallery.engines.exact import SLACK, fetched, inside, rescored
from facenet.gallery.faiss.cache import Cache
from facenet.gallery.faiss.file import INDEX
from facenet.gallery.faiss.kinds import LIMITS, Limits, check
from facenet.gallery.faiss.layers import using_threads
from facenet.gallery.faiss.scan import nearest, within
from facenet.gallery.items import AddResult, Block, Item, Labels, Person, Recipe, State, Texts, Where
from facenet.gallery.sql.database import TRUTH
from facenet.gallery.sql.truth import SCHEMA, Truth
from facenet.gallery.sql.writes import Write
from facenet.types import Neighbours

log = logging.getLogger(__name__)


class Folder(Engine):
    """``items.sqlite`` and ``index.faiss`` in a folder; `admitted` items are sorted numbers (n,)."""

    def __init__(self, folder: Path, timeout: float, *, create: bool, limits: Limits = LIMITS) -> None:
        """Open the folder; see :meth:`facenet.gallery.gallery.Gallery.open`."""
        super().__init__(folder)
        self.folder = folder
        self.truth = Truth(folder, timeout, create=create)
        self.cache = Cache(self.truth, limits)
        self._write: tuple[Write, int] | None = None  # the write before the present one, and items that came since

    # Sessions

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        with self.truth.reading():
            yield

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        with self.truth.writing():
            self._write = None
            yield
            self._record()

    def _changes(self, more: int) -> int:
        """Note in the present write that so many items more are there; returns the write's generation."""
        before, so_far = self._write or (self.truth.writes.last(), 0)
        self._write = before, so_far + more
        return before.generation + 1

    def _record(self) -> None:
        if self._write is not None:
            self.truth.writes.record(*self._write)

    def close(self, *, write_index: bool) -> None:
        try:
            if write_index and (self.truth.wrote or self.cache.layers is not None):
                self.save_index()
        except DataError as error:
            log.warning("%s; the next search builds the index from %s again", error, TRUTH)
        finally:
            self.truth.wrote, self.cache.layers = False, None
            self.truth.close()

    def state(self) -> State:
        last = self.truth.writes.last()
        return State(last.token, last.items, last.generation)

    # Encoders and settings

    def dim(self) -> int | None:
        return self.truth.encoders.dim()

    def encoders(self) -> dict[str, int]:
        return self.truth.encoders.numbers()

    def counts(self, admitted: Any = None) -> dict[int, int]:
        known = self.encoders().values()
        if admitted is not None:
            return {number: self.truth.items.count_of_encoder(number, admitted) for number in known}
        if len(known) == 1:
            return dict.fromkeys(known, self.state().items)
        return self.kept("encoders", self.truth.encoders.counts)

    def admit(self, fingerprint: str | None, compatible_with: Sequence[str], dim: int | None) -> int:
        self.check(fingerprint, compatible_with, dim)
        if dim and not self.dim():
            self.put_setting("dim", str(dim))
        return self.truth.encoders.number_of(fingerprint) if fingerprint else 0

    def setting(self, key: str) -> str | None:
        return self.truth.settings.get(key)

    def put_setting(self, key: str, value: str) -> None:
        self.truth.settings.put(key, value)

    def forget_settings(self, prefix: str, before: float) -> None:
        self.truth.settings.forget(prefix, before)

    def hold(self, name: str) -> None:
        """Do nothing: there is one writer."""

    def remembered(self, name: str) -> dict[str, Any] | None:
        try:
            return read_sealed(self.folder / f"{name}.json")
        except DataError:
            return None

    def remember(self, name: str, content: Mapping[str, Any]) -> None:
        with contextlib.suppress(DataError, OSError):  # a gallery that may only be read
            write_sealed(self.folder / f"{name}.json", content)

    # Items

    def admitted(self, where: Where) -> np.ndarray | None:
        return self.truth.items.matching(where)

    def size(self, admitted: Any = None) -> int:
        return self.state().items if admitted is None else len(admitted)

    def numbers_of_ids(self, ids: Sequence[str]) -> dict[str, int]:
        return self.truth.items.numbers_of_ids(ids)

    def numbers_of_identity(self, identity: str) -> list[int]:
        return self.truth.items.numbers_of_identity(identity)

    def next_numbers(self, after: int, limit: int, identity: str | None) -> list[int]:
        return self.truth.items.next_numbers(after, limit, identity)

    def find(self, numbers: np.ndarray) -> dict[int, Item]:
        return self.truth.items.find(numbers)

    def people(self, after: str, limit: int, prefix: str) -> list[Person]:
        return self.truth.items.people(after, limit, prefix)

    def identities(self) -> set[str]:
        return self.truth.items.identities()

    def count_identities(self, most: int = -1) -> int:
        return self.truth.items.count_identities(most)

    def count_unknown(self) -> int:
        return self.truth.items.count_unknown()

    def labels(self, admitted: Any = None) -> Labels:
        found = self.truth.items.labels()
        if admitted is None:
            return found
        there = np.isin(np.array(found.numbers, np.int64), admitted).tolist()
        numbers, names, encoders = (list(itertools.compress(column, there)) for column in found)
        return Labels(numbers, names, encoders)  # type: ignore[arg-type]

    def vectors(self, numbers: np.ndarray) -> np.ndarray:
        return self.truth.items.vectors(numbers, self.dim() or 0)

    def vector_blocks(self) -> Iterator[Block]:
        return self.truth.items.unsealed_blocks(self.dim() or 0)

    def item_blocks(self) -> Iterator[tuple[list[Item], np.ndarray]]:
        return self.truth.items.blocks(self.dim() or 0)

    # Searching

    def nearest(
        self, queries: np.ndarray, k: int, admitted: Any, *, rescore: bool | None, threads: int | None
    ) -> Neighbours:
        layers = self.cache.current(queries.shape[1])
        total, flat = self.size(admitted), layers.base.factory == "Flat"
        fetch = layers.base.fetch if rescore in (None, True) else 1
        exactly = flat or fetch > 1 if rescore is None else rescore
        few = admitted is not None and total <= self.cache.limits.filtered
        if few or (not flat and k * fetch >= total):
            return self._nearest_stored(queries, k, admitted, threads)
        if exactly:
            candidates = layers.candidates(queries, k, fetch=fetch, threads=threads, among=admitted)
            found = Neighbours(*(part[:, :k] for part in rescored(queries, candidates.rows, self.vectors)))
        else:
            found = layers.search(queries, k, threads=threads, among=admitted)
        short = (found.rows >= 0).sum(1) < min(k, total)
        if short.any():  # the lists or nodes that were looked at held fewer than k
            rest = self._nearest_stored(queries[short], k, admitted, threads)
            found.rows[short], found.sq_dist[short] = rest.rows, rest.sq_dist
        return found

    def within(self, queries: np.ndarray, max_sq_dist: float, admitted: Any) -> list[Neighbours]:
        found = self._rows_within(queries, max_sq_dist + SLACK, admitted)
        pairs = zip(queries, found, strict=True)
        return [inside(query, fetched(rows, self.vectors), max_sq_dist) for query, rows in pairs]

    def count_within(self, queries: np.ndarray, max_sq_dist: float, admitted: Any, most: int) -> int:
        return sum(map(len, self._rows_within(queries, max_sq_dist, admitted)))

    def _rows_within(self, queries: np.ndarray, max_sq_dist: float, admitted: Any) -> list[np.ndarray]:
        """Return the numbers (m,) of the items within a radius by the distances of FAISS, for each of Q queries."""
        layers = self.cache.current(queries.shape[1])
        if layers.base.factory != "Flat":
            return [answer.rows for answer in within(self._stored(admitted), queries, max_sq_dist)]
        found = [answer.rows for answer in layers.within(queries, max_sq_dist)]
        return found if admitted is None else [rows[np.isin(rows, admitted)] for rows in found]

    def _nearest_stored(self, queries: np.ndarray, k: int, admitted: Any, threads: int | None) -> Neighbours:
        """Return the k nearest of all items, or of some, by their stored vectors."""
        with using_threads(threads):
            rows = nearest(self._stored(admitted), queries, k).rows
        return rescored(queries, rows, self.vectors)

    def _stored(self, admitted: Any) -> Iterable[Block]:
        """Return numbers and stored vectors of all items, or of some, in blocks."""
        return self.vector_blocks() if admitted is None else fetched(admitted, self.vectors)

    # Writing

    def add(
        self, rows: Sequence[tuple[Texts, np.ndarray]], encoder: int, fingerprint: str, on_duplicate: str
    ) -> AddResult:
        known = self.numbers_of_ids([texts[0] for texts, _ in rows])
        if known and on_duplicate == "error":
            raise self.taken(list(known))
        kept = [row for row in rows if row[0][0] not in known] if on_duplicate == "skip" else rows
        replaced = self.remove(list(known.values())) if known and on_duplicate == "replace" else 0
        if kept:
            self.truth.items.add(kept, encoder, fingerprint)
            self._changes(len(kept))
        return AddResult(len(kept) - replaced, replaced, len(rows) - len(kept))

    def remove(self, numbers: Sequence[int]) -> int:
        if not numbers:
            return 0
        return self.truth.items.remove(numbers, self._changes(-len(numbers)))

    def rename(self, numbers: Sequence[int], identity: str) -> int:
        if numbers:
            self.truth.items.rename(numbers, identity)
            self._changes(0)
        return len(numbers)

    def old_items(
        self, encoders: Sequence[int], after: int, most: int, among: Sequence[int] | None
    ) -> list[tuple[int, Texts]]:
        return self.truth.items.texts_of(encoders, after, most, among)

    def count_old(self, encoders: Sequence[int]) -> tuple[int, int]:
        return self.truth.items.count_of(encoders)

    def exchange(self, items: Sequence[tuple[int, Texts]], vectors: np.ndarray, encoder: int, fingerprint: str) -> None:
        """The items get new numbers, because the index knows vectors by number."""
        self.remove([number for number, _ in items])
        self.truth.items.add(
            ((texts, vector) for (_, texts), vector in zip(items, vectors, strict=True)), encoder, fingerprint
        )
        self._changes(len(items))

    # The index, and care

    def recipe(self) -> Recipe:
        return self.cache.wanted()

    def configure(self, recipe: Recipe) -> None:
        with self.reading():
            dim = self.dim()
        check(recipe, dim)
        with self.truth.writing():
            self.cache.want(recipe)

    def save_index(self, *, force: bool = False) -> bool:
        return self.cache.save(force=force)

    def describe(self) -> dict[str, Any]:
        return {"schema": SCHEMA, **self.cache.info(), "bytes": self._sizes()}

    def problems(self) -> Iterator[str]:
        yield from self.truth.problems()
        dim = self.dim()
        yield from self.cache.problems(dim) if dim else []

    def compact(self) -> dict[str, int]:
        before = sum(self._sizes().values())
        self.truth.compact()
        self.cache.forget()
        self.save_index(force=True)
        return {"bytes_before": before, "bytes_after": sum(self._sizes().values())}

    def _sizes(self) -> dict[str, int]:
        """Return the bytes of the items and of the index; 0 for a missing file."""
        paths = {name: self.folder / name for name in (TRUTH, INDEX)}
        return {name: path.stat().st_size if path.is_file() else 0 for name, path in paths.items()}
