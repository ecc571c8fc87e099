"""The gallery: named faces, searched by squared L2, in a folder or in a database.

An engine holds the items and finds the nearest, see `facenet.gallery.engines`. In a folder SQLite holds the truth, and
FAISS is its cache: ``index.faiss`` is built again if it is lost, damaged or of another history.

Letters: N items, Q queries, k neighbours, D embedding width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from facenet.errors import DataError
from facenet.gallery.backfill import BATCH, BackfillResult, backfill_items
from facenet.gallery.editing import add_items, find_numbers, remove_items, rename_items
from facenet.gallery.engines.engine import Engine
from facenet.gallery.engines.places import open_engine
from facenet.gallery.faiss.kinds import LIMITS, Limits
from facenet.gallery.items import AddResult, Item, Person, Recipe, Where, least_one
from facenet.gallery.people import NEAREST
from facenet.gallery.search import Hit, Search
from facenet.gallery.strangers import find_threshold
from facenet.types import EmbeddingSet, Neighbours, Progress

if TYPE_CHECKING:
    from facenet.encoders.encoder import Encoder
    from facenet.evaluation.thresholds import SearchThreshold

__all__ = ["BATCH", "AddResult", "BackfillResult", "Gallery", "Hit", "Item", "Limits", "Person"]


class Gallery:
    """Named unit vectors of one encoder, and of encoders compatible with it, in a folder or a database.

    In a folder one process writes at a time, others wait for `timeout` seconds; any number read. Every method raises
    DataError with one line if the place is damaged, locked, full, read-only or not reached. Nothing is then changed,
    but that Milvus has no transactions: see docs/scaling.md.
    """

    def __init__(self, engine: Engine) -> None:
        """Use an engine that is open; :meth:`open` opens one."""
        self._engine = engine
        self._search = Search(engine)
        self.folder = engine.place

    @classmethod
    def open(
        cls,
        place: str | Path,
        *,
        create: bool = False,
        fingerprint: str | None = None,
        dim: int | None = None,
        compatible_with: Sequence[str] = (),
        timeout: float = 30.0,
        limits: Limits = LIMITS,
    ) -> Gallery:
        """Open the gallery in the folder or at the address `place`; with `create` make it if there is none.

        `fingerprint` and `dim` are set in a gallery that has none yet, else checked.

        Raises:
            DataError: no gallery there, a foreign or damaged file, another schema, encoder or width.
            ConfigError: the address of a service.
        """
        return cls(open_engine(place, timeout, create, (fingerprint, compatible_with, dim), limits))

    def __enter__(self) -> Gallery:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.close(write_index=kind is None)

    def close(self, *, write_index: bool = True) -> None:
        """Write ``index.faiss`` if that is due, and close; an index that can not be written is only logged."""
        self._engine.close(write_index=write_index)

    # What it is

    def __len__(self) -> int:
        """Return N."""
        with self._engine.reading():
            return self._engine.state().items

    @property
    def dim(self) -> int | None:
        """Embedding width D; None while no vector has come in and none was given."""
        with self._engine.reading():
            return self._engine.dim()

    @property
    def fingerprint(self) -> str | None:
        """The encoder that the gallery belongs to: the first that has vectors; None before the first."""
        with self._engine.reading():
            return self._engine.first()

    def identities(self) -> set[str]:
        """Return the names of the people, without "" (unknown)."""
        with self._engine.reading():
            return self._engine.identities()

    def info(self) -> dict[str, Any]:
        """Return what the gallery holds: items, identities, width, encoders, generation, state of the index, bytes."""
        with self._engine.reading():
            return self._engine.info()

    def check(self) -> list[str]:
        """Read everything and return what is wrong, one line each; [] for a sound gallery."""
        problems: list[str] = []
        try:
            with self._engine.reading():
                problems.extend(self._engine.problems())
        except DataError as error:
            problems.append(str(error))
        return problems

    # Searching

    def search(
        self,
        queries: EmbeddingSet,
        k: int,
        *,
        by_identity: bool = False,
        identity_by: str = NEAREST,
        where: Where = None,
        rescore: bool | None = None,
        threads: int | None = None,
    ) -> Neighbours:
        """Return the k nearest items of Q `queries`: item numbers for :meth:`items` as `rows` (Q, k), and sq_dist.

        With `by_identity` each identity answers once; an item without identity counts alone. It answers by its
        "nearest" item or, as `identity_by` says, by the "mean": the unit mean of its vectors, of each encoder apart.
        All means are then compared, sq_dist is that of the mean, and the row is the identity's first item.
        `where` admits only items whose id, identity, path or metadata field equals the value given for it.
        A flat index is exact. Other kinds find the share of true neighbours that :meth:`info` states, and never fewer
        than min(k, N). If they hold codes, sq_dist is that of the codes unless `rescore`d on the stored vectors (None:
        with an exact index, or if the tuning says so). Absent places (k > N, no items) hold row -1 and sq_dist inf.

        Raises:
            DataError: no queries, NaN, zero or not-unit vectors, another width, k < 1, or a foreign encoder.
            ConfigError: a filter that is none, or an unknown `identity_by`, or "mean" without `by_identity`.
        """
        people: dict[str, Any] = {"by_identity": by_identity, "identity_by": identity_by}
        return self._search.search(queries, k, **people, where=where, rescore=rescore, threads=threads)

    def within(self, queries: EmbeddingSet, max_sq_dist: float, *, where: Where = None) -> list[Neighbours]:
        """Return for each of Q `queries` every item with sq_dist <= max_sq_dist, nearest first.

        The arrays of each answer have shape (m,), m >= 0. Distances are exact and none is missing: an approximate index
        is not asked. Raises as :meth:`search`.
        """
        return self._search.within(queries, max_sq_dist, where)

    def count_within(self, queries: EmbeddingSet, max_sq_dist: float, *, where: Where = None, most: int) -> int:
        """Return how many answers :meth:`within` has for all queries, about; counting may end at `most`."""
        return self._search.count_within(queries, max_sq_dist, where, most)

    def hits(
        self,
        queries: EmbeddingSet,
        k: int,
        *,
        by_identity: bool = False,
        identity_by: str = NEAREST,
        where: Where = None,
        without: str = "",
    ) -> list[list[Hit]]:
        """As :meth:`search`, with names and exact distances: for each of Q queries at most k hits, from one state.

        With `by_identity` nobody answers by the item of the id `without`: a face of the gallery asks for itself.
        """
        people: dict[str, Any] = {"by_identity": by_identity, "identity_by": identity_by}
        return self._search.hits(queries, k, **people, where=where, without=without)

    def hits_within(
        self, queries: EmbeddingSet, max_sq_dist: float, *, where: Where = None, means: bool = False, without: str = ""
    ) -> list[list[Hit]]:
        """As :meth:`within`, with names; with `means` people's mean faces in place of faces, as `without` an item."""
        return self._search.hits_within(queries, max_sq_dist, where=where, means=means, without=without)

    def threshold(
        self,
        encoder: Encoder | None = None,
        *,
        fpir: float | None = None,
        far: float | None = None,
        threshold: float | None = None,
        where: Where = None,
        identity_by: str = NEAREST,
    ) -> SearchThreshold:
        """Return up to which sq_dist a face is a match: by default so that 5 % of strangers get any match.

        `fpir` is the share of strangers with a match in this gallery, `far` that of pairs of different people. The
        people of the gallery tell the threshold if they are 20 or more, else the calibration of `encoder` does. It
        belongs to searches with the same `identity_by`.

        Raises:
            ConfigError: several of fpir, far and threshold, or one out of range.
            DataError: the encoder is not compatible, has no calibration for `far`, or nothing tells the threshold.
        """
        with self._engine.reading():
            rates = {"fpir": fpir, "far": far, "threshold": threshold}
            return find_threshold(self._engine, encoder, rates, where, identity_by)

    # Items

    def items(self, rows: Sequence[int] | np.ndarray) -> list[Item]:
        """Return the items of the given numbers (n,), in that order.

        Raises:
            DataError: a number is -1, or its item was removed since.
        """
        with self._engine.reading():
            return self._engine.listed(np.asarray(rows, np.int64).ravel().tolist())

    def page(self, after: int = 0, limit: int = 100, *, identity: str | None = None) -> list[Item]:
        """Return the next `limit` items (all, or a person's) with a number above `after`, by number; [] at the end."""
        with self._engine.reading():
            return self._engine.listed(self._engine.next_numbers(after, least_one(limit), identity))

    def people(self, after: str = "", limit: int = 100, *, prefix: str = "") -> list[Person]:
        """Return the next `limit` people with a name above `after` that begins with `prefix`, by name; [] at the end.

        Names are in the order of their code points. Items without identity are nobody's.
        """
        with self._engine.reading():
            return self._engine.people(after, least_one(limit), prefix)

    def find(self, names: Iterable[str], *, by: str = "any") -> list[Item]:
        """Return the items, by number, whose id or identity is among `names`; `by` as in :meth:`remove`."""
        with self._engine.reading():
            return self._engine.listed(find_numbers(self._engine, list(names), by))

    def vectors(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the stored vectors (n, D) of the items of the given numbers (n,), in that order."""
        with self._engine.reading():
            return self._engine.vectors(np.asarray(rows, np.int64))

    def vector(self, name: str) -> tuple[Item, np.ndarray]:
        """Return the item of that id and its stored vector (D,); DataError if there is no such id."""
        with self._engine.reading():
            return self._engine.named(name)

    def blocks(self) -> Iterator[tuple[list[Item], np.ndarray]]:
        """Yield all items with their vectors (n, D) by number, block by block, from one state."""
        with self._engine.reading():
            yield from self._engine.item_blocks()

    # Changing

    def add(
        self,
        embeddings: EmbeddingSet,
        *,
        ids: Sequence[str] | None = None,
        metadata: Sequence[Mapping[str, Any]] | None = None,
        on_duplicate: str = "error",
        once: str = "",
    ) -> AddResult:
        """Add N items in one transaction: all of them or, on any error, none.

        `ids` default to the paths. `on_duplicate` says what happens to an id that is there already, or comes twice:
        "error", "skip" (the first stays) or "replace" (the last stays). Within 24 hours a second add with the same
        name `once` changes nothing and returns what the first returned, also in another process or after a crash.

        Raises:
            DataError: no items, unusable vectors or metadata, duplicate ids, a foreign encoder, other content once.
            ConfigError: unknown `on_duplicate`.
        """
        return add_items(self._engine, embeddings, ids, metadata, on_duplicate, once)

    def backfill(
        self,
        embeddings: EmbeddingSet,
        *,
        batch: int = BATCH,
        progress: Progress | None = None,
        numbers: Sequence[int] | None = None,
    ) -> BackfillResult:
        """Replace the vectors of old encoders by those of the N `embeddings` of the same images.

        Old are the encoders that the embeddings are compatible with. An item's image is the one whose path, without its
        file type, is that of the item or else the item's id. In a gallery of several roots the roots must be equal too.
        Id, identity, path and metadata stay. `progress` is called with (items looked at, items of old encoders).
        With `numbers` only items of these numbers are looked at.

        Raises:
            DataError: broken or not-unit vectors, another width, an image twice, an encoder that is not compatible, or
                embeddings of none of the gallery's images.
            ConfigError: `batch` < 1.
        """
        return backfill_items(self._engine, embeddings, batch, progress, numbers)

    def remove(self, names: str | Iterable[str], *, by: str = "any") -> int:
        """Remove items by id or, all of a person's, by identity, in one transaction; returns how many.

        `by` is "id", "identity" or "any" (whichever of the two the name is).

        Raises:
            DataError: a name that is neither, or with by="any" both; nothing is then removed.
            ConfigError: unknown `by`.
        """
        return remove_items(self._engine, names, by)

    def rename(self, names: str | Iterable[str], identity: str, *, by: str = "any") -> int:
        """Set the identity of items, named as in :meth:`remove`, in one transaction; returns how many.

        The identity of a person who is there joins the items to that person. "" makes their person unknown. Items keep
        their numbers, so the index stays as it is. Raises as :meth:`remove`, and for no text to store.
        """
        return rename_items(self._engine, names, identity, by)

    @property
    def recipe(self) -> Recipe:
        """What :meth:`configure` chose."""
        with self._engine.reading():
            return self._engine.recipe()

    def configure(self, kind: str = "auto", *, factory: str = "", recall_target: float = 0.99) -> None:
        """Choose the kind of index, or a FAISS factory string; the next search, or closing, builds it.

        Kinds: flat (exact), hnsw, ivf_sq8 (D bytes and a little an item), ivf_pq (D / 4 bytes), auto (flat to 100,000
        items, then ivf_sq8); all are exact below 10,000 items. `recall_target` is the share of nearest neighbours to be
        found, measured on items that lie beside the index. An index that does not surely reach it is not used: a
        warning says so, and all items are compared. A factory string is tried in a process of its own first.

        Raises:
            ConfigError: an unknown kind or factory string, or a target outside (0, 1].
        """
        self._engine.configure(Recipe(kind, factory, recall_target))

    def save_cache(self, *, force: bool = False) -> bool:
        """Write ``index.faiss`` if it is missing, unusable or more than 1 % behind (or `force`); True if written.

        In a database `force` makes the index that :meth:`configure` chose, if it is due.
        """
        return self._engine.save_index(force=force)

    def compact(self) -> dict[str, int]:
        """Forget removed items, give their space back and build the index anew; returns bytes before and after.

        Needs as much free space as the gallery takes. Other processes may search meanwhile, and wait to write.
        """
        return self._engine.compact()
