"""A set in batches gives the gallery of one add, and says what is there if it is cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facenet.errors import ConfigError, DataError
from facenet.gallery.batches import add_in_batches
from facenet.gallery.gallery import Gallery, Item
from facenet.types import EmbeddingSet
from tests.helpers.galleries import faces, people


def items_of(gallery: Gallery) -> list[tuple[Item, bytes]]:
    return [(item, row.tobytes()) for items, rows in gallery.blocks() for item, row in zip(items, rows, strict=True)]


@pytest.mark.parametrize("mmap", [False, True])
def test_batches_are_the_gallery_of_one_add(tmp_path: Path, mmap: bool) -> None:
    faces(people(9)).save(tmp_path / "e")
    given = EmbeddingSet.load(tmp_path / "e", mmap=mmap)
    metadata = [{"n": row} for row in range(36)]
    calls: list[tuple[int, int]] = []
    with Gallery.open(tmp_path / "one", create=True) as one, Gallery.open(tmp_path / "two", create=True) as two:
        one.add(given, metadata=metadata)
        done = add_in_batches(two, given, metadata=metadata, batch=10, progress=lambda *done: calls.append(done))
        assert tuple(done) == (36, 0, 0)
        assert items_of(two) == items_of(one)
        assert (two.info()["generation"], calls) == (4, [(0, 36), (10, 36), (20, 36), (30, 36), (36, 36)])


def broken(kind: str) -> tuple[EmbeddingSet, dict[str, Any]]:
    """20 items of which one in the last batch is wrong."""
    given = faces(people(5))
    names = list(given.paths)
    if kind == "vector":
        given.vectors[19] *= 2
    if kind == "id":
        names[19] = ""
    if kind == "twice":
        names[19] = names[0]
    if kind == "there":
        names[19] = "known/0"
    metadata = [{}] * 19 + [{"a": float("nan")}] if kind == "metadata" else None
    return given, {"ids": names[:-1] if kind == "count" else names, "metadata": metadata}


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("vector", "not of unit length"),
        ("id", "an empty id"),
        ("twice", "'p0/0' is given twice; nothing was added"),
        ("there", "'known/0', perhaps more, is in the gallery already; nothing was added"),
        ("metadata", "no storable"),
        ("count", "19 ids or metadata for 20 vectors"),
    ],
)
def test_what_is_wrong_changes_nothing(tmp_path: Path, kind: str, said: str) -> None:
    given, more = broken(kind)
    with Gallery.open(tmp_path, create=True) as gallery:
        gallery.add(faces(["known/0"]))
        before = items_of(gallery)
        with pytest.raises(DataError, match=said):
            add_in_batches(gallery, given, batch=6, **more)
        assert items_of(gallery) == before
        with pytest.raises(ConfigError, match="batch"):
            add_in_batches(gallery, given, batch=0)


def test_a_cut_add_tells_what_is_there_and_can_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = faces(people(5))
    with Gallery.open(tmp_path, create=True) as gallery:
        kept = gallery.add

        def add(items: EmbeddingSet, **more: Any) -> Any:
            if items.paths[0] == given.paths[12]:
                raise DataError("the disk is full")
            return kept(items, **more)

        monkeypatch.setattr(gallery, "add", add)
        with pytest.raises(DataError, match="the disk is full; the 12 items before are in"):
            add_in_batches(gallery, given, batch=6)
        monkeypatch.setattr(gallery, "add", kept)
        assert tuple(add_in_batches(gallery, given, batch=6, on_duplicate="skip")) == (8, 0, 12)
        assert len(gallery) == 20


def test_an_id_that_comes_twice_is_skipped_or_replaced_across_batches(tmp_path: Path) -> None:
    given = faces(people(3))
    names = [*given.paths[:11], given.paths[0]]
    with Gallery.open(tmp_path, create=True) as gallery:
        assert tuple(add_in_batches(gallery, given, ids=names, batch=5, on_duplicate="skip")) == (11, 0, 1)
        assert np.array_equal(gallery.vector("p0/0")[1], given.vectors[0])
        assert tuple(add_in_batches(gallery, given, ids=names, batch=5, on_duplicate="replace")) == (0, 12, 0)
        assert np.array_equal(gallery.vector("p0/0")[1], given.vectors[11])
