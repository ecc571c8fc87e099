"""A gallery moves between engines: what was interrupted goes on, and both are compared at the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from facenet.errors import DataError
from facenet.gallery.copying import content_digest, copy_items
from facenet.gallery.gallery import Gallery
from tests.helpers.galleries import OURS, THEIRS, as_queries, faces, joining, people, unit


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A gallery of two encoders and two roots."""
    with Gallery.open(tmp_path / "source", create=True) as gallery:
        gallery.add(faces(people(10), THEIRS), metadata=[{"camera": i, "名": "雪"} for i in range(40)])
        new = replace(joining(faces(people(3, start=20)), [THEIRS]), root="/pictures")
        gallery.add(new)
        gallery.remove("p3/1")
    return tmp_path / "source"


def test_a_copy_holds_the_same_and_answers_the_same(source: Path, new_place: Callable[[], str], tmp_path: Path) -> None:
    place = new_place()
    with Gallery.open(source) as one, Gallery.open(place, create=True) as two:
        told: list[tuple[int, int]] = []
        done = copy_items(one, two, progress=lambda *counts: told.append(counts))
        assert (done.copied, done.there) == (51, 0)
        assert told[-1] == (51, 51)
        assert two.fingerprint == one.fingerprint
        assert done.digest == content_digest(one)[1] == content_digest(two)[1]
        queries = as_queries(unit(20, 5), OURS, [THEIRS])
        first, second = ([[hit._replace(number=0) for hit in hits] for hits in g.hits(queries, 60)] for g in (one, two))
        assert first == second
        assert copy_items(one, two)[:2] == (0, 51)
        two.remove("p20/1")
        assert copy_items(one, two)[:2] == (1, 50)
        two.add(faces(["stranger/1"], THEIRS))
        with pytest.raises(DataError, match="copy into an empty gallery"):
            copy_items(one, two)
    with Gallery.open(place) as two, Gallery.open(tmp_path / "back", create=True) as back:
        two.remove("stranger/1")
        assert copy_items(two, back).digest == done.digest
        assert back.check() == []
