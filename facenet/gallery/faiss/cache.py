"""The FAISS side of a gallery: ``index.faiss`` as a cache of the truth, brought up to date and checked before use.

``index.json`` names the write (generation and token) that the file holds, and its hashes. A cache that belongs to the
history of the truth is mapped and later writes are replayed beside it; one that is lost, damaged, of another history
(a restored backup) or of another kind than wanted is built again from the truth.

FAISS fails on a wrong width without a word, pads with -1, writes files non-atomically and loads most corrupted ones,
so what goes in or comes out is checked. It is imported inside functions: where torch is used too, torch must come
first (each brings an OpenMP runtime).

Letters: N items, D embedding width.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from facenet.gallery.faiss.build import build
from facenet.gallery.faiss.file import INDEX, Stored, load, read_header, save, writable
from facenet.gallery.faiss.kinds import Built, Recipe, drop, held, new_index
from facenet.gallery.faiss.layers import Layers
from facenet.gallery.sql.truth import (
    Database,
    State,
    find_write,
    last_write,
    removed_since,
    vector_blocks,
    wanted,
)

MAY_LAG = 0.01  # share of the items by which index.faiss may be behind before it is written again
MERGED = 0.1  # share of later items that an index of codes or a graph takes in while it is in use
HOLES = 0.1  # share of removed items that a graph may keep
log = logging.getLogger(__name__)


class Cache:
    """The index of one gallery, in memory and in ``index.faiss``; calls come inside a read transaction of `db`."""

    def __init__(self, folder: Path, db: Database) -> None:
        """Nothing is read before the first search."""
        self.folder = folder
        self.db = db
        self.layers: Layers | None = None
        self.at = State(-1, "", 0, 0)  # the write that the layers show
        self.recipe = Recipe()  # what they were made to
        self.unusable = False  # the file was looked at and did not serve

    def current(self, dim: int) -> Layers:
        """The layers of exactly the present state; raises DataError where the truth itself is damaged."""
        now, recipe = last_write(self.folder, self.db), wanted(self.folder, self.db)
        layers, at = self.layers, self.at
        if layers is not None and at[:2] == now[:2] and recipe == self.recipe:
            return layers
        self.layers = None  # an error below must not leave half-changed layers in use
        known = find_write(self.db, at[:2]) if layers is not None and recipe == self.recipe else None
        if layers is None or known is None:
            layers, at = self._loaded(dim, recipe)
        if layers is None:
            layers = Layers(self._built(dim, now, recipe), dim)
        else:
            layers.remove(removed_since(self.db, at))
            for numbers, vectors in vector_blocks(self.folder, self.db, at.last, now.items - len(layers), dim):
                layers.add(numbers, vectors)
            if layers.base.factory != "Flat" and layers.changed > MERGED * now.items:
                layers = self._merged(layers, dim, now, recipe)
        self.layers, self.at, self.recipe = layers, now, recipe
        return layers

    def _loaded(self, dim: int, recipe: Recipe) -> tuple[Layers | None, State]:
        stored, problem = load(self.folder) if not self.unusable else (None, "")
        if problem:
            log.warning("%s: %s; built again from the items", self.folder, problem)
        base = find_write(self.db, (stored.generation, stored.token)) if stored else None
        if stored and base and tuple(stored.recipe) == recipe and stored.built.faiss.d == dim:
            layers = Layers(stored.built, dim, np.array(stored.holes, np.int64))
            if len(layers) == base.items:
                return layers, base
        self.unusable = True
        return None, State(-1, "", 0, 0)

    def _built(self, dim: int, now: State, recipe: Recipe) -> Built:
        def blocks() -> Iterable[tuple[np.ndarray, np.ndarray]]:
            return vector_blocks(self.folder, self.db, 0, now.items, dim)

        if not now.items:
            list(blocks())  # which raises where there are items all the same
            return Built(new_index(dim), "Flat", 0)
        return build(blocks, now.items, dim, recipe)

    def _merged(self, layers: Layers, dim: int, now: State, recipe: Recipe) -> Layers:
        """The same items with nothing, or only the holes of a graph, beside the base."""
        base, gone = layers.base, layers.gone
        if not now.items or recipe.string(now.items, dim) != base.factory:
            return Layers(self._built(dim, now, recipe), dim)
        index = writable(base)
        if drop(index, gone):
            gone = np.empty(0, np.int64)
        elif len(gone) > HOLES * now.items:
            return Layers(self._built(dim, now, recipe), dim)
        if layers.later.ntotal:
            index.add_with_ids(layers.later.index.reconstruct_n(0, layers.later.ntotal), held(layers.later))
        facts = {name: value for name, value in base.facts().items() if name != "factory"}
        return Layers(Built(index, base.factory, **facts), dim, gone)

    def save(self, dim: int) -> Stored:
        """Merge the layers of the present state and return them to be written; see :func:`write`."""
        layers = self.current(dim)
        if layers.changed:
            layers = self.layers = self._merged(layers, dim, self.at, self.recipe)
        return Stored(layers.base, self.at.generation, self.at.token, list(self.recipe), layers.gone.tolist())

    def write(self, stored: Stored) -> None:
        """Write the files; raises DataError, the old ones unchanged, where that fails."""
        save(self.folder, stored)
        self.unusable = False

    def forget(self) -> None:
        """Build the next layers from the truth, whatever the file holds."""
        self.layers, self.unusable = None, True

    def due(self, now: State) -> bool:
        """Whether the file is missing, unusable, of another kind or more than 1 % of the items behind."""
        base = self.written()
        if base is None or self.unusable:
            return True
        return now.last - base.last + len(removed_since(self.db, base)) > MAY_LAG * now.items

    def written(self) -> State | None:
        """The write that the file says it holds; None where there is none of this history and kind."""
        header = read_header(self.folder)
        if not header or tuple(header["recipe"]) != wanted(self.folder, self.db):
            return None
        return find_write(self.db, (header["generation"], header["token"]))

    def check(self, dim: int) -> list[str]:
        """Compare the file, brought up to date, with the truth: problems, one line each; a missing file is none."""
        stored, problem = load(self.folder)
        if problem:
            return [f"{problem}; the next search builds it again"]
        if stored is None or self.written() is None:
            return []
        fresh = Cache(self.folder, self.db)
        layers = fresh.current(dim)
        if fresh.unusable or not self._holds(layers, dim):
            return [f"{INDEX} and the items differ; delete it, the next search builds it again"]
        return []

    def _holds(self, layers: Layers, dim: int) -> bool:
        """Whether the layers hold the numbers of the truth, and an exact base its vectors too."""
        base, later = held(layers.base.faiss), held(layers.later)
        place = np.argsort(base, kind="stable")
        ordered = base[place]
        cached, done = np.sort(np.concatenate([base[~np.isin(base, layers.gone)], later])), 0
        if (ordered[1:] == ordered[:-1]).any():
            return False
        items = last_write(self.folder, self.db).items
        for numbers, vectors in vector_blocks(self.folder, self.db, 0, items, dim):
            if not np.array_equal(cached[done : done + len(numbers)], numbers):
                return False
            done += len(numbers)
            there = np.isin(numbers, ordered)
            if layers.base.factory == "Flat" and there.any():
                rows = place[np.searchsorted(ordered, numbers[there])]
                if not np.array_equal(layers.base.faiss.index.reconstruct_batch(rows), vectors[there]):
                    return False
        return done == len(cached)
