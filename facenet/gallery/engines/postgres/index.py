"""Searches in PostgreSQL: every vector compared, or an HNSW index a column, tuned to a recall.

The server finds candidates. Their distances are computed again here, in float32, from the vectors that come with them.

Letters: N items, Q queries, k neighbours, m candidates, D embedding width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from facenet.errors import Busy
from facenet.gallery.engines.exact import SLACK, inside, joined, ranked
from facenet.gallery.engines.postgres.rows import BLOCK, TEXTS
from facenet.gallery.engines.tuning import NEVER, Tuned, kind_for, tune
from facenet.gallery.items import Block, Recipe
from facenet.types import Neighbours

if TYPE_CHECKING:
    from facenet.gallery.engines.postgres.engine import Postgres

KINDS = {"auto": "flat to 20,000 faces, then hnsw", "flat": "every face is compared", "hnsw": "a graph of pgvector"}
SEARCHED = (40, 60, 100, 150, 250, 400, 600, 1000)  # values of hnsw.ef_search that are tried
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
        found: list[list[Block]] = [[] for _ in queries]
        for column, count in self._filled().items():
            most, parameter = min(k, count), self.engine.tuned(f"tuned:{column}").parameter
            near = self._candidates(queries, most, admitted, column, parameter)
            short = np.flatnonzero([len(numbers) < most for numbers, _ in near])
            if parameter and len(short):  # a filter leaves fewer than k, or the graph was left too early
                exact = self._candidates(queries[short], most, admitted, column, 0)
                for place, block in zip(short.tolist(), exact, strict=True):
                    near[place] = block
            for blocks, block in zip(found, near, strict=True):
                blocks.append(block)
        return ranked(queries, [joined(blocks, queries.shape[1]) for blocks in found], k)

    def _filled(self) -> dict[int, int]:
        """Return how many items each column of vectors has, without empty ones."""
        return {column: count for column, count in self.engine.counts().items() if count}

    def within(self, queries: np.ndarray, max_sq_dist: float, admitted: Any) -> list[Neighbours]:
        """Return for each of Q queries every item with sq_dist <= max_sq_dist, nearest first."""
        self._search_exactly()
        return [inside(query, self._around(query, max_sq_dist, admitted), max_sq_dist) for query in queries]

    def _around(self, query: np.ndarray, max_sq_dist: float, admitted: Any) -> Iterator[Block]:
        """Yield items a little beyond a radius too, block by block."""
        condition, values = admitted or ("true", [])
        for column in self._filled():
            near = f"encoder = {column} AND vector_{column} <-> %s <= %s AND {condition}"
            given = [query, radius_of(max_sq_dist + SLACK), *values]
            select = f"SELECT number, vector_send(vector_{column}) FROM items WHERE {near}"
            for rows in self.connection.stream(select, BLOCK, given):
                yield self.engine.block(rows)

    def count_within(self, queries: np.ndarray, max_sq_dist: float, admitted: Any, most: int) -> int:
        """Return how many items are within a radius of the queries; counting ends at `most`."""
        condition, values = admitted or ("true", [])
        self._search_exactly()
        count = 0
        for column in self._filled():
            near = f"encoder = {column} AND vector_{column} <-> query <= %s AND {condition}"
            query = f"""SELECT count(*) FROM (SELECT 1 FROM unnest(%s::vector[]) AS asked (query) JOIN items ON {near}
              LIMIT %s) AS found"""
            given = (list(queries), radius_of(max_sq_dist), *values, max(most - count, 0))
            count += int(self.connection.value(query, *given))
        return count

    def _candidates(self, queries: np.ndarray, most: int, admitted: Any, column: int, parameter: int) -> list[Block]:
        """Return numbers (m,) and vectors (m, D) of a few more than the `most` nearest of a column, for each query.

        They are those of the graph, of which `parameter` nodes are looked at, or with 0 the exact ones.
        """
        condition, values = admitted or ("true", [])
        found: list[list[tuple[int, bytes]]] = [[] for _ in queries]
        if parameter:
            self._search_by_graph(max(parameter, most))
        else:
            self._search_exactly()
        where = f"vector_{column} IS NOT NULL" if parameter else f"encoder = {column:d}"
        query = f"""SELECT place, number, vector FROM unnest(%s::vector[]) WITH ORDINALITY AS asked (query, place)
          CROSS JOIN LATERAL (SELECT number, vector_send(vector_{column:d}) AS vector FROM items
          WHERE {where} AND {condition} ORDER BY vector_{column:d} <-> query LIMIT %s) AS near"""
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

    # Building

    def build(self) -> bool:
        """Make and tune the graphs that are due, and drop others; True if one was. Searches and writes go on.

        Raises:
            Busy: another process is doing so.
            StorageError: the role may not make an index.
        """
        connection, name = self.connection, f"{self.connection.address.schema} index"
        if not connection.value("SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", name):
            raise Busy(f"{self.engine.place}: another process is making the index; try again later")
        try:
            connection.execute("SELECT set_config('lock_timeout', '0', false)")  # the index waits for long searches
            return self._build()
        finally:
            connection.execute("SELECT set_config('lock_timeout', %s, false)", (connection.patience,))
            connection.execute("SELECT pg_advisory_unlock(hashtextextended(%s, 0))", (name,))

    def _build(self) -> bool:
        engine, done = self.engine, False
        with engine.reading():
            recipe, counts = engine.recipe(), engine.counts()
            known = {column: engine.tuned(f"tuned:{column}") for column in self.columns()}
        valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(%s)"
        for column, tuned in known.items():
            count, name = counts.get(column, 0), f"items_vector_{column}"
            kind = kind_for(recipe, count, "hnsw")
            made = self.connection.value(valid, name)  # None if there is none, False if it was left half made
            if not tuned.due(kind, recipe, count) and made is (True if tuned.parameter else None):
                continue
            if kind == "flat" or made is False:
                self.connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            tuned = NEVER
            if kind == "hnsw":
                on = f"items USING hnsw (vector_{column} vector_l2_ops)"
                self.connection.execute(f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {name} ON {on}")
                tuned = self._tuned(column, recipe)
                if not tuned.parameter:
                    self.connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            with engine.writing():
                engine.put_plain(f"tuned:{column}", tuned)
            done = True
        return done

    def _tuned(self, column: int, recipe: Recipe) -> Tuned:
        query = f"SELECT number, vector_send(vector_{column}) FROM items WHERE encoder = {column} ORDER BY number"
        engine = self.engine

        def blocks() -> Iterator[Block]:
            return map(engine.block, self.connection.stream(query, BLOCK))

        def candidates(queries: np.ndarray, ef_search: int) -> list[Block]:
            return self._candidates(queries, 1, None, column, ef_search)

        with engine.reading():
            count, dim = engine.counts()[column], engine.dim() or 0
            return tune(blocks, count, dim, candidates, SEARCHED, "hnsw", recipe.recall_target, engine.place)

    def info(self) -> dict[str, Any]:
        """Return the wanted `kind`, whether its graphs are made (`cache`), and what was measured of them (`index`)."""
        known = {f"vector_{column}": self.engine.tuned(f"tuned:{column}") for column in self.columns()}
        facts = {name: tuned._asdict() for name, tuned in known.items() if tuned.faces}
        return {"kind": self.engine.recipe().kind, "cache": "current" if facts else "none", "index": facts}


def radius_of(max_sq_dist: float) -> float:
    """Return the distance of a squared one; those of unit vectors end at 4."""
    return math.sqrt(min(max_sq_dist, 4.0 + SLACK))
