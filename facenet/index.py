"""The gallery: named faces on disk, searched by squared L2. SQLite holds the truth, FAISS is its cache.

``items.sqlite`` has one row an item (id, identity, path, metadata, vector, encoder) and one row a write transaction;
``index.faiss`` is rebuilt where it is lost, damaged or of another history (see `index_cache`). Item numbers are never
used again, so a number found by a search can not come to mean another face.

The journal is SQLite's rollback journal with ``synchronous=EXTRA``, not WAL: readers without write permission and
network folders work, the one file holds every acknowledged write, and these survive a power cut. The price is that
readers wait while a commit is written; ``cache_spill=OFF`` keeps that to the commit itself.

Letters: N items, Q queries, D embedding width.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import secrets
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from facenet import index_cache as cache
from facenet.errors import ConfigError, DataError
from facenet.index_cache import TRUTH, Cache, State, nearest
from facenet.types import EmbeddingSet, Neighbours

__all__ = ["AddResult", "Gallery", "Hit", "Item", "nearest"]

SCHEMA = 1
APPLICATION = 0x46414345  # "FACE" in the SQLite header: tells a gallery from any other SQLite file
CHUNK = 500  # values in one SQL IN (...)
TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE encoders (number INTEGER PRIMARY KEY, fingerprint TEXT NOT NULL UNIQUE);
CREATE TABLE items (number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, identity TEXT NOT NULL,
  path TEXT NOT NULL, root TEXT NOT NULL, metadata TEXT NOT NULL,
  encoder INTEGER NOT NULL REFERENCES encoders, vector BLOB NOT NULL, digest BLOB NOT NULL);
CREATE INDEX items_identity ON items (identity);
CREATE TABLE removed (number INTEGER PRIMARY KEY, generation INTEGER NOT NULL);
CREATE INDEX removed_generation ON removed (generation);
CREATE TABLE writes (generation INTEGER PRIMARY KEY, token TEXT NOT NULL, last INTEGER NOT NULL,
  items INTEGER NOT NULL);
"""
INSERT = """INSERT INTO items (id, identity, path, root, metadata, encoder, vector, digest) VALUES (?,?,?,?,?,?,?,?)"""
log = logging.getLogger(__name__)


class AddResult(NamedTuple):
    """What one `add` did, in items."""

    added: int
    replaced: int
    skipped: int


class Item(NamedTuple):
    """One face of a gallery; `number` is what searches return as its row."""

    number: int
    id: str
    identity: str  # "" where unknown
    path: str  # relative to `root`, POSIX
    root: str
    metadata: dict[str, Any]
    fingerprint: str  # of the encoder that made the vector


class Hit(NamedTuple):
    """One neighbour of a query; rank 1 is the nearest."""

    rank: int
    id: str
    identity: str
    path: str
    sq_dist: float

    def accepted(self, threshold: float) -> bool:
        """Whether this is a match: sq_dist <= threshold; otherwise the answer is "no match"."""
        return self.sq_dist <= threshold


