"""Texts as one block of bytes equal the list they were made of."""

from __future__ import annotations

import numpy as np

from facenet.texts import Texts, numbered

NAMES = ["b", "", "é\n", "b", "\udce9x", "a"]


def test_texts_are_the_list_they_were_made_of() -> None:
    for texts in (Texts.of(NAMES), Texts.of(name for name in NAMES), Texts.repeated(iter(NAMES))):
        assert texts == NAMES == [*texts]
        assert (texts[4], texts[-1], texts[1:3]) == (NAMES[4], "a", NAMES[1:3])
        assert texts.take(np.array([5, 0, 0])) == ["a", "b", "b"]
        assert texts != NAMES[::-1]
    assert (len(Texts.of([])), [*Texts.repeated([])]) == (0, [])


def test_repeated_texts_are_kept_once() -> None:
    assert len(Texts.repeated(["name"] * 1000).block) == 4


def test_names_are_numbered_in_their_order() -> None:
    names, rows = numbered(Texts.of(NAMES))
    assert names == sorted(set(NAMES))
    assert [names[row] for row in rows] == NAMES
    assert numbered([])[1].shape == (0,)
