"""The prose of README and docs/: no sentence of more than 25 words."""

from __future__ import annotations

import pytest

from tests.helpers import ROOT
from tests.helpers.pages import NAMES, sentences, words

MOST = 25


def too_long(text: str) -> list[tuple[int, str]]:
    return [(line, sentence) for line, sentence in sentences(text) if words(sentence) > MOST]


@pytest.mark.parametrize("page", NAMES)
def test_a_sentence_has_at_most_25_words(page: str) -> None:
    found = [
        f"{page}:{line}: {words(each)} words: {each[:80]}..." for line, each in too_long((ROOT / page).read_text())
    ]
    assert not found, "\n".join(found)


SHORT, LONG = " ".join(["Word"] * MOST), " ".join(["Word"] * (MOST + 1))


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (f"{SHORT}. {SHORT}? {SHORT}.", []),
        (f"Short.\n\n{LONG}.", [3]),
        (f"- {SHORT}\n- {SHORT}\n\n  {LONG}", [4]),
        (f"| {LONG} |\n\n```text\n{LONG}\n```\n\n<!-- {LONG} -->\n", []),
        (f"# Title\n{SHORT[:-4]}`{LONG}` (0.5 of 1.5).", [2]),
        (f"{SHORT}, e.g. Here.", [1]),
        (f"[{SHORT}]({LONG.replace(' ', '/')}) -> +- more.", [1]),
    ],
)
def test_what_is_a_sentence(text: str, lines: list[int]) -> None:
    assert [line for line, _ in too_long(text)] == lines
