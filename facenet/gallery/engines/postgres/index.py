"""Searches in PostgreSQL: every vector compared, or an HNSW index a column, tuned to a recall.

The server finds candidates. Their distances are computed again here, in float32, from the vectors that come with them.

Letters: N items, Q queries, k neighbours, m candidates, D embedding width.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from facenet.gallery.engines.exact import SLACK, inside, ranked
from facenet.gallery.engines.postgres.rows import TEXTS
from facenet.gallery.engines.tuning import GROWN, NEVER, Tuned, checked, tune, wants_index
from facenet.gallery.items import Block, Recipe
from facenet.types import Neighbours

if TYPE_CHECKING:
    from facenet.gallery.engines.postgres.engine import Postgres

KINDS = {"auto": "flat to 20,000 faces, then hnsw", "flat": "every face is compared", "hnsw": "a graph of pgvector"}
SEARCHED = (40, 60, 100, 150, 250, 400, 600, 1000)  # values of hnsw.ef_search that are tried
BLOCK = 8192  # vectors read at once
MORE = 8  # candidates beyond k, whose distances may differ from the server's in the last digits


class Index:
    """The columns ``vector_N`` of one gallery and their indexes."""

    def __init__(self, engine: Postgres) -> None:
        self.engine = engine
        self.connection = engine.connection

    def columns(self) -> list[int]:
        """Return the numbers of the encoders whose vectors have a column."""
        query = """SELECT substr(attname, 8)::int FROM pg_attribute WHERE attrelid = to_regclass('items')
          AND attname ~ '^vector_[0-9]+$' AND NOT attisdropped ORDER BY 1"""
        return self.connection.column(query)

    def vector(self) -> str:
        """Return SQL for the vector of an item."""
        columns = self.columns()
        if len(columns) < 2:
            return f"vector_send(vector_{columns[0]})" if columns else "NULL::bytea"
        return f"vector_send(CASE encoder {' '.join(f'WHEN {one} THEN vector_{one}' for one in columns)} END)"

    def whole(self) -> str:
        """Return what follows SELECT for whole items: number, texts, fingerprint, vector, digest, and where from."""
        return (
            f"items.number, {TEXTS}, fingerprint, {self.vector()}, digest "
            "FROM items JOIN encoders ON encoders.number = encoder"
        )

    # Searching

    def nearest(self, queries: np.ndarray, k: int, admitted: Any) -> Neighbours:
        """Return the k nearest items (Q, k), of all or of the `admitted`."""
        most = min(k, self.engine.size())
        approximate = {column: tuned for column in self.columns() if (tuned := self.tuned(column)).parameter}
        found = self._candidates(queries, most, admitted, approximate)
        short = np.array([len(numbers) < most for numbers, _ in found], bool)
        if (
            approximate
            and short.any()
            and self.engine.size(admitted) > min(len(found[i][0]) for i in np.flatnonzero(short))
        ):
            exact = self._candidates(queries[short], most, admitted, {})
            for place, one in zip(np.flatnonzero(short).tolist(), exact, strict=True):
                found[place] = one
        return ranked(queries, found, k)

    def within(self, queries: np.ndarray, max_sq_dist: float, admitted: Any) -> list[Neighbours]:
        """Return for each of Q queries every item with sq_dist <= max_sq_dist, nearest first."""
        condition, values = admitted or ("true", [])
        radius = math.sqrt(min(max_sq_dist, 4.0) + SLACK)
        found: list[list[tuple[int, bytes]]] = [[] for _ in queries]
        self._search_exactly()
        for column in self.columns():
            query = f"""SELECT place, number, vector_send(vector_{column}) FROM unnest(%s::vector[]) WITH ORDINALITY
              AS asked (query, place) JOIN items ON vector_{column} <-> query <= %s WHERE {condition}"""
            for place, number, vector in self.connection.execute(query, (list(queries), radius, *values)):
                found[place - 1].append((number, vector))
        return [
            inside(query, *self.engine.block(rows), max_sq_dist) for query, rows in zip(queries, found, strict=True)
        ]

    def _candidates(
        self, queries: np.ndarray, most: int, admitted: Any, approximate: Mapping[int, Tuned]
    ) -> list[Block]:
        """Return numbers (m,) and vectors (m, D) of a few more than the `most` nearest items, for each of Q queries."""
        condition, values = admitted or ("true", [])
        found: list[list[tuple[int, bytes]]] = [[] for _ in queries]
        for column in self.columns() if most else []:
            if column in approximate:
                self._search_by_graph(max(approximate[column].parameter, most))
            else:
                self._search_exactly()
            query = f"""SELECT place, number, vector FROM unnest(%s::vector[]) WITH ORDINALITY AS asked (query, place)
              CROSS JOIN LATERAL (SELECT number, vector_send(vector_{column}) AS vector FROM items
              WHERE vector_{column} IS NOT NULL AND {condition} ORDER BY vector_{column} <-> query LIMIT %s) AS near"""
            for place, number, vector in self.connection.execute(query, (list(queries), *values, most + MORE)):
                found[place - 1].append((number, vector))
        return [self.engine.block(rows) for rows in found]

    def _search_exactly(self) -> None:
        """Let the present transaction compare every vector."""
        self.connection.execute("SELECT set_config('enable_indexscan', 'off', true)")

    def _search_by_graph(self, ef_search: int) -> None:
        """Let the present transaction look at so many nodes of a graph, and at more if a filter leaves too few."""
        settings = {
            "enable_indexscan": "on",
            "hnsw.ef_search": str(min(ef_search, SEARCHED[-1])),
            "hnsw.iterative_scan": "relaxed_order",
        }
        calls = ", ".join("set_config(%s, %s, true)" for _ in settings)
        self.connection.execute(f"SELECT {calls}", [text for pair in settings.items() for text in pair])

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

    def tuned(self, column: int) -> Tuned:
        """Return what was measured of a column's graph; a parameter of 0 if every face is to be compared."""
        text = self.engine.setting(f"tuned:{column}")
        known = Tuned(*json.loads(text)) if text else NEVER
        return known if known.fits(self.recipe()) else NEVER

    def build(self, *, force: bool) -> bool:
        """Make and tune the graphs that are due, or all by `force`; True if one was. Searches and writes go on.

        Raises:
            StorageError: the role may not make an index.
        """
        with self.engine.reading():
            recipe, counts, columns = self.recipe(), self.engine.counts(), self.columns()
            known = {column: self.tuned(column) for column in columns}
        done = False
        for column in columns:
            count = counts.get(column, 0)
            wanted = wants_index(recipe, count)
            if wanted and (force or count > GROWN * known[column].faces):
                self._build_graph(column)
                self._tune(column, recipe)
                done = True
            elif not wanted and known[column].faces:
                self.connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS items_vector_{column}")
        return done

    def _build_graph(self, column: int) -> None:
        """Make the index of a column beside reads and writes; one that was left half made is made again."""
        name = f"items_vector_{column}"
        valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(%s)"
        if self.connection.value(valid, name) is False:
            self.connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
        make = f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {name} ON items USING hnsw (vector_{column} vector_l2_ops)"
        self.connection.execute(make)

    def _tune(self, column: int, recipe: Recipe) -> None:
        query = f"SELECT number, vector_send(vector_{column}) FROM items WHERE encoder = {column} ORDER BY number"
        engine = self.engine

        def blocks() -> Iterator[Block]:
            return map(engine.block, self.connection.stream(query, BLOCK))

        def candidates(queries: np.ndarray, ef_search: int) -> list[Block]:
            return self._candidates(queries, 1, None, {column: Tuned(ef_search)})

        with engine.reading():
            count, dim = engine.counts()[column], engine.dim() or 0
            tuned = tune(blocks, count, dim, candidates, SEARCHED, recipe, engine.place)
        with engine.writing():
            engine.put_setting(f"tuned:{column}", json.dumps(list(tuned)))

    def info(self) -> dict[str, Any]:
        """Return the wanted `kind`, whether its graphs are made (`cache`), and what was measured of them (`index`)."""
        known = {column: tuned for column in self.columns() if (tuned := self.tuned(column)).faces}
        facts = {f"vector_{column}": tuned._asdict() for column, tuned in known.items()}
        return {"kind": self.recipe().kind, "cache": "current" if facts else "none", "index": facts}
