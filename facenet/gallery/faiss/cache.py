"""The FAISS index of a gallery, as a cache of the truth: brought up to date and checked before every use.

``index.json`` names the write (generation and token) that ``index.faiss`` holds, and its hashes. A cache that belongs
to the history of the truth is mapped, and later writes are replayed beside it. A cache that is lost, damaged, of
another history (a restored backup) or of another kind than wanted is built again from the truth.

FAISS accepts a wrong width without an error, pads with -1, writes files non-atomically and loads most corrupted ones.
So everything that goes in or comes out is checked. FAISS is imported inside functions: if torch is used too, torch must
come first (each brings an OpenMP runtime).

Letters: N items, D embedding width.
"""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from facenet.errors import DataError
from facenet.gallery.faiss.build import build, instead, said, sample_later
from facenet.gallery.faiss.file import INDEX, Stored, read_header, read_index, writable, write_index
from facenet.gallery.faiss.kinds import (
    LIMITS,
    Built,
    Limits,
    check,
    drop,
    factory_of,
    held,
    new_index,
    use_parameter,
)
from facenet.gallery.faiss.layers import Layers
from facenet.gallery.faiss.scan import Blocks, without
from facenet.gallery.faiss.tune import tune
from facenet.gallery.items import Block, Recipe
from facenet.gallery.sql.truth import Truth
from facenet.gallery.sql.writes import Write

LAG = 0.01  # share of the items by which index.faiss may be behind before it is written again
MERGED = 0.1  # share of changed items, of removed ones if it is exact, that an index takes in while it is in use
HOLES = 0.1  # share of removed items that a graph may keep
MEASURED = 0.05  # share of items added and removed after which the recall is measured again
FACTS = ("factory", "instead_of", "parameter", "fetch", "error", "recall", "changed")  # of the file, for people
NEVER = Write(-1, "", 0, 0)
log = logging.getLogger(__name__)


