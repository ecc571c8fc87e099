"""A frame's colour says whether a face is a match, and of whom."""

from __future__ import annotations

import pytest

from facenet.evaluation.sheets import GREEN, GREY, RED
from facenet.gallery.query import Answer
from facenet.gallery.query_sheet import _frame


@pytest.mark.parametrize(
    ("asked", "found", "accepted", "colour"),
    [
        ("a", "a", True, GREEN),
        ("a", "b", True, RED),
        ("a", "", True, RED),
        ("", "b", True, GREEN),
        ("a", "a", False, GREY),
    ],
)
def test_colours(asked: str, found: str, accepted: bool, colour: str) -> None:
    assert _frame(Answer("q", asked, [], 1.0), found, accepted) == colour
