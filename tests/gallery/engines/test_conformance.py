"""Random histories of a gallery: every engine answers as the plain model, step by step, also after reopening."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from facenet.errors import DataError
from facenet.gallery.gallery import Gallery
from facenet.types import EmbeddingSet
from tests.gallery.engines.model import Face, Model
from tests.helpers.galleries import OURS, THEIRS, D, as_queries, unit

STEPS = 500
NAMES = ["Ada", "Ben", "Cy", "Dé", "雪", "O'Hara", ""]
FIELDS: list[dict[str, Any]] = [
    {},
    {"door": 1},
    {"door": 2.5, "night": True},
    {"door": "1"},
    {"door": None},
    {"list": [1]},
]
FILTERS: list[dict[str, Any] | None] = [
    None, None, {"door": 1}, {"door": [1, "1"]}, {"door": None}, {"night": 1}, {"identity": "Ada"},
    {"identity": ["Ben", "雪"], "door": [None, 2.5]}, {"id": "x"}, {"absent": "here"}, {"list": None},
]  # fmt: skip


class Walk:
    """A gallery and its model, changed and asked side by side."""

    def __init__(self, place: str, seed: int) -> None:
        self.place, self.model = place, Model()
        self.rng, self.draw = random.Random(seed), np.random.default_rng(seed)
        self.gallery = Gallery.open(place, create=True)
        self.fingerprint = OURS

    def vectors(self, count: int) -> np.ndarray:
        return unit(count, int(self.draw.integers(1 << 30)))

    def step(self) -> None:
        actions = [self.add, self.add, self.remove, self.rename, self.search, self.search, self.people_search]
        self.rng.choice([*actions, self.within, self.listing, self.reopen, self.upgrade])()
        assert len(self.gallery) == len(self.model.faces)

    def add(self) -> None:
        how = self.rng.choice(["error", "skip", "replace"])
        names = {f"f{self.rng.randrange(60)}" for _ in range(self.rng.randint(1, 8))}
        vectors = self.vectors(len(names))
        faces = [
            Face(name, self.rng.choice(NAMES), self.rng.choice(FIELDS), vector, self.fingerprint)
            for name, vector in zip(sorted(names), vectors, strict=True)
        ]
        expected = self.model.add(faces, how)
        given = EmbeddingSet(
            vectors, [face.id for face in faces], [face.identity for face in faces], self.fingerprint,
            compatible_with=(OURS, THEIRS),
        )  # fmt: skip
        metadata = [face.metadata for face in faces]
        if expected is None:
            with pytest.raises(DataError, match="nothing was added"):
                self.gallery.add(given, metadata=metadata, on_duplicate=how)
        else:
            assert tuple(self.gallery.add(given, metadata=metadata, on_duplicate=how)) == expected

    def remove(self) -> None:
        name, by = (self.rng.choice(NAMES[:-1]), "identity") if self.rng.random() < 0.1 else ("", "id")
        name = name or f"f{self.rng.randrange(60)}"
        gone = self.model.named(name, by)
        if not gone:
            with pytest.raises(DataError, match="nothing was removed"):
                self.gallery.remove(name, by=by)
            return
        assert self.gallery.remove(name, by=by) == len(gone)
        self.model.remove(gone)

    def rename(self) -> None:
        name, to = f"f{self.rng.randrange(60)}", self.rng.choice(NAMES)
        if name in self.model.faces:
            assert self.gallery.rename(name, to, by="id") == 1
            self.model.rename([name], to)

    def search(self) -> None:
        where, k = self.rng.choice(FILTERS), self.rng.choice([1, 3, 80])
        queries = self.vectors(2)
        if self.model.faces and self.rng.random() < 0.3:
            queries[0] = self.rng.choice(list(self.model.faces.values())).vector
        for query, hits in zip(
            queries, self.gallery.hits(as_queries(queries, OURS, (THEIRS,)), k, where=where), strict=True
        ):
            expected = self.model.nearest(query, where)
            assert [hit.id for hit in hits] == [face.id for _, face in expected[:k]]
            np.testing.assert_allclose([hit.sq_dist for hit in hits], [far for far, _ in expected[:k]], atol=2e-6)
            for hit in hits:
                face = self.model.faces[hit.id]
                assert (hit.identity, hit.metadata, hit.fingerprint) == (face.identity, face.metadata, face.fingerprint)

    def people_search(self) -> None:
        where, query = self.rng.choice(FILTERS), self.vectors(1)
        hits = self.gallery.hits(as_queries(query, OURS, (THEIRS,)), 4, by_identity=True, where=where)[0]
        first: dict[str, str] = {}
        for _, face in self.model.nearest(query[0], where):
            first.setdefault(face.identity or face.id, face.id)
        assert [hit.id for hit in hits] == list(first.values())[:4]

    def within(self) -> None:
        where, query = self.rng.choice(FILTERS), self.vectors(1)
        expected = self.model.nearest(query[0], where)
        radius = self.rng.choice([0.0, 1.5, 4.0])
        hits = self.gallery.hits_within(as_queries(query, OURS, (THEIRS,)), radius, where=where)[0]
        assert [hit.id for hit in hits] == [face.id for far, face in expected if far <= radius]
        if not expected:
            return
        tie = self.gallery.hits(as_queries(query, OURS, (THEIRS,)), 1, where=where)[0][0]
        found = self.gallery.hits_within(as_queries(query, OURS, (THEIRS,)), tie.sq_dist, where=where)[0]
        assert [hit.id for hit in found] == [tie.id]

    def listing(self) -> None:
        people = self.gallery.people(limit=100)
        assert {person.identity: person.faces for person in people} == self.model.people()
        assert [person.identity for person in people] == sorted(self.model.people())
        assert self.gallery.identities() == set(self.model.people())
        seen, after = [], 0
        while page := self.gallery.page(after, 7):
            seen, after = [*seen, *page], page[-1].number
        assert {item.id for item in seen} == self.model.faces.keys()
        rows = [item.number for item in seen]
        wanted = np.array([self.model.faces[item.id].vector for item in seen]).reshape(-1, D)
        np.testing.assert_array_equal(self.gallery.vectors(rows).reshape(-1, D), wanted)
        assert {item.id for items, _ in self.gallery.blocks() for item in items} == self.model.faces.keys()

    def reopen(self) -> None:
        self.gallery.close()
        self.gallery = Gallery.open(self.place)
        assert self.gallery.check() == []
        counts = self.gallery.info()["fingerprints"]
        prints = [face.fingerprint for face in self.model.faces.values()]
        assert {name: count for name, count in counts.items() if count} == {
            one: prints.count(one) for one in set(prints)
        }

    def upgrade(self) -> None:
        if self.rng.random() < 0.7 or not self.model.faces:
            return
        old, new = self.fingerprint, THEIRS if self.fingerprint == OURS else OURS
        chosen = [name for name in self.model.faces if self.rng.random() < 0.9] or list(self.model.faces)
        vectors = self.vectors(len(chosen))
        given = EmbeddingSet(vectors, chosen, [""] * len(chosen), new, compatible_with=(old,))
        before = {name for name in chosen if self.model.faces[name].fingerprint == old}
        if not before and not any(face.fingerprint == new for face in self.model.faces.values()):
            return  # a backfill of none of the images is refused
        assert self.gallery.backfill(given, batch=7).replaced == len(before)
        for name, vector in zip(chosen, vectors, strict=True):
            if name in before:
                face = self.model.faces[name]
                self.model.faces[name] = Face(face.id, face.identity, face.metadata, vector, new)
        self.fingerprint = new


def test_a_random_history_is_answered_as_the_model_does(new_place: Callable[[], str]) -> None:
    walk = Walk(new_place(), 0)
    for number in range(STEPS):
        try:
            walk.step()
        except AssertionError as error:
            raise AssertionError(f"step {number}") from error
    walk.gallery.close()
