"""The answers to some queries as a contact sheet: each query's picture beside those of its nearest faces."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from facenet.data.preprocess import Preprocess
from facenet.evaluation.sheets import GREEN, GREY, RED, Row, Tile, draw
from facenet.gallery.query import Answer

QUERIES, FACES = 20, 10  # shown at most, and faces of each


def draw_answers(file: str | Path, answers: Sequence[Answer], *, look: Preprocess | None = None) -> tuple[int, int]:
    """Write ``sheet.png`` of the first 20 answers; returns its (width, height).

    Green frames are matches, red ones matches of another person than the query is known to show, grey ones no matches.
    `look` is the encoder's preprocessing.
    """
    rows = []
    for answer in answers[:QUERIES]:
        tiles = [Tile(answer.image, ["query", answer.identity])]
        for hit in answer.hits[:FACES]:
            lines = [hit.identity or hit.id, f"{hit.rank}: {hit.sq_dist:.4f}"]
            frame = _frame(answer, hit.identity, hit.accepted(answer.threshold))
            tiles.append(Tile(Path(hit.root) / hit.path, lines, frame))
        rows.append(Row(f"{answer.query}: {answer.name}", tiles))
    title = f"green: match up to a sq_dist of {answers[0].threshold:.4f}; red: match of another person; grey: no match"
    return draw(file, title, rows, across=FACES + 1, look=look)


def _frame(answer: Answer, identity: str, accepted: bool) -> str:
    if not accepted:
        return GREY
    return RED if answer.identity and identity != answer.identity else GREEN
