"""Searches in PostgreSQL: every vector compared, or an HNSW index a column, tuned to a recall on the gallery's faces.

The server finds candidates. Their distances are computed again here, in float32, from the vectors that come with them.

Letters: N items, Q queries, k neighbours, m candidates, D embedding width.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from facenet.errors import ConfigError, choose
from facenet.gallery.engines.exact import SLACK, absent, distances, inside
from facenet.gallery.faiss.scan import nearest, sampled
from facenet.gallery.faiss.tune import FEW, NEAR_COPY, QUERIES, TIE, enough, interval
from facenet.gallery.items import Block, Recipe
from facenet.types import Neighbours

if TYPE_CHECKING:
    from facenet.gallery.engines.postgres.engine import Postgres

KINDS = {"auto": "flat to 20,000 faces, then hnsw", "flat": "every face is compared", "hnsw": "a graph of pgvector"}
EXACT = 20_000  # items up to which "auto" compares all of them
LEAST = 10_000  # items below which every kind does
GROWN = 2.0  # times as many items as when it was tuned, and the index is tuned again
SEARCHED = (40, 60, 100, 150, 250, 400, 600, 1000)  # values of hnsw.ef_search that are tried
BLOCK = 8192  # vectors read at once
MORE = 8  # candidates beyond k, whose distances may differ from the server's in the last digits
log = logging.getLogger(__name__)


class Tuned(NamedTuple):
    """What was measured of an index."""

    ef_search: int  # 0: the target was not reached, every face is compared
    recall: float  # of the nearest other face of `queries` faces
    queries: int
    faces: int  # when it was tuned
    target: float


NEVER = Tuned(0, 0.0, 0, 0, 1.0)


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

    # Searching

    def nearest(self, queries: np.ndarray, k: int, admitted: Any) -> Neighbours:
        """Return the k nearest items (Q, k), of all or of the `admitted`."""
        answers, total = absent(len(queries), k), self.engine.size()
        most = min(k, total)
        approximate = {column: tuned for column in self.columns() if (tuned := self.tuned(column)).ef_search}
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
        for place, (numbers, vectors) in enumerate(found):
            sq_dist = distances(queries[place], vectors)
            order = np.argsort(sq_dist, kind="stable")[:k]
            answers.rows[place, : len(order)] = numbers[order]
            answers.sq_dist[place, : len(order)] = sq_dist[order]
        return answers

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
                self._search_by_graph(max(approximate[column].ef_search, most))
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
        """Store a recipe.

        Raises:
            ConfigError: an unknown kind, a factory string, or a target outside (0, 1].
        """
        choose(KINDS, recipe.kind, "kind")
        if recipe.factory:
            raise ConfigError(f"factory: {self.engine.place} has no FAISS; choose kind=flat or hnsw")
        if not 0 < recipe.recall_target <= 1:
            raise ConfigError(f"recall_target: expected a share above 0, at most 1, got {recipe.recall_target}")
        with self.engine.writing():
            self.engine.put_setting("index", json.dumps(list(recipe)))

    def tuned(self, column: int) -> Tuned:
        """Return what was measured of a column's graph; an `ef_search` of 0 if every face is to be compared."""
        recipe, text = self.recipe(), self.engine.setting(f"tuned:{column}")
        known = Tuned(*json.loads(text)) if text else NEVER
        return known if recipe.kind != "flat" and recipe.recall_target <= known.target else NEVER

    def build(self, *, force: bool) -> bool:
        """Make and tune the graphs that are due, or all by `force`; True if one was. Searches and writes go on.

        A role without the right to make an index is told so.
        """
        with self.engine.reading():
            recipe, counts, columns = self.recipe(), self.engine.counts(), self.columns()
            known = {column: self.tuned(column) for column in columns}
        done = False
        for column in columns:
            count = counts.get(column, 0)
            least = EXACT if recipe.kind == "auto" else LEAST
            wanted = recipe.kind != "flat" and count >= least and enough(min(QUERIES, count // 2), recipe.recall_target)
            due = known[column] is NEVER or count > GROWN * known[column].faces
            if wanted and (due or force):
                self._build_graph(column)
                self._tune(column, recipe.recall_target)
                done = True
            elif not wanted:
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

    def _tune(self, column: int, target: float) -> None:
        """Find the least ef_search with which faces of the gallery surely find their nearest other face."""
        with self.engine.reading():
            count = self.engine.counts()[column]
            rows = np.sort(np.random.default_rng(0).permutation(count)[:QUERIES])
            numbers, queries = sampled(self._blocks(column), rows, self.engine.dim() or 0)
            exact = nearest(self._blocks(column), queries, 2)
            true = np.where(exact.rows[:, 0] == numbers, exact.sq_dist[:, 1], exact.sq_dist[:, 0])
            told = true > NEAR_COPY if (true > NEAR_COPY).sum() >= FEW else np.ones(len(true), bool)
            tuned = NEVER
            for ef_search in SEARCHED:
                found = self._candidates(queries[told], 1, None, {column: Tuned(ef_search, 0, 0, 0, 1)})
                best = [
                    _least(*one, number, query)
                    for one, number, query in zip(found, numbers[told], queries[told], strict=True)
                ]
                recall = float((np.array(best) <= true[told] + TIE).mean())
                tuned = Tuned(ef_search, recall, int(told.sum()), count, target)
                if interval(recall, tuned.queries)[0] >= target:
                    break
            else:
                log.warning(
                    "%s: hnsw finds %.4f of the nearest faces, not surely the recall_target of %g; every face is "
                    "compared instead (flat)", self.engine.place, tuned.recall, target,
                )  # fmt: skip
                tuned = tuned._replace(ef_search=0)
        with self.engine.writing():
            self.engine.put_setting(f"tuned:{column}", json.dumps(list(tuned)))

    def _blocks(self, column: int) -> Iterator[Block]:
        query = f"SELECT number, vector_send(vector_{column}) FROM items WHERE encoder = {column} ORDER BY number"
        return map(self.engine.block, self.connection.stream(query, BLOCK))

    def info(self) -> dict[str, Any]:
        """Return the wanted `kind`, whether its graphs are made (`cache`), and what was measured of them (`index`)."""
        known = {column: tuned for column in self.columns() if (tuned := self.tuned(column)) is not NEVER}
        facts = {f"vector_{column}": tuned._asdict() for column, tuned in known.items()}
        return {"kind": self.recipe().kind, "cache": "current" if facts else "none", "index": facts}


def _least(numbers: np.ndarray, vectors: np.ndarray, itself: int, query: np.ndarray) -> float:
    """Return the least sq_dist of candidates (m,) to a query that is one of them."""
    return float(distances(query, vectors[numbers != itself]).min(initial=np.inf))
