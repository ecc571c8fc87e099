"""A gallery that is asked over HTTP: `connect` returns an object with the methods of `Gallery`. Needs no extra.

Letters: N items, Q queries, k neighbours, D embedding width.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from facenet.errors import ConfigError, DataError, NotThere
from facenet.evaluation.thresholds import Basis, SearchThreshold
from facenet.gallery.gallery import BATCH, AddResult, BackfillResult, Item, Person
from facenet.gallery.items import Recipe, Where
from facenet.gallery.people import NEAREST
from facenet.gallery.search import Hit
from facenet.service.sending import PAGE, Limits, add_items, backfill_items, encoder_of
from facenet.service.wire import Wire
from facenet.types import EmbeddingSet, Neighbours, Progress
from facenet.vectors import unit_rows

if TYPE_CHECKING:
    from facenet.encoders.encoder import Encoder

NUMBERS, NAMES = 500, 10_000  # numbers of an address, names of a request


def connect(url: str, *, key: str | None = None, timeout: float = 30.0) -> RemoteGallery:
    """Return the gallery of a running ``facenet serve``, which is used as :class:`facenet.gallery.gallery.Gallery` is.

    `key` defaults to the environment variable FACENET_KEY. A request takes `timeout` seconds at most; a service that is
    busy is waited for.

    Raises:
        ConfigError: no address of a service.
        DataError: nothing answers there, or it is no service, or the key is refused.
    """
    return RemoteGallery(Wire(url, os.environ.get("FACENET_KEY") if key is None else key, timeout))


class RemoteGallery:
    """The gallery of a service; any number of threads may use it.

    Results and exceptions are those of :class:`facenet.gallery.gallery.Gallery`, with these differences. A service has
    limits: of k, and of the names of a removal. Items have no `root`. Vectors need a key that may write.
    """

    def __init__(self, wire: Wire) -> None:
        """Ask the service for its limits; :func:`connect` makes the wire."""
        self.wire = wire
        self.folder = wire.url
        try:
            limits = self._about()["limits"]
        except BaseException:
            wire.close()
            raise
        self.limits = Limits(int(limits["vectors"]), int(0.8 * limits["bytes"]))

    def __enter__(self) -> RemoteGallery:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.close()

    def close(self, *, write_index: bool = True) -> None:
        """Close the connections; the service writes its index by itself."""
        self.wire.close()

    # What it is

    def __len__(self) -> int:
        """Return N."""
        return int(self.info()["count"])

    @property
    def dim(self) -> int | None:
        """Embedding width D; None while no vector has come in and none was given."""
        return self.info()["dim"]

    @property
    def fingerprint(self) -> str | None:
        """The encoder that the gallery belongs to; None before the first."""
        return self.info()["fingerprint"]

    def identities(self) -> set[str]:
        """Return the names of the people in the gallery, without "" (unknown)."""
        found: set[str] = set()
        after = ""
        while people := self.people(after, PAGE):
            found.update(person.identity for person in people)
            after = people[-1].identity
        return found

    def info(self) -> dict[str, Any]:
        """Return what the gallery holds; see :meth:`facenet.gallery.gallery.Gallery.info`."""
        return dict(self._about()["gallery"])

    def check(self) -> list[str]:
        """Let the service read everything and return what is wrong, one line each; [] for a sound gallery."""
        return list(self.wire.get("/v1/check")["problems"])

    def _about(self) -> dict[str, Any]:
        about: dict[str, Any] = self.wire.get("/v1/info")
        if not {"gallery", "limits"} <= about.keys():
            raise DataError(f"{self.folder}: its answer has no gallery; is the address that of facenet serve?")
        return about

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
        """Return the k nearest items as arrays (Q, k); see :meth:`facenet.gallery.gallery.Gallery.search`.

        Distances are exact, also if the index holds codes. The service chooses its `threads`.

        Raises:
            ConfigError: as there, or `rescore` is False.
        """
        if rescore is False:
            raise ConfigError(f"rescore: {self.folder} gives exact distances only; leave rescore out")
        found = self.hits(queries, k, by_identity=by_identity, identity_by=identity_by, where=where)
        best = Neighbours(np.full((len(found), k), -1, np.int64), np.full((len(found), k), np.inf, np.float32))
        for query, hits in enumerate(found):
            best.rows[query, : len(hits)] = [hit.number for hit in hits]
            best.sq_dist[query, : len(hits)] = [hit.sq_dist for hit in hits]
        return best

    def within(self, queries: EmbeddingSet, max_sq_dist: float, *, where: Where = None) -> list[Neighbours]:
        """Return every item within a radius; see :meth:`facenet.gallery.gallery.Gallery.within`."""
        return [
            Neighbours(
                np.array([hit.number for hit in hits], np.int64), np.array([hit.sq_dist for hit in hits], np.float32)
            )
            for hits in self.hits_within(queries, max_sq_dist, where=where)
        ]

    def count_within(self, queries: EmbeddingSet, max_sq_dist: float, *, where: Where = None, most: int) -> int:
        """Return how many answers :meth:`within` has, at most `most`."""
        return min(most, sum(len(found.rows) for found in self.within(queries, max_sq_dist, where=where)))

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
        """Return the k nearest items with names; see :meth:`facenet.gallery.gallery.Gallery.hits`."""
        people = {"by_identity": by_identity, "identity_by": identity_by}
        return self._hits(queries, {"k": k, **people, "where": where, "without": without})

    def hits_within(
        self, queries: EmbeddingSet, max_sq_dist: float, *, where: Where = None, means: bool = False, without: str = ""
    ) -> list[list[Hit]]:
        """Return all items within a radius; see :meth:`facenet.gallery.gallery.Gallery.hits_within`."""
        if not max_sq_dist >= 0:
            raise DataError(f"max_sq_dist: expected at least 0, got {max_sq_dist}")
        most = min(float(max_sq_dist), 5.0)  # no two unit vectors are farther apart, and JSON has no infinity
        return self._hits(queries, {"max_sq_dist": most, "where": where, "means": means, "without": without})

    def _hits(self, queries: EmbeddingSet, how: Mapping[str, Any]) -> list[list[Hit]]:
        vectors = unit_rows(queries.vectors, "queries")
        found: list[list[Hit]] = []
        for rows in self.limits.parts(vectors):
            asked = {**encoder_of(queries), "vectors": vectors[rows].tolist(), **how}
            answers = self.wire.post("/v1/vectors/search", asked)["hits"]
            found += [[Hit(rank, root="", **hit) for rank, hit in enumerate(hits, 1)] for hits in answers]
        return found

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
        """Return up to which sq_dist a face is a match; see :meth:`facenet.gallery.gallery.Gallery.threshold`.

        The service is sent what the record of `encoder` says of its thresholds.
        """
        record: dict[str, Any] = {}
        if encoder is not None:
            record = {
                "fingerprint": encoder.fingerprint,
                "compatible_with": list(encoder.compatible_with),
                "thresholds": dict(encoder.thresholds),
                "with_older": {name: dict(known) for name, known in encoder.with_older.items()},
            }
        rates = {"fpir": fpir, "far": far, "threshold": threshold}
        told = self.wire.post("/v1/vectors/threshold", {**record, **rates, "where": where, "identity_by": identity_by})
        return _threshold(told)

    # Items

    def items(self, rows: Sequence[int] | np.ndarray) -> list[Item]:
        """Return the items of the given numbers (n,), in that order; see :meth:`Gallery.items`."""
        return [_item(told) for told in self._told(rows, vector=False)]

    def page(self, after: int = 0, limit: int = 100, *, identity: str | None = None) -> list[Item]:
        """Return the next `limit` items with a number above `after`; see :meth:`Gallery.page`."""
        return [_item(told) for told in self._pages("items", str(max(after, 0)), limit, identity=identity)]

    def people(self, after: str = "", limit: int = 100, *, prefix: str = "") -> list[Person]:
        """Return the next `limit` people with a name above `after`; see :meth:`Gallery.people`."""
        found = self._pages("identities", after, limit, prefix=prefix)
        return [Person(*(told[name] for name in Person._fields)) for told in found]

    def find(self, names: Iterable[str], *, by: str = "any") -> list[Item]:
        """Return the items, by number, whose id or identity is among `names`; see :meth:`Gallery.find`."""
        asked, found = list(names), {}
        for start in range(0, max(len(asked), 1), NAMES):
            told = self.wire.post("/v1/find", {"names": asked[start : start + NAMES], "by": by})["items"]
            found.update({one["number"]: _item(one) for one in told})
        return [found[number] for number in sorted(found)]

    def vectors(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the stored vectors (n, D) of the items of the given numbers (n,), in that order."""
        told = self._told(rows, vector=True)
        return np.array([one["vector"] for one in told], np.float32).reshape(len(told), -1 if told else self.dim or 0)

    def vector(self, name: str) -> tuple[Item, np.ndarray]:
        """Return the item of that id and its stored vector (D,); see :meth:`Gallery.vector`."""
        told = self.wire.post("/v1/find", {"names": [name], "by": "id", "vector": True})["items"]
        if not told:
            raise NotThere(f"{self.folder}: no id {name!r} in the gallery")
        return _item(told[0]), np.array(told[0]["vector"], np.float32)

    def blocks(self) -> Iterator[tuple[list[Item], np.ndarray]]:
        """Yield all items with their vectors (n, D) by number, block by block.

        Each block is of one state. Items that come or go meanwhile may be missing.
        """
        after: str | None = ""
        while after is not None:
            page = self.wire.get("/v1/items", cursor=after, limit=PAGE, vector=True)
            if page["items"]:
                vectors = np.array([told["vector"] for told in page["items"]], np.float32)
                yield [_item(told) for told in page["items"]], vectors
            after = page["next"]

    def _told(self, rows: Sequence[int] | np.ndarray, *, vector: bool) -> list[dict[str, Any]]:
        numbers = np.asarray(rows, np.int64).ravel().tolist()
        parts = [numbers[start : start + NUMBERS] for start in range(0, len(numbers), NUMBERS)]
        asked = {"vector": True} if vector else {}
        return [told for part in parts for told in self.wire.get("/v1/items", number=part, **asked)["items"]]

    def _pages(self, what: str, after: str, limit: int, **only: str | None) -> list[dict[str, Any]]:
        if limit < 1:
            raise ConfigError(f"limit: expected at least 1, got {limit}")
        found: list[dict[str, Any]] = []
        cursor: str | None = after
        while cursor is not None and len(found) < limit:
            page = self.wire.get(f"/v1/{what}", cursor=cursor, limit=min(limit - len(found), PAGE), **only)
            found += page[what]
            cursor = page["next"]
        return found

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
        """Add N items; see :meth:`facenet.gallery.gallery.Gallery.add`.

        As many as fit into one request are one transaction. If more are given, all ids are looked up first. A request
        whose answer is lost is repeated, and adds nothing twice.
        """
        return add_items(self, embeddings, ids, metadata, on_duplicate, once)

    def backfill(
        self,
        embeddings: EmbeddingSet,
        *,
        batch: int = BATCH,
        progress: Progress | None = None,
        numbers: Sequence[int] | None = None,
    ) -> BackfillResult:
        """Replace the vectors of old encoders; see :meth:`facenet.gallery.gallery.Gallery.backfill`.

        A batch of items is read from the service, and the embeddings of their images are sent.
        """
        return backfill_items(self, embeddings, batch, progress, numbers)

    def remove(self, names: str | Iterable[str], *, by: str = "any") -> int:
        """Remove items by id or identity, in one transaction; see :meth:`facenet.gallery.gallery.Gallery.remove`."""
        asked = {"names": [names] if isinstance(names, str) else list(names), "by": by}
        return int(self.wire.post("/v1/remove", asked, safe=False)["removed"])

    def rename(self, names: str | Iterable[str], identity: str, *, by: str = "any") -> int:
        """Set the identity of items, in one transaction; see :meth:`facenet.gallery.gallery.Gallery.rename`."""
        asked = {"names": [names] if isinstance(names, str) else list(names), "by": by, "to": identity}
        return int(self.wire.post("/v1/rename", asked, safe=False)["renamed"])

    # The index

    @property
    def recipe(self) -> Recipe:
        """Raise ConfigError: the index is chosen on the machine of the service."""
        self._there("kind=KIND")

    def configure(self, kind: str = "auto", *, factory: str = "", recall_target: float = 0.99) -> None:
        """Raise ConfigError: the index is chosen on the machine of the service."""
        self._there("kind=KIND")

    def save_cache(self, *, force: bool = False) -> bool:
        """Return False: the service writes its index when that is due; ConfigError if it is to be forced."""
        if force:
            self._there("compact=true")
        return False

    def compact(self) -> dict[str, int]:
        """Raise ConfigError: space is given back on the machine of the service."""
        self._there("compact=true")

    def _there(self, what: str) -> NoReturn:
        raise ConfigError(f"{self.folder}: the index is the service's; run there: facenet index gallery=FOLDER {what}")


def _item(told: Mapping[str, Any]) -> Item:
    return Item._make("" if name == "root" else told[name] for name in Item._fields)


def _threshold(told: Mapping[str, Any]) -> SearchThreshold:
    basis = told["basis"]
    return SearchThreshold(**{**told, "basis": basis and Basis.from_plain(basis)})
