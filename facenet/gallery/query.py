"""Who is this? Queries of any kind, their nearest gallery faces, and a verdict for each: a name, or "no match".

A query is an image, a folder or table of images, a `.npy` file of vectors, an embeddings folder, or the id of a gallery
item. The nearest face is a match only up to a threshold; above it the answer is nobody, however near.

Letters: Q queries, D embedding width.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from facenet.data.sources.kinds import scan
from facenet.encoders.embedding import embed_records
from facenet.encoders.encoder import Encoder
from facenet.errors import ConfigError, DataError, FacenetError
from facenet.files import read_array, write_csv
from facenet.gallery.gallery import Gallery, Hit
from facenet.types import EmbeddingSet

COLUMNS = ("query", "rank", "id", "identity", "sq_dist", "threshold", "verdict", "path")
MATCH, NO_MATCH = "match", "no match"


@dataclass(frozen=True)
class Queries:
    """Q vectors to look for, each with a name and, where known, an identity and an image."""

    names: Sequence[str]
    identities: Sequence[str]  # "" where unknown
    vectors: np.ndarray  # (Q, D) float32, unit rows
    fingerprint: str  # of the encoder that made them
    images: Sequence[Path | None]
    itself: str = ""  # the gallery id that is asked for, and is left out of its own answer
    skipped: int = 0

    def __len__(self) -> int:
        """Return Q."""
        return len(self.names)


@dataclass(frozen=True)
class Answer:
    """What the gallery says to one query: its nearest faces, of which those up to the threshold are matches."""

    query: str
    identity: str  # the query's own, "" where unknown
    hits: Sequence[Hit]
    threshold: float
    image: Path | None = None

    @property
    def match(self) -> Hit | None:
        """The nearest face where that is a match."""
        return self.hits[0] if self.hits and self.hits[0].accepted(self.threshold) else None

    @property
    def name(self) -> str:
        """Who it is: an identity (or the id of a face without one), or "no match"."""
        found = self.match
        return (found.identity or found.id) if found else NO_MATCH

    def rows(self) -> list[tuple[Any, ...]]:
        """One row for each neighbour, as `COLUMNS` says."""
        return [
            (self.query, hit.rank, hit.id, hit.identity, hit.sq_dist, self.threshold, self.verdict(hit), hit.path)
            for hit in self.hits
        ]

    def verdict(self, hit: Hit) -> str:
        """Whether a neighbour is a match."""
        return MATCH if hit.accepted(self.threshold) else NO_MATCH

    def plain(self) -> dict[str, Any]:
        """As plain values for JSON."""
        neighbours = [{**hit._asdict(), "accepted": hit.accepted(self.threshold)} for hit in self.hits]
        return {
            "query": self.query,
            "identity": self.identity or None,
            "answer": self.name if self.match else None,
            "neighbours": neighbours,
        }


def read(query: str, gallery: Gallery, encoder: Encoder | None) -> Queries:
    """Turn what a user names into vectors; a path wins over an id of the same name.

    Vectors of a `.npy` file carry no encoder: they are taken for the gallery's own kind, checked for width and length.

    Raises:
        DataError: neither a path nor an id, an image, folder, table or vector file that can not be used.
        ConfigError: images without an encoder.
    """
    path = Path(query)
    if path.suffix == ".npy" and path.is_file():
        vectors = _vectors(path)
        names = [f"{path.name}[{row}]" for row in range(len(vectors))]
        return Queries(names, [""] * len(names), vectors, gallery.fingerprint or "", [None] * len(names))
    if (path / "meta.json").is_file():
        given = EmbeddingSet.load(path)
        if encoder is not None and given.fingerprint != encoder.fingerprint:
            raise DataError(
                f"{path}: embedded by encoder {given.fingerprint[:12]}, not by {encoder.fingerprint[:12]}, "
                "the one given, whose threshold would be taken; embed again, or pass the encoder that made them"
            )
        images = [Path(given.root) / name if given.root else None for name in given.paths]
        return Queries(given.paths, given.identities, given.vectors, given.fingerprint, images)
    if path.exists():
        if encoder is None:
            raise ConfigError(f"search: {query} holds images; pass encoder=DIR to embed them")
        embedded, kept = embed_records(encoder, scan(path))
        images = [Path(kept.root) / name for name in kept.paths]
        skipped = len(kept.skipped)
        return Queries(embedded.paths, embedded.identities, embedded.vectors, embedded.fingerprint, images, "", skipped)
    try:
        item, vector = gallery.vector(query)
    except DataError:
        raise DataError(f"query {query!r}: no such file or folder, and no id in {gallery.folder}") from None
    image = Path(item.root) / item.path
    return Queries([item.id], [item.identity], vector[None], item.fingerprint, [image], itself=item.id)


def _vectors(path: Path) -> np.ndarray:
    vectors = read_array(path)
    if vectors.ndim == 1:
        vectors = vectors[None]
    if vectors.ndim != 2 or vectors.dtype.kind not in "fiu":
        raise DataError(f"{path}: expected numbers of shape (Q, D) or (D,), got {vectors.dtype} {vectors.shape}")
    with np.errstate(over="ignore"):  # what is too large becomes infinite, which a search refuses
        return vectors.astype(np.float32)


def ask(
    gallery: Gallery,
    queries: Queries,
    *,
    k: int,
    threshold: float,
    within: bool = False,
    by_identity: bool = False,
    where: Mapping[str, Any] | None = None,
    compatible_with: Sequence[str] = (),
) -> list[Answer]:
    """The k nearest faces of each query or, `within` the threshold, all of them; an answer for each of Q queries.

    Raises:
        DataError: k < 1, vectors of another encoder or width.
        ConfigError: a threshold outside [0, 4], a filter that is none, or `within` with `by_identity`.
    """
    if not 0 <= threshold <= 4:
        raise ConfigError(f"threshold: expected a squared L2 distance in [0, 4], got {threshold}")
    if within and by_identity:
        raise ConfigError("within=true lists every face; it does not go with by_identity=true")
    about = {"fingerprint": queries.fingerprint, "compatible_with": compatible_with, "where": where}
    if within:
        found = gallery.hits_within(queries.vectors, threshold, **about)  # type: ignore[arg-type]
    else:
        more = bool(queries.itself)
        found = gallery.hits(queries.vectors, k + more, by_identity=by_identity, **about)  # type: ignore[arg-type]
    answers = []
    for name, identity, hits, image in zip(queries.names, queries.identities, found, queries.images, strict=True):
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
    """Answer one query a line, with encoder and index at hand; a line that can not be answered is shown, not fatal.

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
    """Where the queries' identities are known: rank 1 and verdicts, for people in the gallery and for strangers."""
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
