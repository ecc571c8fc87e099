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
from facenet.evaluation.thresholds import SearchThreshold
from facenet.files import write_csv
from facenet.gallery.gallery import Gallery, Hit
from facenet.gallery.items import Where
from facenet.gallery.people import MEAN, NEAREST
from facenet.gallery.queries import Queries

if TYPE_CHECKING:
    from facenet.data.preprocess import Preprocess

COLUMNS = ("query", "rank", "id", "identity", "sq_dist", "threshold", "verdict", "path")
MATCH, NO_MATCH = "match", "no match"
SHEET_QUERIES, SHEET_FACES = 20, 10  # shown on a sheet at most, and faces of each


@dataclass(frozen=True)
class Answer:
    """The nearest faces of one query; those up to the threshold of their encoder are matches."""

    query: str
    identity: str  # the query's own, "" if unknown
    hits: Sequence[Hit]
    threshold: SearchThreshold
    image: Path | None = None
    beyond: Hit | None = None  # the nearest face of a search within the threshold, if it is no match

    @property
    def nearest(self) -> Hit | None:
        """The nearest face, whether it is a match or not."""
        return min((hit for hit in (*self.hits, self.beyond) if hit), key=lambda hit: hit.sq_dist, default=None)

    @property
    def match(self) -> Hit | None:
        """The nearest of the faces that match, or None."""
        return next(filter(self.accepts, self.hits), None)

    def accepts(self, hit: Hit) -> bool:
        """Tell whether a face is a match: by the threshold of the encoder that made its vector."""
        return hit.accepted(self.threshold.of(hit.fingerprint))

    @property
    def name(self) -> str:
        """The answer: an identity (or the id of a face without one), or "no match"."""
        found = self.match
        return (found.identity or found.id) if found else NO_MATCH

    @property
    def why(self) -> str:
        """The verdict in one or two sentences: the nearest face, the threshold, and how many strangers get that far."""
        found = self.match or self.nearest
        if found is None:
            return "No match: there is no face to compare with."
        whose = f"{found.identity}'s" if found.identity else f"{found.id} without a name"
        at, limit = told_apart(found.sq_dist, self.threshold.of(found.fingerprint))
        first = "The nearest face" if found is self.nearest else "The nearest face that matches"
        text = f"{first} is {whose}, at {at}, within the threshold of {limit}."
        if self.match is None:
            text = f"No match: the nearest face, {whose}, at {at}, is beyond the threshold of {limit}."
        return f"{text} {self.threshold.cost()}"

    def rows(self) -> list[tuple[Any, ...]]:
        """Return one row for each neighbour, as `COLUMNS` says."""
        return [
            (self.query, hit.rank, hit.id, hit.identity, hit.sq_dist, threshold, self.verdict(hit), hit.path)
            for hit in self.hits
            for threshold in [self.threshold.of(hit.fingerprint)]
        ]

    def verdict(self, hit: Hit) -> str:
        """Return "match" or "no match" for one neighbour."""
        return MATCH if self.accepts(hit) else NO_MATCH

    def plain(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        neighbours = [
            {
                **{name: value for name, value in hit._asdict().items() if name not in ("fingerprint", "number")},
                "accepted": self.accepts(hit),
            }
            for hit in self.hits
        ]
        return {
            "query": self.query,
            "identity": self.identity or None,
            "answer": self.name if self.match else None,
            "why": self.why,
            "nearest_sq_dist": self.nearest.sq_dist if self.nearest else None,
            "neighbours": neighbours,
        }


def ask(
    gallery: Gallery,
    queries: Queries,
    *,
    k: int,
    threshold: SearchThreshold | float,
    within: bool = False,
    by_identity: bool = False,
    identity_by: str = NEAREST,
    where: Where = None,
) -> list[Answer]:
    """Return for each of Q queries its k nearest faces or, `within` the threshold, all of them.

    With `by_identity` its k nearest people: `identity_by` as in :meth:`facenet.gallery.gallery.Gallery.search`.

    If the gallery holds vectors of several encoders, each has a threshold of its own. A match may then lie beyond the k
    nearest faces; the nearest such match follows them.

    Raises:
        DataError: k < 1, or vectors of another encoder or width.
        ConfigError: a threshold outside [0, 4], a filter that is none, or `within` with `by_identity`.
    """
    at = threshold if isinstance(threshold, SearchThreshold) else SearchThreshold(threshold)
    if not 0 <= at.sq_dist <= 4:
        raise ConfigError(f"threshold: expected a squared L2 distance in [0, 4], got {at.sq_dist}")
    if within and by_identity:
        raise ConfigError("within=true lists every face; it does not go with by_identity=true")
    given, itself, by_mean = queries.embeddings, queries.itself, identity_by == MEAN
    rest: dict[str, Any] = {"where": where, "without": itself}
    most = (1 if within else k) + (bool(itself) and not by_identity)
    found = gallery.hits(given, most, by_identity=by_identity, identity_by=identity_by, **rest)
    wide = gallery.hits_within(given, at.largest, means=by_mean, **rest) if within or at.older else found
    answers = []
    rows = zip(given.paths, given.identities, found, wide, queries.images, strict=True)
    for name, identity, near, hits, image in rows:
        others = _others(near, itself)[:k]
        matches = [hit for hit in _others(hits, itself) if hit.accepted(at.of(hit.fingerprint))]
        nearest = next(iter(others), None)
        if within:
            others = matches
        elif matches and matches[0].id not in {hit.id for hit in others}:
            others = [*others, matches[0]]
        ranked = [hit._replace(rank=rank) for rank, hit in enumerate(others, 1)]
        answers.append(Answer(name, identity, ranked, at, image, nearest if within else None))
    return answers


def told_apart(sq_dist: float, threshold: float) -> tuple[str, str]:
    """Return both with as many digits, two or more, as tell them apart."""
    texts = [(f"{sq_dist:.{digits}f}", f"{threshold:.{digits}f}") for digits in (2, 3, 4, 6)]
    return next((pair for pair in texts if pair[0] != pair[1]), texts[0])


def _others(hits: Sequence[Hit], itself: str) -> list[Hit]:
    """Leave the gallery face out that asks."""
    return [hit for hit in hits if not itself or hit.id != itself]


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
    rows = (
        answer.rows() or [(answer.query, 0, "", "", "", answer.threshold.sq_dist, NO_MATCH, "")] for answer in answers
    )
    write_csv(file, COLUMNS, itertools.chain.from_iterable(rows))


def score(answers: Sequence[Answer], people: set[str]) -> dict[str, float]:
    """Score the queries of known identity by their first face and verdict; {} if there are none.

    Of queries of `people` in the gallery: `top1` is the share whose nearest face is theirs, `accepted_right` the share
    whose nearest match is theirs. Of strangers: `strangers_rejected` is the share without a match.
    """
    known = [answer for answer in answers if answer.identity and answer.nearest]
    mates = [answer for answer in known if answer.identity in people]
    strangers = [answer for answer in known if answer.identity not in people]
    scores: dict[str, float] = {}
    if mates:
        first = [answer.nearest is not None and answer.nearest.identity == answer.identity for answer in mates]
        named = [answer.match.identity if answer.match else None for answer in mates]
        accepted = [name == answer.identity for name, answer in zip(named, mates, strict=True)]
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
    most = f"{answers[0].threshold.sq_dist:.4f}"
    title = f"green: match up to a sq_dist of {most}; red: match of another person; grey: no match"
    return draw(file, title, rows, across=SHEET_FACES + 1, look=look)


def _frame(answer: Answer, hit: Hit) -> str:
    """Return the colour of a face's frame."""
    from facenet.evaluation.sheets import GREEN, GREY, RED

    if not answer.accepts(hit):
        return GREY
    return RED if answer.identity and hit.identity != answer.identity else GREEN
