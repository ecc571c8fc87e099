"""The page: whatever text goes in comes out as text, and every block finds its place."""

from __future__ import annotations

import re

import pytest

from facenet.report.page import Chapter, Figure, Figures, Picture, Section, Sheet, Table, Text, Tile, render
from tests.helpers.reports import HOSTILE, read


def chapter(text: str) -> Chapter:
    picture = Picture("data:image/jpeg;base64,AA==", text)
    blocks = [
        Text(text),
        Figures([Figure('<svg viewBox="0 0 1 1" role="img" aria-label="a"></svg>', text)]),
        Table((text, text), [(text, text)], text),
        Table((), [(text, text)], facts=True),
        Sheet([Tile([picture, picture], text)], text),
        Sheet([Tile([picture] * 3, text)]),
        Sheet([Tile([picture], text)], text, wide=True),
    ]
    return Chapter(text, text, [text], [Section(text, blocks)], [text])


def test_text_is_text_wherever_it_stands() -> None:
    reader = read(render(HOSTILE, HOSTILE, [chapter(HOSTILE)]))
    assert reader.text.count(HOSTILE) == 22
    assert {attributes.get("alt") for tag, attributes in reader.tags if tag == "img"} == {HOSTILE}


def test_a_page_reads_on_a_phone_and_on_paper() -> None:
    page = render("t", "m", [chapter("x"), chapter("y")])
    reader = read(page)
    views = [attributes for tag, attributes in reader.tags if attributes.get("name") == "viewport"]
    assert views[0]["content"] == "width=device-width, initial-scale=1"
    assert "@media print" in page
    assert sum(tag == "h2" for tag, _ in reader.tags) == 2
    assert all(attributes.get("aria-label") for tag, attributes in reader.tags if tag == "svg")


def test_an_empty_chapter_has_no_empty_boxes() -> None:
    reader = read(render("t", "m", [Chapter("a", "b", [], [])]))
    assert not [tag for tag, _ in reader.tags if tag in ("ul", "section", "table", "figure")]


@pytest.mark.parametrize("title", ["", "\ud800".encode("utf-8", "replace").decode(), "日本 ½"])
def test_any_text_can_be_a_title(title: str) -> None:
    assert title in read(render(title, "m", [])).text


def test_on_a_phone_captions_wrap_and_numbers_do_not() -> None:
    table = Table(("FAR",), [("1e-3",), ("at FAR 2.5e-04 or less",)], "1e-3 & more")
    page = render("t", "m", [Chapter("c", "VAL at FAR 1e-4", [], [Section("s", [table])])])
    for whole in ("1e-3", "2.5e-04", "1e-4"):
        assert f'<span class="number">{whole}</span>' in page
    assert '<caption><span><span class="number">1e-3</span> &amp; more</span></caption>' in page
    assert ".number { white-space: nowrap; }" in page
    assert re.search(r"caption > span \{[^}]*max-width: min\([^}]*100vw", page), "no wider than the screen"
    assert "1e-3 & more" in read(page).text
