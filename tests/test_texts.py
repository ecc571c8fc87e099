"""Texts as one block of bytes equal the list they were made of."""

from __future__ import annotations

import numpy as np
import pytest

from facenet import texts as texts_module
from facenet.texts import Texts, numbered

NAMES = ["b", "", "é\n", "b", "\udce9x", "a"]


def test_texts_are_the_list_they_were_made_of() -> None:
    for texts in (Texts.of(NAMES), Texts.of(name for name in NAMES), Texts.repeated(iter(NAMES))):
        assert texts == NAMES == [*texts]
        assert (texts[4], texts[-1], texts[1:3]) == (NAMES[4], "a", NAMES[1:3])
        assert texts.take(np.array([5, 0, 0])) == ["a", "b", "b"]
        assert texts != NAMES[::-1]
    assert (len(Texts.of([])), [*Texts.repeated([])]) == (0, [])


def test_texts_are_looked_up_by_blocks_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts_module, "TOGETHER", 4)
    texts = Texts.of(NAMES)
    assert [*texts] == NAMES
    rows = np.array([5, 0, 4, 3, 3, 0, 1, 2], np.uint32)
    assert [*texts.take(rows)] == [NAMES[row] for row in rows]


def test_repeated_texts_are_kept_once() -> None:
    assert len(Texts.repeated(["name"] * 1000).block) == 4


def test_names_are_numbered_in_their_order() -> None:
    names, rows = numbered(Texts.of(NAMES))
    assert names == sorted(set(NAMES))
    assert [names[row] for row in rows] == NAMES
    assert numbered([])[1].shape == (0,)
