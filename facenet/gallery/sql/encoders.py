"""The tables ``meta`` and ``encoders``: settings of a gallery, and whose vectors may come in or ask."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from facenet.errors import DataError, OtherEncoder
from facenet.gallery.sql.database import Database
from facenet.gallery.sql.writes import WriteTable

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

    def __init__(self, database: Database, settings: SettingTable, writes: WriteTable) -> None:
        self.database, self.settings, self.writes = database, settings, writes

    def numbers(self) -> dict[str, int]:
        """Return the number of each fingerprint."""
        return dict(self.database.execute("SELECT fingerprint, number FROM encoders ORDER BY number"))

    def counts(self) -> dict[int, int]:
        """Return how many items each encoder has, by the encoder's number; counted once a write, if there are two."""
        known = self.numbers()
        if len(known) == 1:
            return dict.fromkeys(known.values(), self.writes.last().items)
        query = "SELECT encoder, count(*) FROM items GROUP BY encoder"
        return self.writes.kept("encoders", lambda: dict(self.database.execute(query)))

    def first(self) -> str | None:
        """Return the first encoder that has vectors, or the first that came if none has; None before the first."""
        return next(iter(self._with_vectors(self.numbers())), None)

    def dim(self) -> int | None:
        """Return the width D of the vectors, or None before it is known.

        Raises:
            DataError: the stored width is no number from 1 to 999,999.
        """
        found = self.settings.get("dim")
        if found is not None and not re.fullmatch("[1-9][0-9]{0,5}", str(found)):
            raise self.database.damaged("its width")
        return None if found is None else int(found)

    def admit(self, fingerprint: str | None, compatible_with: Sequence[str], dim: int | None) -> int:
        """Check and record an encoder and a width inside a write; returns the encoder's number, 0 for None.

        Raises:
            DataError: as :meth:`check`.
        """
        self.check(fingerprint, compatible_with, dim)
        known = self.numbers()
        if dim and not self.dim():
            self.settings.put("dim", str(dim))
        if fingerprint and fingerprint not in known:
            cursor = self.database.execute("INSERT INTO encoders (fingerprint) VALUES (?)", (fingerprint,))
            return int(cursor.lastrowid or 0)
        return known.get(fingerprint or "", 0)

    def check(self, fingerprint: str | None, compatible_with: Sequence[str], dim: int | None = None) -> None:
        """Check that vectors of this encoder and width may stand beside those that are there; None is not checked.

        An encoder may join if it is known, or if `compatible_with` lists every encoder that has vectors.

        Raises:
            DataError: an empty fingerprint, an encoder that is not compatible, or another width.
        """
        if fingerprint is not None:
            self._check_encoder(fingerprint, compatible_with)
        if dim is not None and dim < 1:
            raise DataError(f"dim: expected at least 1, got {dim}")
        if dim and (width := self.dim()) and dim != width:
            raise DataError(f"embeddings: expected width {width}, as the gallery has, got {dim}; embed again")

    def _check_encoder(self, fingerprint: str, compatible_with: Sequence[str]) -> None:
        if not fingerprint:
            raise DataError("embeddings: no encoder fingerprint; embed again with facenet embed")
        known = self.numbers()
        if fingerprint in known or not known:
            return
        others = [name for name in self._with_vectors(known) if name not in compatible_with]
        if others:
            raise OtherEncoder(
                f"{self.database.folder}: belongs to encoder {others[0][:12]}, got vectors of encoder "
                f"{fingerprint[:12]}, whose bundle does not list it in compatible_with; run facenet compat "
                "old=OLD_EMBEDDINGS new=NEW_EMBEDDINGS pairs=FILE encoder=NEW_ENCODER, which lists it if the two go "
                "together, or embed again with the gallery's encoder"
            )

    def _with_vectors(self, known: Mapping[str, int]) -> list[str]:
        """Return the encoders that have vectors, or the first that came if none has."""
        counts = self.counts() if len(known) > 1 else {}
        return [name for name, number in known.items() if counts.get(number)] or list(known)[:1]
