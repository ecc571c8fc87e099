"""The blocks of a report page, and their rendering as one self-contained HTML file.

The template decides how a block looks, the blocks decide the content. Jinja2 escapes everything except the drawings of
:mod:`facenet.report.plots`. The page has no scripts, no fonts and no addresses.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

NUMBER = re.compile(r"\b[\d.]+e-\d+\b")


class Table(NamedTuple):
    """Rows of text under a header. The first `left` columns hold words; in a table of `facts` all columns do."""

    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    caption: str = ""
    facts: bool = False
    left: int = 1
    kind: str = "table"


class Figure(NamedTuple):
    """A drawing as inline SVG, and the caption below it."""

    svg: str
    caption: str = ""


class Figures(NamedTuple):
    """Drawings side by side if there is room, else one below the other."""

    figures: Sequence[Figure]
    kind: str = "figures"


class Picture(NamedTuple):
    """An image as a ``data:`` URI with its alternative text."""

    uri: str
    alt: str


class Tile(NamedTuple):
    """Pictures that belong together (a pair, a triplet, a cluster) with one caption."""

    pictures: Sequence[Picture]
    caption: str


class Sheet(NamedTuple):
    """Tiles of pictures under one caption; `wide` tiles take a row each."""

    tiles: Sequence[Tile]
    caption: str = ""
    wide: bool = False
    kind: str = "sheet"


class Text(NamedTuple):
    """A paragraph."""

    text: str
    kind: str = "text"


Block = Table | Figures | Sheet | Text


class Section(NamedTuple):
    """A heading with blocks below it."""

    title: str
    blocks: Sequence[Block]


class Chapter(NamedTuple):
    """The chapter of a run or a sweep: a verdict in one line, warnings, and sections."""

    title: str
    verdict: str
    warnings: Sequence[str]
    sections: Sequence[Section]
    left_out: Sequence[str] = ()  # what is missing, each with the command that makes it


def unbroken(text: str) -> str:
    """Return text as HTML in which no line breaks behind the hyphen of a number such as 1e-3."""
    import markupsafe

    return markupsafe.Markup(NUMBER.sub(r'<span class="number">\g<0></span>', str(markupsafe.escape(text))))


def render(title: str, made: str, chapters: Sequence[Chapter]) -> str:
    """Return the page as HTML text; `made` is a line that names its sources."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("facenet", "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["unbroken"] = unbroken
    page = environment.get_template("page.html.j2").render(title=title, made=made, chapters=chapters)
    return page.replace(" %", "\N{NO-BREAK SPACE}%").replace(" ± ", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}")
