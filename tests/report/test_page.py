"""The page: whatever text goes in comes out as text, and every block finds its place."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import pytest

from facenet.report.page import Chapter, Figure, Figures, Picture, Section, Sheet, Table, Text, Tile, render

HOSTILE = "<script>alert(1)</script>\"'&<img src=x onerror=y>"
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Reader(HTMLParser):
    """Collects elements, attributes and text; fails on tags that do not nest."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read(page: str) -> Reader:
    """Parse a page and check what holds for each: well nested, no scripts, no address, nothing that loads."""
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    names = {tag for tag, _ in reader.tags}
    assert not names & {"script", "link", "iframe", "object", "embed", "base", "form"}
    assert "<script" not in page.lower()
    assert "http://" not in page
    assert "https://" not in page
    assert "@import" not in page
    for tag, attributes in reader.tags:
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in ("src", "href", "xlink:href"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:image/jpeg;base64,", "#")), value
    return reader


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
