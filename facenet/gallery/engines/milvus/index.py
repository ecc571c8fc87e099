"""Searches in Milvus: every vector compared, or an index that Milvus builds, tuned to a recall.

The server finds candidates. Their distances are computed again here, in float32, from the vectors that come with them.

Letters: Q queries, k neighbours, m candidates, D embedding width.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from facenet.gallery.engines.exact import SLACK, absent, inside, ranked
from facenet.gallery.engines.tuning import GROWN, NEVER, Tuned, checked, tune, wants_index
from facenet.gallery.faiss.scan import nearest, within
from facenet.gallery.items import Block, Recipe
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
        if not self.engine.is_there():
            return absent(len(queries), k)
        found = self._candidates(queries, k, expression, self.tuned())
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
        radius = {"radius": min(max_sq_dist, 4.0) + SLACK, "range_filter": -1.0}
        if not self.engine.size(expression):
            return [Neighbours(*(part[0] for part in absent(1, 0))) for _ in queries]
        found: list[Block] = []
        if self.tuned() is NEVER and self._kind() is None:
            for query in queries:
                block = self.engine.search([query], MOST, expression, radius)[0]
                if len(block[0]) == MOST:
                    break
                found.append(block)
        if len(found) < len(queries):
            rows_of = [one.rows for one in within(self._blocks(expression), queries, max_sq_dist + SLACK)]
            found = [(rows, self.engine.vectors(rows)) for rows in rows_of]
        return [inside(query, *one, max_sq_dist) for query, one in zip(queries, found, strict=True)]

    def _candidates(self, queries: np.ndarray, most: int, expression: str, tuned: Tuned) -> list[Block]:
        """Return numbers (m,) and vectors (m, D) of a few more than the `most` nearest items, for each of Q queries."""
        kind = self._kind()
        if most + MORE > MOST or (kind is not None and not tuned.parameter):
            return self._scanned(queries, most, expression)
        params = {kind.parameter: max(tuned.parameter, most + MORE)} if kind else {}
        found: list[Block] = []
        for start in range(0, len(queries), ASKED):
            asked = list(queries[start : start + ASKED])
            found += self.engine.search(asked, most + MORE, expression, params)
        return found

    def _scanned(self, queries: np.ndarray, most: int, expression: str) -> list[Block]:
        """Return the `most` nearest of all items that an expression admits, which are read."""
        rows = nearest(self._blocks(expression), queries, most).rows
        return [(one[one >= 0], self.engine.vectors(one[one >= 0])) for one in rows]

    def _blocks(self, expression: str) -> Any:
        pages = self.engine.stream(expression, ["vector"])
        return (self.engine.block([(row["number"], row["vector"]) for row in page]) for page in pages)

    # The recipe, and building

    def recipe(self) -> Recipe:
        """Return what the gallery was told, or the default."""
        text = self.engine.setting("index")
        return Recipe() if text is None else Recipe(*json.loads(text))

    def configure(self, recipe: Recipe) -> None:
        """Store a recipe; ConfigError as :func:`facenet.gallery.engines.tuning.checked`."""
        checked(recipe, KINDS, self.engine.place)
        with self.engine.writing():
            self.engine.put_setting("index", json.dumps(list(recipe)))

    def tuned(self) -> Tuned:
        """Return what was measured of the index; a parameter of 0 if every face is to be compared."""
        text = self.engine.setting("tuned")
        known = Tuned(*json.loads(text)) if text else NEVER
        return known if known.fits(self.recipe()) else NEVER

    def _kind(self) -> Kind | None:
        """Return the kind that is built; None if it is flat."""
        return BUILT.get(self.engine.setting("built") or "flat")

    def build(self, *, force: bool) -> bool:
        """Make and tune the index if it is due, or by `force`; True if done. Searches fail while Milvus loads it."""
        recipe, count = self.recipe(), self.engine.size()
        name = ("hnsw" if recipe.kind == "auto" else recipe.kind) if wants_index(recipe, count) else "flat"
        built = self.engine.setting("built") or "flat"
        if name == built and (name == "flat" or (count <= GROWN * self.tuned().faces and not force)):
            return False
        if not count:
            return False
        self._make(name)
        kind = BUILT.get(name)
        if kind is not None:
            tuned = tune(
                lambda: self._blocks(""), count, self.engine.dim() or 0,
                lambda queries, value: self._candidates(queries, 1, "", Tuned(value)), kind.values, recipe,
                self.engine.place,
            )  # fmt: skip
            self.engine.put_setting("tuned", json.dumps(list(tuned)))
        return True

    def _make(self, name: str) -> None:
        """Write what is in memory to segments, and let Milvus index them; it answers nothing while it loads them.

        Faces that come later are in segments that grow. Milvus searches these its own way, until the next time.
        """
        client, items = self.connection.client, self.engine.items
        kind = BUILT.get(name, Kind("FLAT", {}, "", ()))
        client.flush(items)
        client.release_collection(items)
        client.drop_index(items, "vector")
        index = client.prepare_index_params()
        index.add_index("vector", index_type=kind.name, metric_type="L2", params=dict(kind.build))
        client.create_index(items, index)  # which waits until all segments are indexed
        client.load_collection(items)
        self.engine.put_setting("built", name)

    def info(self) -> dict[str, Any]:
        """Return the wanted `kind`, whether the index is made (`cache`), and what was measured of it (`index`)."""
        tuned = self.tuned()
        facts = tuned._asdict() if tuned.faces else {}
        return {"kind": self.recipe().kind, "cache": "current" if facts else "none", "index": facts}
