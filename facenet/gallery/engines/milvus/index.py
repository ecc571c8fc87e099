"""Searches in Milvus: every vector compared, or an index that Milvus builds, tuned to a recall.

The server finds candidates. Their distances are computed again here, in float32, from the vectors that come with them.

Letters: Q queries, k neighbours, m candidates, D embedding width.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from facenet.gallery.engines.exact import SLACK, absent, distances, inside, ranked
from facenet.gallery.engines.tuning import NEVER, Tuned, kind_for, tune
from facenet.gallery.faiss.scan import nearest
from facenet.gallery.items import Block
from facenet.types import Neighbours

if TYPE_CHECKING:
    from facenet.gallery.engines.milvus.engine import Milvus

KINDS = {
    "auto": "flat to 20,000 faces, then hnsw",
    "flat": "every face is compared",
    "hnsw": "a graph in memory",
    "ivf": "inverted lists in memory",
    "diskann": "a graph on the disk of the query nodes",
}
MORE = 8  # candidates beyond k, whose distances may differ from the server's in the last digits
MOST = 16_384  # answers of a search
ASKED = 64  # queries of a request


class Kind(NamedTuple):
    """An index of Milvus: its name there, how it is built, the parameter of a search, and values to try."""

    name: str
    build: dict[str, int]
    parameter: str
    values: tuple[int, ...]


FLAT = Kind("FLAT", {}, "", ())
BUILT = {
    "hnsw": Kind("HNSW", {"M": 16, "efConstruction": 200}, "ef", (32, 64, 100, 150, 250, 400, 800)),
    "ivf": Kind("IVF_FLAT", {"nlist": 1024}, "nprobe", (4, 8, 16, 32, 64, 128, 256, 512)),
    "diskann": Kind("DISKANN", {}, "search_list", (20, 40, 80, 160, 320, 640)),
}


class Index:
    """The index of one gallery's vectors."""

    def __init__(self, engine: Milvus) -> None:
        self.engine = engine
        self.connection = engine.connection

    # Searching

    def nearest(self, queries: np.ndarray, k: int, expression: str) -> Neighbours:
        """Return the k nearest items (Q, k) of those that an expression admits."""
        if not self.engine.collection.is_there():
            return absent(len(queries), k)
        found = self._candidates(queries, k, expression, self.engine.tuned().parameter)
        short = np.array([len(numbers) < k for numbers, _ in found], bool)
        if short.any() and min(len(one[0]) for one in found) < min(k, self.engine.size(expression)):
            rows = self._scanned(queries[short], k, expression)
            for place, one in zip(np.flatnonzero(short).tolist(), rows, strict=True):
                found[place] = one
        return ranked(queries, found, k)

    def within(self, queries: np.ndarray, max_sq_dist: float, expression: str) -> list[Neighbours]:
        """Return for each of Q queries every item with sq_dist <= max_sq_dist, nearest first.

        An index of graphs or lists is not asked, and more answers than Milvus gives are not: all vectors are read.
        """
        if not self.engine.collection.is_there():
            return [Neighbours(*(part[0] for part in absent(1, 0))) for _ in queries]
        return [self._within(query, max_sq_dist, expression) for query in queries]

    def _within(self, query: np.ndarray, max_sq_dist: float, expression: str) -> Neighbours:
        if self._kind() is None:
            block = self.engine.search([query], MOST, expression, radius_of(max_sq_dist))[0]
            if len(block[0]) < MOST:
                return inside(query, [block], max_sq_dist)
        return inside(query, self._blocks(expression), max_sq_dist)

    def count_within(self, queries: np.ndarray, max_sq_dist: float, expression: str, most: int) -> int:
        """Return how many items are within a radius of the queries; counting ends when it reaches `most`."""
        count = 0
        for query in queries if self.engine.collection.is_there() else []:
            if self._kind() is None:
                radius = radius_of(max_sq_dist)
                limit, name = min(MOST, max(most - count, 1)), self.engine.collection.name
                count += len(self.connection.search(name, [query], limit, expression, radius, [])[0])
                continue
            for _, vectors in self._blocks(expression):
                count += int((distances(query, vectors) <= max_sq_dist).sum())
                if count >= most:
                    return count
        return count

    def _candidates(self, queries: np.ndarray, most: int, expression: str, parameter: int) -> list[Block]:
        """Return numbers (m,) and vectors (m, D) of a few more than the `most` nearest items, for each of Q queries."""
        kind = self._kind()
        if most + MORE > MOST:
            return self._scanned(queries, most, expression)
        params = {kind.parameter: max(parameter, most + MORE)} if kind else {}
        found: list[Block] = []
        for start in range(0, len(queries), ASKED):
            asked = list(queries[start : start + ASKED])
            found += self.engine.search(asked, most + MORE, expression, params)
        return found

    def _scanned(self, queries: np.ndarray, most: int, expression: str) -> list[Block]:
        """Return the `most` nearest of all items that an expression admits, which are read."""
        rows = nearest(self._blocks(expression), queries, most).rows
        return [(one[one >= 0], self.engine.vectors(one[one >= 0])) for one in rows]

    def _blocks(self, expression: str) -> Iterator[Block]:
        return map(self.engine.block, self.engine.collection.stream(expression, ["vector"]))

    # Building

    def _kind(self) -> Kind | None:
        """Return the kind that is built; None if it is flat."""
        return BUILT.get(self.engine.setting("built") or "flat")

    def build(self) -> bool:
        """Make and tune the index if it is due; True if done. Searches wait or fail while Milvus loads it."""
        engine, there = self.engine, self.engine.collection.is_there()
        if there:
            self.connection.make_ready(engine.collection.name)
        count = engine.size()
        recipe, known = engine.recipe(), engine.tuned()
        name = kind_for(recipe, count, "hnsw")
        if not count or not known.due(name, recipe, count):
            return False
        kind, tuned = BUILT.get(name), NEVER
        if kind:
            self._make(name)
            engine.put_plain("tuned", Tuned(name, kind.values[-1]))  # the others search thoroughly until it is tuned
            tuned = tune(
                lambda: self._blocks(""), count, engine.dim() or 0,
                lambda queries, value: self._candidates(queries, 1, "", value), kind.values, name, recipe.recall_target,
                engine.place,
            )  # fmt: skip
        if not tuned.parameter:
            self._make("flat")
        engine.put_plain("tuned", tuned)
        return True

    def _make(self, name: str) -> None:
        """Write what is in memory to segments, and let Milvus index them; it answers nothing meanwhile.

        Faces that come later are in segments that grow. Milvus searches these its own way, until the next time. What
        fails is undone: the exact index is made again.
        """
        kind = BUILT.get(name, FLAT)
        if name != "flat":
            self.engine.put_setting("built", name)  # whoever comes now takes the index for approximate
        self.connection.client.flush(self.engine.collection.name)
        try:
            self._exchange_index(kind)
        except BaseException:
            self._exchange_index(FLAT)
            self.engine.put_setting("built", "flat")
            raise
        self.engine.put_setting("built", name)

    def _exchange_index(self, kind: Kind) -> None:
        client, items = self.connection.client, self.engine.collection.name
        client.release_collection(items)
        client.drop_index(items, "vector")
        self.connection.make_index(items, kind.name, kind.build)
        client.load_collection(items)

    def info(self) -> dict[str, Any]:
        """Return the wanted `kind`, whether the index is made (`cache`), and what was measured of it (`index`)."""
        tuned = self.engine.tuned()
        facts = tuned._asdict() if tuned.faces else {}
        return {"kind": self.engine.recipe().kind, "cache": "current" if facts else "none", "index": facts}


def radius_of(max_sq_dist: float) -> dict[str, float]:
    """Return the parameters of a search that goes a little beyond a radius."""
    return {"radius": min(max_sq_dist, 4.0) + SLACK, "range_filter": -1.0}
