"""The tables ``writes`` and ``removed``: the history of a gallery, one row for each transaction that changed items."""

from __future__ import annotations

import secrets
from typing import NamedTuple

from facenet.gallery.sql.database import Database

TABLES = """
CREATE TABLE removed (number INTEGER PRIMARY KEY, generation INTEGER NOT NULL);
CREATE INDEX removed_generation ON removed (generation);
CREATE TABLE writes (generation INTEGER PRIMARY KEY, token TEXT NOT NULL, last INTEGER NOT NULL,
  items INTEGER NOT NULL);
"""


class Write(NamedTuple):
    """One write transaction, and the state that it left."""

    generation: int
    token: str  # random: a generation alone can not tell a restored backup
    last: int  # the highest item number given out until then; numbers are never used again
    items: int


class WriteTable:
    """The write transactions of a gallery, and the numbers of the items that they removed."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def last(self) -> Write:
        """Return the newest write.

        Raises:
            DataError: there is none, or it holds other types.
        """
        query = "SELECT generation, token, last, items FROM writes ORDER BY generation DESC LIMIT 1"
        row = self.database.execute(query).fetchone()
        if row is None or list(map(type, row)) != [int, str, int, int]:
            raise self.database.damaged("no write on record")
        return Write(*row)

    def find(self, generation: int, token: str) -> Write | None:
        """Return the write of that name, or None if it is not in this history."""
        query = "SELECT generation, token, last, items FROM writes WHERE generation = ? AND token = ?"
        row = self.database.execute(query, (generation, token)).fetchone()
        return Write(*row) if row else None

    def begin(self) -> None:
        """Record the state of a gallery without items."""
        self.database.execute("INSERT INTO writes VALUES (0, ?, 0, 0)", (secrets.token_hex(8),))

    def record(self, before: Write, more: int) -> None:
        """Record the write after `before`, which left `more` items than that."""
        last = self.database.value("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'items'")
        row = Write(before.generation + 1, secrets.token_hex(8), last, before.items + more)
        self.database.execute("INSERT INTO writes VALUES (?, ?, ?, ?)", row)

    def removed_since(self, write: Write) -> list[int]:
        """Return the numbers of the items that were there at a write and are not any more."""
        query = "SELECT number FROM removed WHERE generation > ? AND number <= ?"
        return self.database.column(query, write.generation, write.last)

    def forget(self) -> None:
        """Delete the whole history; a record must follow."""
        self.database.execute("DELETE FROM removed")
        self.database.execute("DELETE FROM writes")
