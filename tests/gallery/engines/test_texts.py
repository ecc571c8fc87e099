"""Hostile texts: ids, names, paths and metadata come back as they went in, and filters never become code."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest

from facenet.errors import DataError
from facenet.gallery.gallery import Gallery
from facenet.types import EmbeddingSet
from tests.helpers.galleries import OURS, as_queries, unit

HOSTILE = [
    "'; DROP TABLE items; --", "' OR '1'='1", "$$; DELETE FROM items; $$", "\\'; --", 'x" or 1 == 1 or id == "', "%s",
    "%(name)s", "{tags}", "\\", "\\\\", '"', "'", "''", "`id`", "$1", ":id", "\n\t\r", "\x01\x7f", "null", "NULL",
    "true", "array_contains(tags, 1)", "number > 0", "like '%'", "é", "e\u0301", "雪", "\U0001d4b3", "\u202e",
    "\ufeff", " ", "a" * 2000,
]  # fmt: skip


def test_hostile_texts_come_back_and_find_only_themselves(new_place: Callable[[], str]) -> None:
    vectors = unit(len(HOSTILE))
    paths = [f"p{i}" for i in range(len(HOSTILE))]
    metadata = [{"note": text, text: i} for i, text in enumerate(HOSTILE)]
    place = new_place()
    with Gallery.open(place, create=True) as gallery:
        gallery.add(EmbeddingSet(vectors, paths, HOSTILE, OURS), ids=HOSTILE, metadata=metadata)
    with Gallery.open(place) as gallery:
        assert gallery.check() == []
        assert gallery.identities() == set(HOSTILE)
        for i, text in enumerate(HOSTILE):
            item, vector = gallery.vector(text)
            assert (item.id, item.identity, item.path, item.metadata) == (text, text, paths[i], metadata[i])
            assert vector.tobytes() == vectors[i].tobytes()
            for where in ({"id": text}, {"identity": text}, {"note": text}, {text: i}):
                hits = gallery.hits(as_queries(vectors[:1]), 50, where=where)[0]
                assert [hit.id for hit in hits] == [text], where
        for where in ({"note": f"{text}x"} for text in HOSTILE):
            assert gallery.hits(as_queries(vectors[:1]), 50, where=where) == [[]]
        for text in HOSTILE:
            assert gallery.rename(text, f"{text}!", by="id") == 1
            assert [item.id for item in gallery.find([f"{text}!"], by="identity")] == [text]
        assert gallery.remove(HOSTILE, by="id") == len(HOSTILE)
        assert len(gallery) == 0


@contextlib.contextmanager
def told_in(told: list[str]) -> Iterator[None]:
    """Note what an error says."""
    try:
        yield
    except DataError as error:
        told[0] = str(error)
        raise


def test_texts_that_an_engine_can_not_hold_are_one_line(new_place: Callable[[], str]) -> None:
    with Gallery.open(new_place(), create=True) as gallery:
        gallery.add(EmbeddingSet(unit(1), ["a"], ["Ada"], OURS))
        for name in ("half a pair \ud800", "nul \x00"):
            told = [""]
            with contextlib.suppress(DataError), told_in(told):
                gallery.add(EmbeddingSet(unit(1, 1), ["b"], [name], OURS))
                assert gallery.identities() == {"Ada", name}
                gallery.remove("b", by="id")
            assert gallery.identities() == {"Ada"}
            assert "\n" not in told[0]
        with pytest.raises(DataError, match="expected width"):
            gallery.add(EmbeddingSet(unit(1, dim=8), ["c"], [""], OURS))
