"""The tables ``meta`` and ``encoders``: settings of a gallery, and whose vectors it holds."""

from __future__ import annotations

import re
from typing import Any

from facenet.gallery.sql.database import Database

TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE encoders (number INTEGER PRIMARY KEY, fingerprint TEXT NOT NULL UNIQUE);
"""


class SettingTable:
    """The texts of the table ``meta`` by key: the width of the vectors ("dim"), the wanted index ("index"), and so on.

    Keys that begin with "once:" hold what named adds did, "renamed" how many items were ever renamed.
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    def get(self, key: str) -> Any:
        """Return the text, or None if there is none; a damaged file may hold another type."""
        found = self.database.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return found[0] if found else None

    def put(self, key: str, value: str) -> None:
        """Store a text inside a write."""
        statement = "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = ?"
        self.database.execute(statement, (key, value, value))

    def forget(self, prefix: str, before: float) -> None:
        """Delete the JSON texts whose key has that prefix and whose "time" is earlier, inside a write."""
        statement = "DELETE FROM meta WHERE substr(key, 1, ?) = ? AND json_extract(value, '$.time') < ?"
        self.database.execute(statement, (len(prefix), prefix, before))


class EncoderTable:
    """The encoders of a gallery in the order in which they came, and the width D of their vectors."""

    def __init__(self, database: Database, settings: SettingTable) -> None:
        self.database, self.settings = database, settings

    def numbers(self) -> dict[str, int]:
        """Return the number of each fingerprint."""
        return dict(self.database.execute("SELECT fingerprint, number FROM encoders ORDER BY number"))

    def number_of(self, fingerprint: str) -> int:
        """Return the number of a fingerprint, which gets one inside a write if it has none."""
        self.database.execute("INSERT OR IGNORE INTO encoders (fingerprint) VALUES (?)", (fingerprint,))
        return int(self.database.value("SELECT number FROM encoders WHERE fingerprint = ?", fingerprint))

    def counts(self) -> dict[int, int]:
        """Return how many items each encoder has, by the encoder's number."""
        return dict(self.database.execute("SELECT encoder, count(*) FROM items GROUP BY encoder"))

    def dim(self) -> int | None:
        """Return the width D of the vectors, or None before it is known.

        Raises:
            DataError: the stored width is no number from 1 to 999,999.
        """
        found = self.settings.get("dim")
        if found is not None and not re.fullmatch("[1-9][0-9]{0,5}", str(found)):
            raise self.database.damaged("its width")
        return None if found is None else int(found)
