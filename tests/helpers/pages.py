"""README and the pages of docs/ as tests read them: blocks of code, sentences, links and anchors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.helpers import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
SHELL = ("bash", "sh", "shell", "console")
FENCE = re.compile(r"^( *)```(\w*).*?\n(.*?)^\1```", re.M | re.S)
MARK = re.compile(r"<!-- not run: (.+?) -->\s*\Z", re.S)
COMMENT = re.compile(r"<!--.*?-->", re.S)
LINK = re.compile(r"\]\(([^()\s]+)[^()]*\)|(?:src|href)=\"([^\"]+)\"|^\[[^\]]+\]: *(\S+)", re.M)
SENTENCE_END = re.compile(r"(?<!e\.g\.)(?<!i\.e\.)(?<=[.!?])[\"')*_]*\s+(?=[^\sa-z])")


class Block(NamedTuple):
    """A fenced block of a page."""

    line: int  # of the fence, from 1
    language: str  # empty if the fence names none
    text: str
    reason: str | None  # why no test runs it, from the mark before the fence


def blocks(page: str, *languages: str) -> list[Block]:
    """Return the blocks of a page in these languages, or all."""
    text = (ROOT / page).read_text()
    found = []
    for fence in FENCE.finditer(text):
        mark = MARK.search(text, 0, fence.start())
        line = text.count("\n", 0, fence.start()) + 1
        found.append(Block(line, fence[2], fence[3], mark and " ".join(mark[1].split())))
    return [block for block in found if not languages or block.language in languages]


def blanked(pattern: re.Pattern[str], text: str) -> str:
    """Return a text without what a pattern finds, with the same lines."""
    return pattern.sub(lambda found: "\n" * found[0].count("\n"), text)


def sentences(text: str) -> Iterator[tuple[int, str]]:
    """Yield the sentences of a page with the lines of their paragraphs; tables and code are left out.

    Inline code is one word, of a link the words are read. A paragraph, an item of a list and a heading end a sentence.
    """
    text = blanked(COMMENT, blanked(FENCE, text))
    text = re.sub(r"`[^`]*`", lambda code: "Code" + "\n" * code[0].count("\n"), text)
    text = re.sub(r"!?\[([^\]]*)\]\([^()]*\)", r"\1", text)
    text = re.sub(r"<[^<>]+>", lambda tag: "\n" * tag[0].count("\n"), text)
    paragraph: list[str] = []
    start = 0
    for number, line in enumerate([*text.splitlines(), ""], 1):
        item = re.match(r"\s*([-*+]|\d+\.|!!!|\?\?\?\+?|#+|>)\s+", line)
        if (item or not line.strip() or line.lstrip().startswith("|")) and paragraph:
            yield from ((start, each) for each in SENTENCE_END.split(" ".join(paragraph)))
            paragraph = []
        if line.strip() and not line.lstrip().startswith("|"):
            start = start if paragraph else number
            paragraph.append(line[item.end() :] if item else line.strip())
            if item and "#" in item[1]:
                yield start, paragraph.pop()


def words(sentence: str) -> int:
    """Return how many words a sentence has; signs such as +- and -> are none."""
    return sum(any(letter.isalnum() for letter in word) for word in sentence.split())


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and the site make them."""
    text = blanked(FENCE, page.read_text())
    headings = re.findall(r"^#+ +(.+?)\s*$", text, re.M)
    plain = [re.sub(r"[`*]|\]\([^)]*\)|\[", "", heading) for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in plain}


def links(page: Path) -> Iterator[tuple[int, str]]:
    """Yield the targets of a page's links and pictures, with their lines."""
    text = blanked(COMMENT, blanked(FENCE, page.read_text()))
    text = re.sub(r"`[^`\n]*`", "Code", text)
    for found in LINK.finditer(text):
        yield text.count("\n", 0, found.start()) + 1, found[1] or found[2] or found[3]
