"""Writes to the table ``items``. They lock items in the order of their ids and count them last: none waits for another
that waits for it.

Letters: n items, D embedding width.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from facenet.gallery.engines.postgres.connection import Connection
from facenet.gallery.engines.postgres.index import Index
from facenet.gallery.engines.postgres.rows import BLOCK, TEXTS, little_endian
from facenet.gallery.engines.tags import tags_of
from facenet.gallery.items import Texts, digest


class Writes:
    """What one write after the other does to the items."""

    def __init__(self, connection: Connection, index: Index) -> None:
        self.connection, self.index = connection, index
        self._changes: Counter[int] = Counter()  # items that the present write added, by encoder
        self._wrote = False

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """Count at its end what a write changed, and mark the new state."""
        self._changes.clear()
        self._wrote = False
        yield
        if not self._wrote:
            return
        for number, more in sorted(self._changes.items()):
            self.connection.execute("UPDATE encoders SET items = items + %s WHERE number = %s", (more, number))
        token = secrets.token_hex(8)
        self.connection.execute("UPDATE state SET generation = generation + 1, token = %s", (token,))

    def _hold_columns(self) -> None:
        """Let no column of vectors come until the write ends: a statement has to name all of them."""
        self.connection.execute("LOCK TABLE items IN ROW EXCLUSIVE MODE")

    def _note(self, came: Counter[int], went: Counter[int]) -> None:
        """Note items of the present write by their encoder."""
        self._changes.update(came)
        self._changes.subtract(went)
        self._wrote = self._wrote or bool(came or went)

    def put(
        self, rows: Sequence[tuple[Texts, np.ndarray]], encoder: int, fingerprint: str, *, replace: bool
    ) -> tuple[int, int, list[str]]:
        """Write items of distinct ids; returns how many were added and replaced, and the ids that stay as they were."""
        self._hold_columns()
        rows = sorted(rows, key=lambda row: row[0][0])
        written: dict[str, int | None] = {}
        for start in range(0, len(rows), BLOCK):
            written |= self._insert(rows[start : start + BLOCK], encoder, fingerprint, replace)
        before = Counter(old for old in written.values() if old is not None)
        self._note(Counter({encoder: len(written)} if written else {}), before)
        kept = [texts[0] for texts, _ in rows if texts[0] not in written]
        return len(written) - before.total(), before.total(), kept

    def _insert(
        self, rows: Sequence[tuple[Texts, np.ndarray]], encoder: int, fingerprint: str, replace: bool
    ) -> dict[str, int | None]:
        """Return for each id that was written the encoder of the item that it replaced, or None."""
        texts = list(zip(*(one for one, _ in rows), strict=True))
        tags = ["{" + ",".join(map(str, tags_of(json.loads(one)))) + "}" for one in texts[4]]
        seals = [digest((*one, fingerprint), vector.astype("<f4").tobytes()) for one, vector in rows]
        vectors = [f"vector_{column}" for column in self.index.columns()]
        columns = ("number", *TEXTS.split(", ")[1:], "tags", "encoder", "digest", *vectors)
        changes = ", ".join(f"{column} = excluded.{column}" for column in columns)
        what = f"DO UPDATE SET before = items.encoder, {changes}" if replace else "DO NOTHING"
        query = f"""INSERT INTO items ({TEXTS}, tags, encoder, digest, vector_{encoder:d})
          SELECT {TEXTS}, tags::bigint[], %s, digest, vector FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[],
          %s::text[], %s::text[], %s::bytea[], %s::vector[]) AS given ({TEXTS}, tags, digest, vector)
          ORDER BY id COLLATE "C" ON CONFLICT (id) {what} RETURNING id, before"""
        values = (encoder, *map(list, texts), tags, seals, [vector for _, vector in rows])
        return dict(self.connection.execute(query, values).fetchall())

    def delete(self, numbers: Sequence[int]) -> int:
        """Remove items; returns how many were there."""
        chosen = "SELECT number FROM items WHERE number = ANY(%s) ORDER BY id FOR UPDATE"
        query = f"DELETE FROM items WHERE number IN ({chosen}) RETURNING encoder"
        gone = Counter(self.connection.column(query, list(numbers)))
        self._note(Counter(), gone)
        return gone.total()

    def rename(self, numbers: Sequence[int], identity: str) -> int:
        """Give items an identity; returns how many were there.

        They are locked first, and read by a statement of its own: one that waits would join old and new rows.
        """
        self._hold_columns()
        lock = "SELECT number FROM items WHERE number = ANY(%s) ORDER BY id FOR UPDATE"
        locked = self.connection.column(lock, list(numbers))
        query = f"SELECT {self.index.whole()} WHERE items.number = ANY(%s)"
        rows = self.connection.execute(query, (locked,)).fetchall()
        seals = []
        for row in rows:
            item, vector = self.index.engine.item_of_row(row)
            texts = (item.id, identity, item.path, item.root, row[5])
            seals.append(digest((*texts, item.fingerprint), little_endian(vector)))
        update = """UPDATE items SET identity = %s, digest = given.digest
          FROM unnest(%s::bigint[], %s::bytea[]) AS given (number, digest) WHERE items.number = given.number"""
        self.connection.execute(update, (identity, [row[0] for row in rows], seals))
        self._wrote = self._wrote or bool(rows)
        return len(rows)

    def lock_old(
        self, encoders: Sequence[int], after: int, most: int, among: Sequence[int] | None
    ) -> list[tuple[int, Texts]]:
        """Lock and return the next `most` items of these encoders above the number `after`; see `Engine.old_items`."""
        only, values = ("", []) if among is None else ("AND number = ANY(%s)", [list(among)])
        pick = f"SELECT number FROM items WHERE number > %s AND encoder = ANY(%s) {only} ORDER BY number LIMIT %s"
        lock = f"SELECT number, {TEXTS} FROM items WHERE number = ANY(%s) AND encoder = ANY(%s) ORDER BY id FOR UPDATE"
        while picked := self.connection.column(pick, after, list(encoders), *values, most):
            found = self.connection.execute(lock, (picked, list(encoders))).fetchall()
            if found:
                return sorted((row[0], row[1:]) for row in found)
            after = picked[-1]  # all of them went meanwhile
        return []

    def exchange(self, items: Sequence[tuple[int, Texts]], vectors: np.ndarray, encoder: int, fingerprint: str) -> None:
        """Give locked items (n) new vectors (n, D) of another encoder; the column of the old one is emptied."""
        self._hold_columns()
        numbers = [number for number, _ in items]
        before = Counter(self.connection.column("SELECT encoder FROM items WHERE number = ANY(%s)", numbers))
        pairs = zip(items, vectors, strict=True)
        seals = [digest((*texts, fingerprint), vector.astype("<f4").tobytes()) for (_, texts), vector in pairs]
        others = "".join(f", vector_{one} = NULL" for one in self.index.columns() if one != encoder)
        query = f"""UPDATE items SET vector_{encoder:d} = given.vector, encoder = %s, digest = given.digest{others}
          FROM unnest(%s::bigint[], %s::bytea[], %s::vector[]) AS given (number, digest, vector)
          WHERE items.number = given.number"""
        self.connection.execute(query, (encoder, numbers, seals, list(vectors)))
        self._note(Counter({encoder: len(items)}), before)
