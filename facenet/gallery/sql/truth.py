"""The truth of a gallery: ``items.sqlite``, which holds every acknowledged write. One process writes, any read.

The journal is SQLite's rollback journal with ``synchronous=EXTRA``, not WAL. So readers without write permission and
network folders work, one file holds everything, and an acknowledged write survives a power cut. The price is that
readers wait while a commit is written; ``cache_spill=OFF`` keeps that to the commit itself.
"""

from __future__ import annotations

import contextlib
import functools
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from facenet.errors import DataError
from facenet.gallery.sql import encoders, items, writes
from facenet.gallery.sql.database import TRUTH, Database
from facenet.gallery.sql.encoders import EncoderTable, SettingTable
from facenet.gallery.sql.items import ItemTable
from facenet.gallery.sql.writes import Write, WriteTable

SCHEMA = 1
APPLICATION = 0x46414345  # "FACE" in the SQLite header: tells a gallery from any other SQLite file
TABLES = encoders.TABLES + items.TABLES + writes.TABLES
LAYOUT = "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite\\_stat%' ESCAPE '\\'"


@functools.lru_cache(maxsize=1)
def _layout() -> set[tuple[Any, ...]]:
    """Return what SQLite says of `TABLES`."""
    with contextlib.closing(sqlite3.connect(":memory:")) as fresh:
        fresh.executescript(TABLES)
        return set(fresh.execute(LAYOUT))


class Truth:
    """The tables of one gallery (`items`, `writes`, `encoders`, `settings`), and their transactions."""

    def __init__(self, folder: Path, timeout: float, *, create: bool) -> None:
        """Open the file in `folder`; `create` makes it if it is missing. Statements wait `timeout` seconds for locks.

        Raises:
            DataError: no gallery there, a foreign or damaged file, or another schema.
        """
        self.folder = folder
        self.database = Database(folder, timeout, create=create)
        self.writes = WriteTable(self.database)
        self.items = ItemTable(self.database)
        self.settings = SettingTable(self.database)
        self.encoders = EncoderTable(self.database, self.settings)
        self.wrote = False  # whether this object has committed a write
        try:
            self._prepare(create)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection."""
        self.database.close()

    def damaged(self, why: str) -> DataError:
        """Return the error for a truth that contradicts itself."""
        return self.database.damaged(why)

    def _prepare(self, create: bool) -> None:
        path = self.folder / TRUTH
        with self.database.one_line_errors():
            for pragma in ("synchronous=EXTRA", "cache_spill=OFF", "secure_delete=ON", "foreign_keys=ON"):
                self.database.execute(f"PRAGMA {pragma}")
            if create and self._is_blank():
                self._make_tables()
            application, schema = (self.database.value(f"PRAGMA {name}") for name in ("application_id", "user_version"))
        if application != APPLICATION:
            raise DataError(f"{path}: not a gallery (another program's or an empty SQLite file)")
        if schema != SCHEMA:
            raise DataError(f"{path}: schema {schema}, this version reads {SCHEMA}; index the embeddings again")
        with self.database.one_line_errors():
            if (
                set(self.database.execute(LAYOUT)) != _layout()
            ):  # a foreign view or trigger would run inside our queries
                raise self.database.damaged("other tables than a gallery has")

    def _make_tables(self) -> None:
        self.database.execute("BEGIN IMMEDIATE")
        if self._is_blank():  # else another process made it meanwhile
            self.database.execute(f"PRAGMA application_id={APPLICATION}")
            self.database.execute(f"PRAGMA user_version={SCHEMA}")
            for statement in TABLES.split(";")[:-1]:
                self.database.execute(statement)
            self.writes.begin()
        self.database.execute("COMMIT")

    def _is_blank(self) -> bool:
        return bool(self.database.value("SELECT NOT EXISTS (SELECT 1 FROM sqlite_master)"))

    # Transactions

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Let everything inside see one state, that of an outer block if there is one; SQLite's errors are one line."""
        with contextlib.nullcontext() if self.database.in_transaction else self._transaction("BEGIN"):
            yield

    @contextlib.contextmanager
    def writing(self) -> Iterator[Write]:
        """Commit everything inside, or nothing if it raises; yields the last write before it."""
        with self._transaction("BEGIN IMMEDIATE"):
            yield self.writes.last()
            self.database.execute("COMMIT")
            self.wrote = True

    @contextlib.contextmanager
    def _transaction(self, begin: str) -> Iterator[None]:
        with self.database.one_line_errors():
            self.database.execute(begin)
            try:
                yield
            finally:
                if self.database.in_transaction:
                    self.database.execute("ROLLBACK")

    # What concerns the whole file

    def compact(self) -> None:
        """Forget the removed items and give their space back; needs as much free space as the file takes."""
        with self.writing() as before:
            self.writes.forget()
            self.writes.record(before, 0)
        with self.database.one_line_errors():
            self.database.execute("VACUUM")

    def problems(self) -> Iterator[str]:
        """Read everything inside a read transaction; yields what is wrong, one line each."""
        dim = self.encoders.dim()
        for line in self.database.column("PRAGMA integrity_check"):
            if line != "ok":
                yield f"{TRUTH}: {line}"
        count, lines = self.items.problems(dim)
        yield from lines
        if count != self.writes.last().items:
            yield f"{TRUTH}: {count} items, its last write says {self.writes.last().items}"
