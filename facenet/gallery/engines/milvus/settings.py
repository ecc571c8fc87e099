"""The collection of settings: the encoders of a gallery, the recipe of its index, and what named adds did."""

from __future__ import annotations

import json
import secrets
import time

from facenet.errors import Busy
from facenet.gallery.engines.milvus.collection import Collection
from facenet.gallery.engines.milvus.connection import Connection
from facenet.gallery.engines.milvus.rows import number_of
from facenet.gallery.engines.milvus.schema import settings_schema
from facenet.gallery.engines.tags import tag_of

ENCODER, ONCE = "encoder:", "once:"  # begin keys


class Settings:
    """The texts of one gallery by key. All but those of named adds are read when a session begins.

    Milvus may lose sight of rows for a moment, while it compacts segments under many upserts (its issue 40852). None of
    these texts is ever deleted, so what was read once stays.
    """

    def __init__(self, connection: Connection, items: Collection) -> None:
        self.connection, self.items = connection, items
        self.collection = f"{connection.address.name}_settings"
        self._known: dict[str, str] = {}

    def open(self, *, create: bool) -> bool:
        """Tell whether there is a gallery; `create` makes one."""
        there = self.connection.has(self.collection)
        if create and not there:
            settings_schema(self.connection, self.collection)
        return there or create

    def read(self) -> None:
        """Read what other clients have written.

        Raises:
            Busy: there are items, but their settings can not be seen for now.
        """
        ends = time.monotonic() + self.connection.timeout
        while True:
            rows = self.connection.stream(self.collection, "once == 0", ["key", "value"])
            self._known |= {row["key"]: row["value"] for page in rows for row in page}
            if "dim" in self._known or not self.items.is_there():
                return
            if time.monotonic() > ends:
                raise Busy(f"{self.connection.address.shown}: its settings can not be seen for now; ask again")
            time.sleep(0.1)

    def get(self, key: str) -> str | None:
        """Return the text of a key; None if there is none."""
        if not key.startswith(ONCE):
            return self._known.get(key)
        found = self.connection.rows(self.collection, f"number == {number_of(key)}", ["value"], 1)
        return found[0]["value"] if found else None

    def put(self, key: str, value: str) -> None:
        """Store a text; the vector stands for nothing."""
        seconds = int(time.time()) if key.startswith(ONCE) else 0
        row = {"number": number_of(key), "key": key, "value": value, "once": seconds, "vector": [0.0, 0.0]}
        self.connection.upsert(self.collection, [row])
        self._known[key] = value

    def forget(self, before: float) -> None:
        """Delete what named adds did before that time."""
        for page in list(self.connection.stream(self.collection, f"once > 0 and once < {int(before)}", [])):
            self.connection.delete(self.collection, [row["number"] for row in page])

    def state(self) -> tuple[str, int]:
        """Return the token of the last write, and how many writes there were."""
        token, _, generation = (self.get("state") or "-0").rpartition("-")
        return token, int(generation)

    def begin_state(self) -> None:
        """Store that a write was made."""
        self.put("state", f"{secrets.token_hex(8)}-{self.state()[1] + 1}")

    def encoders(self) -> dict[str, int]:
        """Return the number of each encoder by its fingerprint, in the order in which they came."""
        known = [json.loads(value) for key, value in self._known.items() if key.startswith(ENCODER)]
        return {one["fingerprint"]: one["number"] for one in sorted(known, key=lambda one: float(one["time"]))}

    def number_of(self, fingerprint: str) -> int:
        """Return the number of an encoder, which is recorded if it is new; it is the same, whoever comes first."""
        known = self.encoders()
        if fingerprint in known:
            return known[fingerprint]
        number = tag_of(fingerprint) & 0x7FFFFFFF
        value = {"fingerprint": fingerprint, "number": number, "time": time.time()}
        self.put(f"{ENCODER}{number}", json.dumps(value))
        return number
