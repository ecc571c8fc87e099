"""Who is this? The nearest gallery faces of each query, and a verdict for each face: match, or no match.

A face is a match up to a threshold. If the nearest face is above it, the answer is nobody.

Letters: Q queries, k neighbours.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from facenet.errors import ConfigError, FacenetError
from facenet.files import write_csv
from facenet.gallery.gallery import Gallery, Hit
from facenet.gallery.queries import Queries
from facenet.gallery.search import Where

if TYPE_CHECKING:
    from facenet.data.preprocess import Preprocess

COLUMNS = ("query", "rank", "id", "identity", "sq_dist", "threshold", "verdict", "path")
MATCH, NO_MATCH = "match", "no match"
SHEET_QUERIES, SHEET_FACES = 20, 10  # shown on a sheet at most, and faces of each


@dataclass(frozen=True)
class Answer:
    """The nearest faces of one query; those up to the threshold are matches."""

    query: str
    identity: str  # the query's own, "" if unknown
    hits: Sequence[Hit]
    threshold: float
    image: Path | None = None

    @property
    def match(self) -> Hit | None:
        """The nearest face if that is a match, else None."""
        return self.hits[0] if self.hits and self.hits[0].accepted(self.threshold) else None

    @property
    def name(self) -> str:
        """The answer: an identity (or the id of a face without one), or "no match"."""
        found = self.match
        return (found.identity or found.id) if found else NO_MATCH

    def rows(self) -> list[tuple[Any, ...]]:
        """Return one row for each neighbour, as `COLUMNS` says."""
        return [
            (self.query, hit.rank, hit.id, hit.identity, hit.sq_dist, self.threshold, self.verdict(hit), hit.path)
            for hit in self.hits
        ]

    def verdict(self, hit: Hit) -> str:
        """Return "match" or "no match" for one neighbour."""
        return MATCH if hit.accepted(self.threshold) else NO_MATCH

    def plain(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        neighbours = [{**hit._asdict(), "accepted": hit.accepted(self.threshold)} for hit in self.hits]
        return {
            "query": self.query,
            "identity": self.identity or None,
            "answer": self.name if self.match else None,
            "neighbours": neighbours,
        }


def ask(
    gallery: Gallery,
    queries: Queries,
    *,
    k: int,
    threshold: float,
    within: bool = False,
    by_identity: bool = False,
    where: Where = None,
) -> list[Answer]:
    """Return for each of Q queries its k nearest faces or, `within` the threshold, all of them.

    Raises:
        DataError: k < 1, or vectors of another encoder or width.
        ConfigError: a threshold outside [0, 4], a filter that is none, or `within` with `by_identity`.
    """
    if not 0 <= threshold <= 4:
        raise ConfigError(f"threshold: expected a squared L2 distance in [0, 4], got {threshold}")
    if within and by_identity:
        raise ConfigError("within=true lists every face; it does not go with by_identity=true")
    given = queries.embeddings
    if within:
        found = gallery.hits_within(given, threshold, where=where)
    else:
        found = gallery.hits(given, k + bool(queries.itself), by_identity=by_identity, where=where)
    answers = []
    for name, identity, hits, image in zip(given.paths, given.identities, found, queries.images, strict=True):
        others = [hit for hit in hits if not queries.itself or hit.id != queries.itself]
        others = others if within else others[:k]
        ranked = [hit._replace(rank=rank) for rank, hit in enumerate(others, 1)]
        answers.append(Answer(name, identity, ranked, threshold, image))
    return answers


def converse(
    lines: Iterable[str],
    answer: Callable[[str], Sequence[Answer]],
    show: Callable[[Sequence[Answer] | FacenetError, str], None],
) -> dict[str, Any]:
    """Answer one query a line; the error of a line that can not be answered is shown, and the next line follows.

    Returns how many were answered and failed, and the median seconds of an answer (None without any).
    """
    seconds: list[float] = []
    failed = 0
    for line in filter(None, map(str.strip, lines)):
        started = time.perf_counter()
        try:
            answers = answer(line)
        except FacenetError as error:
            failed += 1
            show(error, line)
            continue
        seconds.append(time.perf_counter() - started)
        show(answers, line)
    return {"answered": len(seconds), "failed": failed, "seconds_median": median(seconds) if seconds else None}


def write_answers(file: str | Path, answers: Sequence[Answer]) -> None:
    """Write one line for each neighbour: `COLUMNS`; a query without any has one with rank 0."""
    rows = (answer.rows() or [(answer.query, 0, "", "", "", answer.threshold, NO_MATCH, "")] for answer in answers)
    write_csv(file, COLUMNS, itertools.chain.from_iterable(rows))


def score(answers: Sequence[Answer], people: set[str]) -> dict[str, float]:
    """Score the queries of known identity by their first face and verdict; {} if there are none.

    Of queries of `people` in the gallery: `top1` is the share whose nearest face is theirs, `accepted_right` the share
    that is also a match. Of strangers: `strangers_rejected` is the share without a match.
    """
    known = [answer for answer in answers if answer.identity and answer.hits]
    mates = [answer for answer in known if answer.identity in people]
    strangers = [answer for answer in known if answer.identity not in people]
    scores: dict[str, float] = {}
    if mates:
        first = [answer.hits[0].identity == answer.identity for answer in mates]
        accepted = [right and answer.match is not None for right, answer in zip(first, mates, strict=True)]
        scores |= {"top1": sum(first) / len(mates), "accepted_right": sum(accepted) / len(mates)}
    if strangers:
        scores["strangers_rejected"] = sum(answer.match is None for answer in strangers) / len(strangers)
    return scores


def draw_answers(file: str | Path, answers: Sequence[Answer], *, look: Preprocess | None = None) -> tuple[int, int]:
    """Write a contact sheet of the first 20 answers, each query beside its faces; returns its (width, height).

    A match has a green frame, a match of another person than the query is known to show a red one, no match a grey
    one. `look` is the encoder's preprocessing.
    """
    from facenet.evaluation.sheets import Row, Tile, draw

    rows = []
    for answer in answers[:SHEET_QUERIES]:
        tiles = [Tile(answer.image, ["query", answer.identity])]
        for hit in answer.hits[:SHEET_FACES]:
            lines = [hit.identity or hit.id, f"{hit.rank}: {hit.sq_dist:.4f}"]
            tiles.append(Tile(Path(hit.root) / hit.path, lines, _frame(answer, hit)))
        rows.append(Row(f"{answer.query}: {answer.name}", tiles))
    title = f"green: match up to a sq_dist of {answers[0].threshold:.4f}; red: match of another person; grey: no match"
    return draw(file, title, rows, across=SHEET_FACES + 1, look=look)


def _frame(answer: Answer, hit: Hit) -> str:
    """Return the colour of a face's frame."""
    from facenet.evaluation.sheets import GREEN, GREY, RED

    if not hit.accepted(answer.threshold):
        return GREY
    return RED if answer.identity and hit.identity != answer.identity else GREEN