class Cache:
    """The index of one gallery, in memory and in ``index.faiss``.

    Calls come inside a read transaction of `truth`, except that :meth:`save` begins its own.
    """

    def __init__(self, truth: Truth, limits: Limits = LIMITS) -> None:
        """Nothing is read before the first search."""
        self.truth = truth
        self.folder = truth.folder
        self.limits = limits
        self.layers: Layers | None = None
        self.at = NEVER  # the write that the layers show
        self.recipe = Recipe()  # what they were made to
        self.unusable = False  # the file was looked at and did not serve

    # What the index should be

    def wanted(self) -> Recipe:
        """Return the recipe that the gallery was given, or the default.

        Raises:
            DataError: the stored recipe is none.
        """
        text = self.truth.settings.get("index")
        try:
            return Recipe() if text is None else check(Recipe(*json.loads(text)))
        except (TypeError, ValueError, RecursionError) as error:
            raise self.truth.damaged("the kind of its index") from error

    def want(self, recipe: Recipe) -> None:
        """Store a recipe inside a write; the next search, or saving, builds the index."""
        self.truth.settings.put("index", json.dumps(list(recipe)))

    # The index in memory

    def current(self, dim: int) -> Layers:
        """Return the layers of exactly the present state.

        Raises:
            DataError: the truth itself is damaged.
        """
        now, recipe = self.truth.writes.last(), self.wanted()
        layers, at = self.layers, self.at
        if layers is not None and at[:2] == now[:2] and recipe == self.recipe:
            return layers
        self.layers = None  # an error below must not leave half-changed layers in use
        known = self.truth.writes.find(*at[:2]) if layers is not None and recipe == self.recipe else None
        if layers is None or known is None:
            layers, at = self._read(dim, recipe)
        if layers is None:
            layers = self._fresh(dim, now, recipe)
        else:
            layers.remove(self.truth.writes.removed_since(at))
            for numbers, vectors in self.truth.items.vector_blocks(at.last, now.items - len(layers), dim):
                layers.add(numbers, vectors)
            due = len(layers.gone) if layers.base.factory == "Flat" else layers.changed
            if due > MERGED * now.items:
                layers = self._merged(layers, dim, now, recipe)
        self.layers, self.at, self.recipe = layers, now, recipe
        return layers

    def forget(self) -> None:
        """Build the next layers from the truth, whatever the file holds."""
        self.layers, self.unusable = None, True

    def _read(self, dim: int, recipe: Recipe) -> tuple[Layers | None, Write]:
        """Return the layers in the file and the write that they show; None if the file does not serve."""
        stored, problem = read_index(self.folder) if not self.unusable else (None, "")
        if problem:
            log.warning("%s: %s; built again from the items", self.folder, problem)
        base = self.truth.writes.find(stored.generation, stored.token) if stored else None
        if stored and base and tuple(stored.recipe) == recipe and stored.built.faiss.d == dim:
            removed = self.truth.writes.removed_since(base)
            beside = self._beside(np.setdiff1d(np.array(stored.built.beside, np.int64), removed), dim)
            count = stored.built.faiss.ntotal - len(stored.holes) + len(stored.built.beside)
            if beside is not None and count == base.items:
                return Layers(stored.built, dim, np.array(stored.holes, np.int64), beside), base
        self.unusable = True
        return None, NEVER

    def _beside(self, numbers: np.ndarray, dim: int) -> Block | None:
        """Return the items that lie beside an index, or None if one is not there."""
        try:
            return numbers, self.truth.items.vectors(numbers, dim)
        except DataError:
            return None

    def _blocks(self, dim: int, now: Write) -> tuple[Blocks, Blocks]:
        """Return the stream of all items that fills an index, checked by their digests, and a quicker one."""
        items = self.truth.items
        return partial(items.vector_blocks, 0, now.items, dim), partial(items.unsealed_blocks, dim)

    def _fresh(self, dim: int, now: Write, recipe: Recipe) -> Layers:
        built = self._built(dim, now, recipe)
        return Layers(built, dim, None, self._beside(np.array(built.beside, np.int64), dim))

    def _built(self, dim: int, now: Write, recipe: Recipe) -> Built:
        blocks, again = self._blocks(dim, now)
        if not now.items:
            list(blocks())  # which raises if there are items all the same
            return Built(new_index(dim), "Flat", 0)
        check(recipe, dim)  # the width was perhaps not known when the recipe was stored
        return build(blocks, now.items, dim, recipe, again=again, limits=self.limits)

    def _merged(self, layers: Layers, dim: int, now: Write, recipe: Recipe) -> Layers:
        """Return the same items with a sample beside the base and the holes of a graph; tuned again if that is due."""
        base, gone = layers.base, layers.gone
        grown = base.instead_of and now.items > 2 * base.trained_on  # the string in its place is tried again
        if (
            not now.items
            or grown
            or factory_of(recipe, now.items, dim, self.limits) != (base.instead_of or base.factory)
        ):
            return self._fresh(dim, now, recipe)
        index = writable(base)
        if drop(index, gone):
            gone = np.empty(0, np.int64)
        elif len(gone) > HOLES * now.items:
            return self._fresh(dim, now, recipe)
        numbers, vectors = held(layers.later), layers.later.index.reconstruct_n(0, layers.later.ntotal)
        stays = np.zeros(len(numbers), bool)
        if base.factory != "Flat":
            stays = sample_later(numbers, vectors, layers.beside, now.items, seed=now.generation)
        if not stays.all():
            index.add_with_ids(vectors[~stays], numbers[~stays])
        built = replace(base, faiss=index, mapped=None, beside=np.sort(numbers[stays]).tolist())
        built.changed = base.changed + layers.edits if base.recall else 0
        beside = (numbers[stays], vectors[stays])
        use_parameter(index, built.parameter)
        if built.changed > MEASURED * now.items:
            blocks, again = self._blocks(dim, now)
            if not tune(built, without(again, beside[0]), beside, recipe.recall_target, gone, now.items):
                return Layers(instead(blocks, now.items, dim, built.factory, said(built), recipe), dim)
        return Layers(built, dim, gone, beside)

    # The index on disk

    def save(self, *, force: bool = False) -> bool:
        """Write the files if that is due (or `force`); True if written.

        Raises:
            DataError: writing failed; the old files are unchanged.
        """
        with self.truth.reading():
            stored = self._stored() if force or self._due() else None
        if stored is not None:
            write_index(self.folder, stored)
            self.unusable = False
        return stored is not None

    def _stored(self) -> Stored | None:
        """Merge the layers of the present state and return them as they are to be written; None without a width."""
        dim = self.truth.encoders.dim()
        if dim is None:
            return None
        layers = self.current(dim)
        if layers.changed:
            layers = self.layers = self._merged(layers, dim, self.at, self.recipe)
        return Stored(layers.base, self.at.generation, self.at.token, list(self.recipe), layers.gone.tolist())

    def _due(self) -> bool:
        """Tell whether the file is missing, unusable, of another kind or more than 1 % of the items behind."""
        base, now = self.written(), self.truth.writes.last()
        if base is None or self.unusable:
            return True
        return self._behind(base) > LAG * now.items

    def _behind(self, base: Write) -> int:
        """Return how many items were added and removed since a write."""
        return self.truth.writes.last().last - base.last + len(self.truth.writes.removed_since(base))

    def written(self) -> Write | None:
        """Return the write that the file says it holds, or None if it is lost or not of this history and kind."""
        header = read_header(self.folder) if (self.folder / INDEX).exists() else {}
        if not header or tuple(header["recipe"]) != self.wanted():
            return None
        return self.truth.writes.find(header["generation"], header["token"])

    def info(self) -> dict[str, Any]:
        """Return the wanted `kind`, the state of the file (`cache`), and what is known of it (`index`)."""
        base = self.written()
        header = read_header(self.folder) if base else {}
        state = "missing" if base is None else "behind" if self._behind(base) else "current"
        facts = {name: header[name] for name in FACTS} if header else {}
        if base and facts["recall"]:
            facts["changed"] += self._behind(base)
        return {"kind": self.wanted().kind, "cache": state, "index": facts}

    def problems(self, dim: int) -> list[str]:
        """Compare the file, brought up to date, with the truth: problems, one line each; a missing file is none."""
        stored, problem = read_index(self.folder)
        if problem:
            return [f"{problem}; the next search builds it again"]
        if stored is None or self.written() is None:
            return []
        fresh = Cache(self.truth, self.limits)
        layers = fresh.current(dim)
        if fresh.unusable or not self._holds(layers, dim):
            return [f"{INDEX} and the items differ; delete it, the next search builds it again"]
        return []

    def _holds(self, layers: Layers, dim: int) -> bool:
        """Tell whether the layers hold the numbers of the truth, and an exact base its vectors too."""
        base, later = held(layers.base.faiss), held(layers.later)
        place = np.argsort(base, kind="stable")
        ordered = base[place]
        cached, done = np.sort(np.concatenate([base[~np.isin(base, layers.gone)], later])), 0
        if (ordered[1:] == ordered[:-1]).any():
            return False
        items = self.truth.writes.last().items
        for numbers, vectors in self.truth.items.vector_blocks(0, items, dim):
            if not np.array_equal(cached[done : done + len(numbers)], numbers):
                return False
            done += len(numbers)
            there = np.isin(numbers, ordered)
            if layers.base.factory == "Flat" and there.any():
                rows = place[np.searchsorted(ordered, numbers[there])]
                if not np.array_equal(layers.base.faiss.index.reconstruct_batch(rows), vectors[there]):
                    return False
        return done == len(cached)