class Gallery:
    """A folder of named unit vectors of one encoder (and of encoders compatible with it); see the module's text.

    One process writes at a time, others wait for `timeout` seconds; any number read. Every method raises
    DataError with one line where the folder is damaged, locked, full or read-only; nothing is then changed.
    """

    def __init__(self, folder: Path, db: sqlite3.Connection, timeout: float) -> None:
        """Use :meth:`open`."""
        self.folder = folder
        self._db = db
        self._timeout = timeout
        self._cache = Cache(folder, db)
        self._wrote = False

    @classmethod
    def open(
        cls,
        folder: str | Path,
        *,
        create: bool = False,
        fingerprint: str | None = None,
        dim: int | None = None,
        compatible_with: Sequence[str] = (),
        timeout: float = 30.0,
    ) -> Gallery:
        """Open the gallery in `folder`; with `create` make it where there is none.

        `fingerprint` and `dim`, where given, are set in a gallery that has none yet, else checked.

        Raises:
            DataError: no gallery there, a foreign or damaged file, another schema, encoder or width.
        """
        folder = Path(folder)
        path = folder / TRUTH
        if create:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise DataError(f"{folder}: can not be made ({error.strerror}); choose another folder") from error
        elif not os.path.isfile(path):  # noqa: PTH113 - Path.is_file raises on a folder that may not be entered
            raise DataError(f"{folder}: no gallery there ({TRUTH} is missing); make one with scripts/index.py")
        with _told(folder, timeout):
            uri = f"{path.absolute().as_uri()}?mode={'rwc' if create else 'rw'}"
            db = sqlite3.connect(uri, uri=True, timeout=timeout, isolation_level=None)
        gallery = cls(folder, db, timeout)
        try:
            gallery._prepare(create)
            gallery._admit(fingerprint, compatible_with, dim)
        except BaseException:
            db.close()
            raise
        return gallery

    def _prepare(self, create: bool) -> None:
        with _told(self.folder, self._timeout):
            for pragma in ("synchronous=EXTRA", "cache_spill=OFF", "secure_delete=ON", "foreign_keys=ON"):
                self._db.execute(f"PRAGMA {pragma}")
            if create and self._is_blank():
                self._db.execute("BEGIN IMMEDIATE")
                if self._is_blank():  # else another process made it meanwhile
                    self._db.execute(f"PRAGMA application_id={APPLICATION}")
                    self._db.execute(f"PRAGMA user_version={SCHEMA}")
                    for statement in TABLES.split(";")[:-1]:
                        self._db.execute(statement)
                    self._db.execute("INSERT INTO writes VALUES (0, ?, 0, 0)", (secrets.token_hex(8),))
                self._db.execute("COMMIT")
            application, schema = self._one("PRAGMA application_id"), self._one("PRAGMA user_version")
        if application != APPLICATION:
            raise DataError(f"{self.folder / TRUTH}: not a gallery (another program's or an empty SQLite file)")
        if schema != SCHEMA:
            raise DataError(
                f"{self.folder / TRUTH}: schema {schema}, this version reads {SCHEMA}; index the embeddings again"
            )

    def _is_blank(self) -> bool:
        return bool(self._one("SELECT NOT EXISTS (SELECT 1 FROM sqlite_master)"))

    def __enter__(self) -> Gallery:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self._db.close()

    def close(self) -> None:
        """Write ``index.faiss`` where that is due, and close; where it can not be written, that is only logged."""
        try:
            if self._wrote or self._cache.snapshot is not None:
                self.save_cache()
        except DataError as error:
            log.warning("%s; the next search builds the index from %s again", error, TRUTH)
        finally:
            self._wrote, self._cache.snapshot = False, None
            self._db.close()

    def __len__(self) -> int:
        """Return N."""
        with _told(self.folder, self._timeout):
            return self._state().items

    @property
    def dim(self) -> int | None:
        """Embedding width D; None while no vector has come in and none was given."""
        with _told(self.folder, self._timeout):
            return self._dim()

    @property
    def fingerprint(self) -> str | None:
        """The encoder that the gallery belongs to; None before the first."""
        with _told(self.folder, self._timeout):
            return next(iter(self._encoders()), None)

    def identities(self) -> set[str]:
        """The names of the people in the gallery, without "" (unknown)."""
        with _told(self.folder, self._timeout):
            return set(self._column("SELECT DISTINCT identity FROM items WHERE identity <> ''"))

    # Writing

    def add(
        self,
        embeddings: EmbeddingSet,
        *,
        ids: Sequence[str] | None = None,
        metadata: Sequence[Mapping[str, Any]] | None = None,
        on_duplicate: str = "error",
        compatible_with: Sequence[str] = (),
    ) -> AddResult:
        """Add N items in one transaction: all of them or, on any error, none.

        `ids` default to the paths. `on_duplicate` says what happens to an id that is there already, or comes twice:
        "error", "skip" (the first stays) or "replace" (the last stays). `compatible_with` is the list in the bundle of
        the encoder that made the vectors.

        Raises:
            DataError: nothing to add, NaN, zero or not-unit vectors, another width, duplicate ids, a foreign encoder.
            ConfigError: unknown `on_duplicate`.
        """
        if on_duplicate not in ("error", "skip", "replace"):
            raise ConfigError(f"on_duplicate: expected error, skip or replace, got {on_duplicate!r}")
        ids = list(embeddings.paths if ids is None else ids)
        vectors = cache.unit_rows(embeddings.vectors, "embeddings", names=embeddings.paths)
        rows = _as_rows(embeddings, ids, metadata, vectors)
        keep = _distinct(ids, on_duplicate)
        with self._writing() as state:
            encoder = self._admit_here(embeddings.fingerprint, compatible_with, embeddings.dim)
            known = self._numbers([ids[i] for i in keep])
            if known and on_duplicate == "error":
                raise DataError(
                    f"{self.folder}: {_named(list(known))} in the gallery already; nothing was added "
                    "(on_duplicate=skip or replace)"
                )
            if on_duplicate == "skip":
                keep = [i for i in keep if ids[i] not in known]
            replaced = self._remove(known.values(), state) if on_duplicate == "replace" else 0
            self._db.executemany(INSERT, _with_vectors(rows, encoder, embeddings.fingerprint, vectors, keep))
            self._record(state, len(keep) - replaced, changed=bool(keep))
        return AddResult(len(keep) - replaced, replaced, len(ids) - len(keep))

    def remove(self, names: str | Iterable[str], *, by: str = "any") -> int:
        """Remove items by id or, all of a person's, by identity, in one transaction; returns how many.

        `by` is "id", "identity" or "any" (whichever of the two the name is).

        Raises:
            DataError: a name that is neither, or with by="any" both; nothing is then removed.
            ConfigError: unknown `by`.
        """
        if by not in ("any", "id", "identity"):
            raise ConfigError(f"by: expected any, id or identity, got {by!r}")
        names = [names] if isinstance(names, str) else list(names)
        with self._writing() as state:
            numbers: set[int] = set()
            for name in names:
                items = list(self._numbers([name]).values()) if by != "identity" else []
                people = self._column("SELECT number FROM items WHERE identity = ?", name) if by != "id" else []
                if items and people and items != people:
                    raise DataError(f"{self.folder}: {name!r} is an id and an identity; say which (by=id or identity)")
                if not items and not people:
                    what = "id or identity" if by == "any" else by
                    raise DataError(f"{self.folder}: no {what} {name!r} in the gallery; nothing was removed")
                numbers.update(items, people)
            self._remove(numbers, state)
            self._record(state, -len(numbers), changed=bool(numbers))
        return len(numbers)

    def _remove(self, numbers: Iterable[int], state: State) -> int:
        gone = [(number,) for number in numbers]
        self._db.executemany(f"INSERT INTO removed VALUES (?, {state.generation + 1})", gone)
        self._db.executemany("DELETE FROM items WHERE number = ?", gone)
        return len(gone)

    def _record(self, state: State, more: int, *, changed: bool) -> None:
        if not changed:
            return
        last = self._one("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'items'")
        row = State(state.generation + 1, secrets.token_hex(8), last, state.items + more)
        self._db.execute("INSERT INTO writes VALUES (?, ?, ?, ?)", row)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[State]:
        with _told(self.folder, self._timeout):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._state()
                self._db.execute("COMMIT")
                self._wrote = True
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")

    # Encoders

    def _admit(self, fingerprint: str | None, compatible_with: Sequence[str], dim: int | None) -> None:
        """Check an encoder against the gallery; a gallery that has none yet takes it as its own."""
        if fingerprint is None and dim is None:
            return
        with self._reading():
            known, width = self._encoders(), self._dim()
            self._check_encoder(fingerprint, compatible_with, known)
            _check_width(dim, width)
        if (fingerprint and not known) or (dim and not width):
            with self._writing():
                self._admit_here(fingerprint, compatible_with, dim)

    def _admit_here(self, fingerprint: str | None, compatible_with: Sequence[str], dim: int | None) -> int:
        """Inside a write: check and record width and encoder; returns the encoder's number."""
        known, width = self._encoders(), self._dim()
        self._check_encoder(fingerprint, compatible_with, known)
        _check_width(dim, width)
        if dim and not width:
            self._db.execute("INSERT INTO meta VALUES ('dim', ?)", (str(dim),))
        if fingerprint and fingerprint not in known:
            return int(self._db.execute("INSERT INTO encoders (fingerprint) VALUES (?)", (fingerprint,)).lastrowid or 0)
        return known.get(fingerprint or "", 0)

    def _check_encoder(self, fingerprint: str | None, compatible_with: Sequence[str], known: Mapping[str, int]) -> None:
        if fingerprint is None:
            return
        if not fingerprint:
            raise DataError("embeddings: no encoder fingerprint; embed again with scripts/embed.py")
        owner = next(iter(known), fingerprint)
        if fingerprint not in known and owner != fingerprint and owner not in compatible_with:
            raise DataError(
                f"{self.folder}: belongs to encoder {owner[:12]}, got vectors of encoder {fingerprint[:12]}; embed "
                "again with the gallery's encoder, or make the new one compatible (a gallery accepts a second encoder "
                "only if its bundle lists the first in compatible_with)"
            )

    def _encoders(self) -> dict[str, int]:
        return dict(self._db.execute("SELECT fingerprint, number FROM encoders ORDER BY number"))

    def _dim(self) -> int | None:
        found = self._db.execute("SELECT value FROM meta WHERE key = 'dim'").fetchone()
        return int(found[0]) if found else None

    # Reading

    def search(
        self,
        vectors: np.ndarray,
        k: int,
        *,
        fingerprint: str,
        compatible_with: Sequence[str] = (),
        by_identity: bool = False,
        threads: int | None = None,
    ) -> Neighbours:
        """The k nearest items of the unit `vectors` (Q, D), exact; `rows` are item numbers for :meth:`items`.

        With `by_identity` each identity answers once, by its nearest item; an item without identity counts alone.
        Absent places (k > N, an empty gallery) hold row -1 and sq_dist inf.

        Raises:
            DataError: no queries, NaN, zero or not-unit vectors, another width, k < 1, a foreign encoder.
        """
        with self._reading():
            queries = self._queries(vectors, fingerprint, compatible_with)
            return self._search(queries, k, by_identity, threads)

    def within(
        self, vectors: np.ndarray, max_sq_dist: float, *, fingerprint: str, compatible_with: Sequence[str] = ()
    ) -> list[Neighbours]:
        """For each of the unit `vectors` (Q, D) every item with sq_dist <= max_sq_dist, nearest first.

        Returns Q :class:`Neighbours` whose arrays have shape (m,), m >= 0. Raises as :meth:`search`.
        """
        if not max_sq_dist >= 0:
            raise DataError(f"max_sq_dist: expected at least 0, got {max_sq_dist}")
        with self._reading():
            queries = self._queries(vectors, fingerprint, compatible_with)
            return cache.within(self._cache.current(queries.shape[1]), queries, max_sq_dist)

    def hits(
        self,
        vectors: np.ndarray,
        k: int,
        *,
        fingerprint: str,
        compatible_with: Sequence[str] = (),
        by_identity: bool = False,
    ) -> list[list[Hit]]:
        """As :meth:`search`, with names: for each of Q queries at most k hits, nearest first, from one state."""
        with self._reading():
            queries = self._queries(vectors, fingerprint, compatible_with)
            found = self._search(queries, k, by_identity, None)
            items = self._items(found.rows[found.rows >= 0])
        return [
            [
                Hit(rank, items[row].id, items[row].identity, items[row].path, sq_dist)
                for rank, (row, sq_dist) in enumerate(zip(rows, sq_dists, strict=True), 1)
                if row >= 0
            ]
            for rows, sq_dists in zip(found.rows.tolist(), found.sq_dist.tolist(), strict=True)
        ]

    def items(self, rows: Sequence[int] | np.ndarray) -> list[Item]:
        """The items of the given numbers (n,), in that order; -1 or one removed since raises DataError."""
        numbers = np.asarray(rows, np.int64).ravel()
        with self._reading():
            found = self._items(numbers)
        absent = [int(number) for number in numbers if int(number) not in found]
        if absent:
            raise DataError(f"{self.folder}: no item number {absent[0]} (removed since the search?); search again")
        return [found[int(number)] for number in numbers]

    def _queries(self, vectors: np.ndarray, fingerprint: str, compatible_with: Sequence[str]) -> np.ndarray:
        self._check_encoder(fingerprint, compatible_with, self._encoders())
        return cache.unit_rows(vectors, "queries", dim=self._dim())

    def _search(self, queries: np.ndarray, k: int, by_identity: bool, threads: int | None) -> Neighbours:
        index = self._cache.current(queries.shape[1])
        if not by_identity:
            return cache.search(index, queries, k, threads=threads)
        total = int(index.ntotal)
        best = cache.search(cache.new_index(queries.shape[1]), queries, k)  # all absent
        todo, fetch = np.arange(len(queries)), 4 * k
        while todo.size:
            found = cache.search(index, queries[todo], min(fetch, max(total, 1)), threads=threads)
            identities = {number: item.identity for number, item in self._items(found.rows[found.rows >= 0]).items()}
            unfinished = []
            for query, rows, sq_dist in zip(todo, found.rows, found.sq_dist, strict=True):
                places = _first_of_each([identities[row] or row for row in rows.tolist() if row >= 0])[:k]
                if len(places) < k and fetch < total:
                    unfinished.append(query)
                best.rows[query, : len(places)] = rows[places]
                best.sq_dist[query, : len(places)] = sq_dist[places]
            todo, fetch = np.array(unfinished, np.int64), 4 * fetch
        return best

    def _items(self, numbers: np.ndarray) -> dict[int, Item]:
        fingerprints = {number: fingerprint for fingerprint, number in self._encoders().items()}
        query = "SELECT number, id, identity, path, root, metadata, encoder FROM items WHERE number IN"
        found = {}
        for *names, metadata, encoder in self._among(query, np.unique(numbers).tolist()):
            try:
                found[names[0]] = Item._make((*names, json.loads(metadata), fingerprints[encoder]))
            except (TypeError, ValueError, KeyError) as error:
                raise cache.damaged(self.folder, f"metadata or encoder of item {names[0]}") from error
        return found

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        with _told(self.folder, self._timeout):
            self._db.execute("BEGIN")
            try:
                yield
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")

    def save_cache(self, *, force: bool = False) -> bool:
        """Write ``index.faiss`` where it is missing, unusable or more than 2 % behind (or `force`); True if written."""
        with self._reading():
            dim = self._dim()
            if dim is None or not (force or self._cache.due(self._state())):
                return False
            self._cache.current(dim)
            snapshot = self._cache.snapshot
        if snapshot is not None:
            cache.save(self.folder, snapshot)
            self._cache.unusable = False
        return snapshot is not None

    # Telling

    def info(self) -> dict[str, Any]:
        """What the gallery holds: count, identities, dim, encoders and their items, generation, cache state, bytes."""
        with self._reading():
            state, encoders = self._state(), self._encoders()
            base = self._cache.written()
            per_encoder = dict(self._db.execute("SELECT encoder, count(*) FROM items GROUP BY encoder"))
            return {
                "schema": SCHEMA,
                "count": state.items,
                "identities": self._one("SELECT count(DISTINCT identity) FROM items WHERE identity <> ''"),
                "dim": self._dim(),
                "fingerprint": next(iter(encoders), None),
                "fingerprints": {name: per_encoder.get(number, 0) for name, number in encoders.items()},
                "generation": state.generation,
                "kind": "flat",
                "cache": "missing" if base is None else "current" if base == state else "behind",
                "bytes": {
                    name: path.stat().st_size if (path := self.folder / name).is_file() else 0
                    for name in (TRUTH, cache.INDEX)
                },
            }

    def check(self) -> list[str]:
        """Read everything and return what is wrong, one line each; [] for a sound gallery."""
        problems: list[str] = []
        try:
            with self._reading():
                dim = self._dim()
                problems += [f"{TRUTH}: {line}" for line in self._column("PRAGMA integrity_check") if line != "ok"]
                problems += self._check_items(dim)
                problems += self._cache.check(dim) if dim else []
        except DataError as error:
            problems.append(str(error))
        return problems

    def _check_items(self, dim: int | None) -> list[str]:
        problems, count = [], 0
        query = """SELECT id, identity, path, root, metadata, fingerprint, coalesce(CAST(vector AS BLOB), x''), digest
          FROM items LEFT JOIN encoders ON encoders.number = items.encoder"""
        for *row, vector, digest in self._db.execute(query):
            count += 1
            if digest != _digest(row, vector):
                problems.append(f"{row[0]}: its digest does not fit its content; add it again (on_duplicate=replace)")
            elif len(vector) != 4 * (dim or 0):
                problems.append(f"{row[0]}: {len(vector)} bytes, not a vector of width {dim}")
        if count != self._state().items:
            problems.append(f"{TRUTH}: {count} items, its last write says {self._state().items}")
        return problems

    # SQL

    def _state(self) -> State:
        return cache.last_write(self.folder, self._db)

    def _one(self, query: str, *values: Any) -> Any:
        return self._db.execute(query, values).fetchone()[0]

    def _column(self, query: str, *values: Any) -> list[Any]:
        return [row[0] for row in self._db.execute(query, values)]

    def _among(self, query: str, values: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
        for start in range(0, len(values), CHUNK):
            chunk = values[start : start + CHUNK]
            yield from self._db.execute(f"{query} ({','.join('?' * len(chunk))})", chunk)

    def _numbers(self, ids: Sequence[str]) -> dict[str, int]:
        return dict(self._among("SELECT id, number FROM items WHERE id IN", ids))


def _as_rows(
    embeddings: EmbeddingSet,
    ids: Sequence[str],
    metadata: Sequence[Mapping[str, Any]] | None,
    vectors: np.ndarray,
) -> list[tuple[str, str, str, str, str]]:
    """The text columns of N items, checked: (id, identity, path, root, metadata as JSON)."""
    extra = [{}] * len(vectors) if metadata is None else metadata
    if len(ids) != len(vectors) or len(extra) != len(vectors):
        raise DataError(f"embeddings: {len(ids)} ids and {len(extra)} metadata for {len(vectors)} vectors")
    rows = []
    for name, identity, path, more in zip(ids, embeddings.identities, embeddings.paths, extra, strict=True):
        try:
            row = (name, identity, path, embeddings.root, json.dumps(dict(more), sort_keys=True, allow_nan=False))
            "".join(row).encode()
        except (TypeError, ValueError) as error:
            raise DataError(f"embeddings: {name!r} has no storable id, identity, path or metadata ({error})") from error
        if not name:
            raise DataError(f"embeddings: an empty id (path {path!r}); every item needs one")
        rows.append(row)
    return rows


def _with_vectors(
    rows: Sequence[tuple[str, ...]], encoder: int, fingerprint: str, vectors: np.ndarray, keep: Iterable[int]
) -> Iterator[tuple[Any, ...]]:
    for i in keep:
        vector = vectors[i].astype("<f4", copy=False).tobytes()
        yield (*rows[i], encoder, vector, _digest((*rows[i], fingerprint), vector))


def _digest(row: Sequence[Any], vector: bytes) -> bytes:
    return hashlib.blake2b(json.dumps(list(row), default=repr).encode() + vector, digest_size=16).digest()


def _distinct(ids: Sequence[str], on_duplicate: str) -> list[int]:
    """Positions that stay when an id comes twice, in order: the first, with "replace" the last; "error" raises."""
    place: dict[str, int] = {}
    repeated: dict[str, None] = {}
    for i, name in enumerate(ids):
        if name in place:
            repeated[name] = None
        if name not in place or on_duplicate == "replace":
            place[name] = i
    if repeated and on_duplicate == "error":
        raise DataError(
            f"embeddings: {_named(list(repeated))} given twice; nothing was added (on_duplicate=skip or replace)"
        )
    return sorted(place.values())


def _first_of_each(keys: Sequence[object]) -> list[int]:
    """Positions at which a key appears for the first time."""
    first: dict[object, int] = {}
    for i, key in enumerate(keys):
        first.setdefault(key, i)
    return list(first.values())


def _named(names: Sequence[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more + (" is" if len(names) == 1 else " are")


def _check_width(dim: int | None, width: int | None) -> None:
    if dim is not None and dim < 1:
        raise DataError(f"dim: expected at least 1, got {dim}")
    if dim and width and dim != width:
        raise DataError(f"embeddings: expected width {width}, as the gallery has, got {dim}; embed again")


@contextlib.contextmanager
def _told(folder: Path, timeout: float) -> Iterator[None]:
    """Turn SQLite's errors into one line that says what to do."""
    try:
        yield
    except sqlite3.Error as error:
        text, path = str(error), folder / TRUTH
        if "locked" in text or "busy" in text:
            what = f"another process is writing (waited {timeout:g} s); try again"
        elif "readonly" in text or "unable to open" in text:
            what = f"can not be opened or written ({text}); choose a folder you may write to"
        elif "full" in text or "disk I/O" in text:
            what = f"writing failed ({text}), nothing was changed; free some space"
        elif isinstance(error, sqlite3.ProgrammingError):
            raise
        else:
            what = f"not a gallery, or damaged ({text}); restore it from a backup or index the embeddings again"
        raise DataError(f"{path}: {what}") from error
