"""The SQLite side of a gallery: one file that holds every acknowledged write, one writer at a time, any readers.

The journal is SQLite's rollback journal with ``synchronous=EXTRA``, not WAL: readers without write permission and
network folders work, the one file holds every acknowledged write, and these survive a power cut. The price is that
readers wait while a commit is written; ``cache_spill=OFF`` keeps that to the commit itself.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import secrets
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from facenet.errors import DataError
from facenet.gallery.sql.rows import check_width, told
from facenet.gallery.sql.truth import CHUNK, TRUTH, State, damaged, last_write

SCHEMA = 1
APPLICATION = 0x46414345  # "FACE" in the SQLite header: tells a gallery from any other SQLite file
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


LAYOUT = "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite\\_stat%' ESCAPE '\\'"


@functools.lru_cache(maxsize=1)
def _layout() -> set[tuple[Any, ...]]:
    """What SQLite says of `TABLES`."""
    with contextlib.closing(sqlite3.connect(":memory:")) as fresh:
        fresh.executescript(TABLES)
        return set(fresh.execute(LAYOUT))


class Store:
    """The tables of a gallery and their transactions; what is in them is the business of `index.Gallery`."""

    def __init__(self, folder: Path, timeout: float, *, create: bool) -> None:
        """Open the file in `folder`, with `create` make it; waits `timeout` seconds for a writer.

        Raises:
            DataError: no gallery there, a foreign or damaged file, another schema.
        """
        self.folder = folder
        self._timeout = timeout
        self._wrote = False
        self._seen: tuple[str, list[str]] = "", []  # the encoders with vectors, and the write they were looked up at
        path = folder / TRUTH
        if create:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise DataError(f"{folder}: can not be made ({error.strerror}); choose another folder") from error
        elif not os.path.isfile(path):  # noqa: PTH113 - Path.is_file raises on a folder that may not be entered
            raise DataError(f"{folder}: no gallery there ({TRUTH} is missing); make one with scripts/index.py")
        with told(folder, timeout):
            uri = f"{path.absolute().as_uri()}?mode={'rwc' if create else 'rw'}"
            self._db = sqlite3.connect(uri, uri=True, timeout=timeout, isolation_level=None)
        try:
            self._prepare(create)
        except BaseException:
            self._db.close()
            raise

    def _prepare(self, create: bool) -> None:
        with told(self.folder, self._timeout):
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
        with told(self.folder, self._timeout):
            if set(self._db.execute(LAYOUT)) != _layout():  # a view or trigger of others would run inside our queries
                raise damaged(self.folder, "other tables than a gallery has")

    def _is_blank(self) -> bool:
        return bool(self._one("SELECT NOT EXISTS (SELECT 1 FROM sqlite_master)"))

    def __len__(self) -> int:
        """Return N."""
        with told(self.folder, self._timeout):
            return self._state().items

    @property
    def dim(self) -> int | None:
        """Embedding width D; None while no vector has come in and none was given."""
        with told(self.folder, self._timeout):
            return self._dim()

    @property
    def fingerprint(self) -> str | None:
        """The encoder that the gallery belongs to; None before the first."""
        with told(self.folder, self._timeout):
            return next(iter(self._encoders()), None)

    def identities(self) -> set[str]:
        """The names of the people in the gallery, without "" (unknown)."""
        with told(self.folder, self._timeout):
            return set(self._column("SELECT DISTINCT identity FROM items WHERE identity <> ''"))

    @contextlib.contextmanager
    def _writing(self) -> Iterator[State]:
        with told(self.folder, self._timeout):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._state()
                self._db.execute("COMMIT")
                self._wrote = True
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        with told(self.folder, self._timeout):
            self._db.execute("BEGIN")
            try:
                yield
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
            check_width(dim, width)
        if (fingerprint and not known) or (dim and not width):
            with self._writing():
                self._admit_here(fingerprint, compatible_with, dim)

    def _admit_here(self, fingerprint: str | None, compatible_with: Sequence[str], dim: int | None) -> int:
        """Inside a write: check and record width and encoder; returns the encoder's number."""
        known, width = self._encoders(), self._dim()
        self._check_encoder(fingerprint, compatible_with, known)
        check_width(dim, width)
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
        if fingerprint in known or not known:
            return
        others = [name for name in self._present(known) if name not in compatible_with]
        if others:
            raise DataError(
                f"{self.folder}: belongs to encoder {others[0][:12]}, got vectors of encoder {fingerprint[:12]}, whose "
                "bundle does not list it in compatible_with; run scripts/compat.py old=OLD_EMBEDDINGS "
                "new=NEW_EMBEDDINGS pairs=FILE encoder=NEW_ENCODER, which lists it where the two go together, or embed "
                "again with the gallery's encoder"
            )

    def _present(self, known: Mapping[str, int]) -> list[str]:
        """The encoders that have vectors here; where none has, the first that came."""
        if len(known) < 2:
            return list(known)
        token = self._state().token
        if self._seen[0] != token:
            query = "SELECT EXISTS (SELECT 1 FROM items WHERE encoder = ?)"
            there = [name for name, number in known.items() if self._one(query, number)]
            self._seen = token, there or list(known)[:1]
        return self._seen[1]

    def _encoders(self) -> dict[str, int]:
        return dict(self._db.execute("SELECT fingerprint, number FROM encoders ORDER BY number"))

    def _dim(self) -> int | None:
        found = self._db.execute("SELECT value FROM meta WHERE key = 'dim'").fetchone()
        if found and not re.fullmatch("[1-9][0-9]{0,5}", str(found[0])):
            raise damaged(self.folder, "its width")
        return int(found[0]) if found else None

    # SQL

    def _state(self) -> State:
        return last_write(self.folder, self._db)

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
