"""New vectors in the place of old ones: a gallery follows an upgrade batch by batch, searchable all the while.

A batch is one transaction: items with their old vectors go, the same items with new vectors come, under new numbers, as
the index knows vectors by number. What is done is told by each item's encoder, so a backfill that was killed goes on by
being started again.

Letters: N images, D embedding width.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from facenet.errors import ConfigError, DataError
from facenet.gallery.search import Reader
from facenet.gallery.sql.rows import with_vectors
from facenet.gallery.sql.truth import State
from facenet.types import EmbeddingSet, Progress, image_key
from facenet.vectors import unit_rows

BATCH = 1000  # items of a transaction
INSERT = """INSERT INTO items (id, identity, path, root, metadata, encoder, vector, digest) VALUES (?,?,?,?,?,?,?,?)"""


class BackfillResult(NamedTuple):
    """What one backfill did and left, in items."""

    replaced: int
    missing: int  # of an old encoder still, because their image is not among the embeddings
    current: int  # of the new encoder, those of earlier runs included
    other: int  # of encoders that the new one is not compatible with; they stay


class Writer(Reader):
    """The part of `index.Gallery` that changes items."""

    def backfill(
        self,
        embeddings: EmbeddingSet,
        *,
        compatible_with: Sequence[str] = (),
        batch: int = BATCH,
        progress: Progress | None = None,
    ) -> BackfillResult:
        """Replace the vectors of old encoders by those of the N `embeddings` of the same images.

        Old are the encoders in `compatible_with`, the list in the bundle of the encoder that made the embeddings. An
        item's image is the one whose path, without its file type, is that of the item or else the item's id; in a
        gallery of several roots the roots must be equal too. Id, identity, path and metadata stay. `progress` is
        called with (items looked at, items of old encoders).

        Raises:
            DataError: broken or not-unit vectors, another width, an image twice, an encoder that is not compatible, or
                embeddings of none of the gallery's images.
            ConfigError: `batch` < 1.
        """
        if batch < 1:
            raise ConfigError(f"batch: expected at least 1, got {batch}")
        vectors = unit_rows(embeddings.vectors, "embeddings", names=embeddings.paths)
        rows = embeddings.rows_by_key("embeddings")
        old, total, roots = self._before(embeddings, compatible_with)
        done = replaced = last = 0
        while True:
            with self._writing() as state:
                items = self._next(old, last, batch)
                places = [_image(item, rows, embeddings.root, roots) for item in items]
                found = [(item, row) for item, row in zip(items, places, strict=True) if row is not None]
                self._exchange(found, embeddings.fingerprint, vectors, compatible_with, state)
            if not items:
                break
            done, replaced, last = done + len(items), replaced + len(found), items[-1][0]
            if progress is not None:
                progress(done, max(total, done))
        return self._result(embeddings.fingerprint, old, replaced)

    def _before(self, embeddings: EmbeddingSet, compatible_with: Sequence[str]) -> tuple[list[int], int, int]:
        """Check the encoder; return the numbers of the old ones, how many items they have, and of how many roots."""
        with self._reading():
            known = self._encoders()
            self._check_encoder(embeddings.fingerprint, compatible_with, known)
            old = [known[name] for name in compatible_with if name in known and name != embeddings.fingerprint]
            where = f"encoder IN ({','.join('?' * len(old))})"
            total = self._one(f"SELECT count(*) FROM items WHERE {where}", *old)
            roots = self._one(f"SELECT count(DISTINCT root) FROM items WHERE {where}", *old)
        return old, total, roots

    def _exchange(
        self,
        found: Sequence[tuple[Sequence[Any], int]],
        fingerprint: str,
        vectors: np.ndarray,
        compatible_with: Sequence[str],
        state: State,
    ) -> None:
        """Inside a write: put the rows of `vectors` (N, D) in the place of the items that they belong to."""
        if not found:
            return
        new = self._admit_here(fingerprint, compatible_with, vectors.shape[1])
        self._remove([item[0] for item, _ in found], state)
        texts, rows = [tuple(item[1:]) for item, _ in found], [row for _, row in found]
        self._db.executemany(INSERT, with_vectors(texts, new, fingerprint, vectors[rows], range(len(found))))
        self._record(state, 0, changed=True)

    def _next(self, old: Sequence[int], last: int, batch: int) -> list[tuple[Any, ...]]:
        where = f"number > ? AND encoder IN ({','.join('?' * len(old))})"
        query = f"SELECT number, id, identity, path, root, metadata FROM items WHERE {where} ORDER BY number LIMIT ?"
        return list(self._db.execute(query, (last, *old, batch)))

    def _result(self, fingerprint: str, old: Sequence[int], replaced: int) -> BackfillResult:
        with self._reading():
            number = self._encoders().get(fingerprint, 0)
            per_encoder = dict(self._db.execute("SELECT encoder, count(*) FROM items GROUP BY encoder"))
        current, missing = per_encoder.get(number, 0), sum(per_encoder.get(one, 0) for one in old)
        if missing and not current:
            raise DataError(
                f"{self.folder}: the embeddings hold none of the images of its {missing} items; embed the folder that "
                "the gallery was made from"
            )
        return BackfillResult(replaced, missing, current, sum(per_encoder.values()) - current - missing)

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


def _image(item: Sequence[str], rows: Mapping[str, int], root: str, roots: int) -> int | None:
    """Return the row of an item's image (number, id, identity, path, root, metadata); None where it is not there."""
    _, name, _, path, own_root, _ = item
    if roots > 1 and own_root != root:
        return None
    for text in (path, name):
        try:
            row = rows.get(image_key(text))
        except ValueError:  # no path
            continue
        if row is not None:
            return row
    return None
