"""The gallery: named faces on disk, searched by squared L2. SQLite holds the truth, FAISS is its cache.

``items.sqlite`` has one row an item (id, identity, path, metadata, vector, encoder) and one row a write transaction
(see `index_store`); ``index.faiss`` is rebuilt where it is lost, damaged or of another history (see `index_cache`).
Item numbers are never used again, so a number found by a search can not come to mean another face.

Letters: N items, Q queries, k neighbours, D embedding width.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from facenet.errors import ConfigError, DataError, choose
from facenet.gallery.backfill import INSERT, BackfillResult, Writer
from facenet.gallery.faiss.file import INDEX, read_header
from facenet.gallery.faiss.kinds import Recipe
from facenet.gallery.search import Hit, Item
from facenet.gallery.sql.rows import (
    distinct,
    named,
    text_rows,
    told,
    with_vectors,
)
from facenet.gallery.sql.store import SCHEMA
from facenet.gallery.sql.truth import TRUTH, WHOLE, digest, wanted
from facenet.types import EmbeddingSet
from facenet.vectors import unit_rows

__all__ = ["AddResult", "BackfillResult", "Gallery", "Hit", "Item"]

TOLD = ("factory", "parameter", "fetch", "error", "recall")  # of the index, in `info`
log = logging.getLogger(__name__)


class AddResult(NamedTuple):
    """What one `add` did, in items."""

    added: int
    replaced: int
    skipped: int


class Gallery(Writer):
    """A folder of named unit vectors of one encoder (and of encoders compatible with it); see the module's text.

    One process writes at a time, others wait for `timeout` seconds; any number read. Every method raises
    DataError with one line where the folder is damaged, locked, full or read-only; nothing is then changed.
    """

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
        gallery = cls(Path(folder), timeout, create=create)
        try:
            gallery._admit(fingerprint, compatible_with, dim)
        except BaseException:
            gallery._db.close()
            raise
        return gallery

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
            if self._wrote or self._cache.layers is not None:
                self.save_cache()
        except DataError as error:
            log.warning("%s; the next search builds the index from %s again", error, TRUTH)
        finally:
            self._wrote, self._cache.layers = False, None
            self._db.close()

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
        choose(dict.fromkeys(("error", "skip", "replace")), on_duplicate, "on_duplicate")
        ids = list(embeddings.paths if ids is None else ids)
        vectors = unit_rows(embeddings.vectors, "embeddings", names=embeddings.paths)
        rows = text_rows(embeddings, ids, metadata, vectors)
        keep = distinct(ids, on_duplicate)
        with self._writing() as state:
            encoder = self._admit_here(embeddings.fingerprint, compatible_with, embeddings.dim)
            known = self._numbers([ids[i] for i in keep])
            if known and on_duplicate == "error":
                raise DataError(
                    f"{self.folder}: {named(list(known))} in the gallery already; nothing was added "
                    "(on_duplicate=skip or replace)"
                )
            if on_duplicate == "skip":
                keep = [i for i in keep if ids[i] not in known]
            replaced = self._remove(known.values(), state) if on_duplicate == "replace" else 0
            self._db.executemany(INSERT, with_vectors(rows, encoder, embeddings.fingerprint, vectors, keep))
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

    # The index

    def configure(self, kind: str = "auto", *, factory: str = "", recall_target: float = 0.99) -> None:
        """Choose the kind of index, or a FAISS factory string; the next search, or closing, builds it.

        Kinds: flat (exact), hnsw, ivf_sq8 (D bytes and a little an item), ivf_pq (D / 4 bytes), auto (flat to 100,000
        items, then ivf_sq8). `recall_target` is the share of nearest neighbours to be found, measured on a sample.

        Raises:
            ConfigError: an unknown kind or factory string, or a target outside (0, 1].
        """
        recipe = Recipe(kind, factory, recall_target).checked(self.dim)
        with self._writing():
            value = json.dumps(list(recipe))
            self._db.execute(
                "INSERT INTO meta VALUES ('index', ?) ON CONFLICT (key) DO UPDATE SET value = ?", (value, value)
            )

    @property
    def recipe(self) -> Recipe:
        """What :meth:`configure` chose."""
        with told(self.folder, self._timeout):
            return wanted(self.folder, self._db)

    def save_cache(self, *, force: bool = False) -> bool:
        """Write ``index.faiss`` where it is missing, unusable or more than 1 % behind (or `force`); True if written."""
        with self._reading():
            dim = self._dim()
            if dim is None or not (force or self._cache.due(self._state())):
                return False
            stored = self._cache.save(dim)
        self._cache.write(stored)
        return True

    def compact(self) -> dict[str, int]:
        """Forget removed items, give their space back and build the index anew; bytes before and after.

        Needs as much free space as the gallery takes. Other processes may search meanwhile, and wait to write.
        """
        before = sum(self._bytes().values())
        with self._writing() as state:
            self._db.execute("DELETE FROM removed")
            self._db.execute("DELETE FROM writes")
            self._record(state, 0, changed=True)
        with told(self.folder, self._timeout):
            self._db.execute("VACUUM")
        self._cache.forget()
        self.save_cache(force=True)
        return {"bytes_before": before, "bytes_after": sum(self._bytes().values())}

    def _bytes(self) -> dict[str, int]:
        paths = {name: self.folder / name for name in (TRUTH, INDEX)}
        return {name: path.stat().st_size if path.is_file() else 0 for name, path in paths.items()}

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
                "kind": wanted(self.folder, self._db).kind,
                "cache": "missing" if base is None else "current" if base == state else "behind",
                "index": {name: header[name] for name in TOLD} if base and (header := read_header(self.folder)) else {},
                "bytes": self._bytes(),
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
        for _, *row, vector, stored in self._db.execute(WHOLE):
            count += 1
            if stored != digest(row, vector):
                problems.append(f"{row[0]}: its digest does not fit its content; add it again (on_duplicate=replace)")
            elif len(vector) != 4 * (dim or 0):
                problems.append(f"{row[0]}: {len(vector)} bytes, not a vector of width {dim}")
        if count != self._state().items:
            problems.append(f"{TRUTH}: {count} items, its last write says {self._state().items}")
        return problems
