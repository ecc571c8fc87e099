"""Does a stranger get a name while a gallery follows an upgrade? The thresholds of before, during and after a backfill.

Some of the people calibrate the two encoders together, as ``compat.py`` does. The others are divided as in
:mod:`.open_set`. Their gallery starts with old vectors, and is asked by old and by new ones. Then half of it is
backfilled, then all. Every question is asked with ``k=`` and with ``within=true``, whose scores must be the same.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from benchmarks.open_set import DRAWS, Division, divide
from benchmarks.tables import Table
from facenet.compat.matching import share_images
from facenet.encoders.encoder import Encoder
from facenet.errors import ConfigError
from facenet.evaluation.calibration import calibrate_with_older
from facenet.gallery.answers import Answer, ask, score
from facenet.gallery.gallery import Gallery
from facenet.gallery.queries import Queries
from facenet.options import INSIDE, SEED, option
from facenet.options import Options as BaseOptions
from facenet.types import EmbeddingSet

STAGES = ("old queries, old faces", "new queries, old faces", "half backfilled", "all backfilled")


@dataclass(frozen=True, kw_only=True)
class Options(BaseOptions):
    """Options of the upgrade."""

    old: str = option("", help="labelled embeddings folder by the old encoder")
    new: str = option("", help="embeddings of the same faces by the new encoder, which was trained to be compatible")
    calibration: float = option(0.3, **INSIDE, help="share of the people who calibrate, and do nothing else")
    divisions: int = option(20, least=1, help="divisions of the other people")
    faces: int = option(0, least=0, help="enrolled; 0: all of the people enrolled")
    fpir: float = option(0.05, **INSIDE, help="share of strangers asked for")
    seed: int = option(0, **SEED, help="of the divisions")


@dataclass(frozen=True)
class Record:
    """What a threshold needs of an encoder."""

    fingerprint: str
    thresholds: dict[float, float]
    compatible_with: list[str] = field(default_factory=list)
    with_older: dict[str, dict[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Asked:
    """The answers of one stage and division: of people by number, 0 or 1 each."""

    strangers: tuple[np.ndarray, np.ndarray]  # whose question, and whether it got a match
    members: tuple[np.ndarray, np.ndarray]  # whose question, and whether its match was right
    thresholds: tuple[float, float]  # for new faces and for old ones
    same: bool  # k= and within=true scored the same


def run(options: Options) -> dict[str, Any]:
    """Ask each division's gallery at each stage; returns a row of means and intervals for each stage."""
    if not (options.old and options.new):
        raise ConfigError(
            "upgrade_door: pass benchmark.old=DIR benchmark.new=DIR, embeddings of the same labelled faces"
        )
    sets, people, records = _prepare(options)
    asked: dict[str, list[Asked]] = {stage: [] for stage in STAGES}
    for number in range(options.divisions):
        division = divide(people, options.faces, np.random.default_rng([options.seed, number]))
        for stage, found in _upgrade(sets, people, records, division, options.fpir, number):
            asked[stage].append(found)
    rows = [{"stage": stage, **_summary(parts, asked[STAGES[0]], options.fpir)} for stage, parts in asked.items()]
    shape = {"faces": len(people), "people": int(people.max()) + 1, "enrolled": len(division.gallery)}
    return {**shape, "divisions": options.divisions, "fpir": options.fpir, "rows": rows}


def _prepare(options: Options) -> tuple[dict[str, EmbeddingSet], np.ndarray, dict[str, Record]]:
    """Return old and new embeddings of the people who do not calibrate, their numbers (N,), and the two records."""
    given = {"old": EmbeddingSet.load(options.old), "new": EmbeddingSet.load(options.new)}
    shared = share_images(given)
    names = np.unique(np.asarray(shared.identities), return_inverse=True)[1]
    order = np.random.default_rng(options.seed).permutation(names.max() + 1)
    chosen = np.isin(names, order[: round(options.calibration * len(order))])
    whose = names[chosen].astype(str).tolist()
    old, new = (shared.vectors[side][chosen] for side in ("old", "new"))
    older = given["old"].fingerprint
    records = {
        "old": Record(older, calibrate_with_older(old, old, whose)),
        "new": Record(
            given["new"].fingerprint,
            calibrate_with_older(new, new, whose),
            [older],
            {older: calibrate_with_older(new, old, whose)},
        ),
    }
    rows = np.flatnonzero(~chosen & (np.asarray(shared.identities) != ""))
    paths, identities = ([texts[row] for row in rows] for texts in (shared.keys, shared.identities))
    sets = {
        side: EmbeddingSet(
            shared.vectors[side][rows],
            paths,
            identities,
            records[side].fingerprint,
            compatible_with=tuple(records[side].compatible_with),
        )
        for side in ("old", "new")
    }
    return sets, np.unique(names[rows], return_inverse=True)[1], records


def _upgrade(
    sets: dict[str, EmbeddingSet],
    people: np.ndarray,
    records: dict[str, Record],
    division: Division,
    fpir: float,
    seed: int,
) -> Iterator[tuple[str, Asked]]:
    """Yield the answers of each stage of one gallery's upgrade."""
    half = np.random.default_rng(seed).permutation(division.gallery)[: len(division.gallery) // 2]
    with tempfile.TemporaryDirectory() as folder, Gallery.open(Path(folder) / "g", create=True) as gallery:
        gallery.add(_rows(sets["old"], division.gallery))
        for stage, side, backfilled in zip(
            STAGES, ("old", *["new"] * 3), (None, None, half, division.gallery), strict=True
        ):
            if backfilled is not None:
                gallery.backfill(_rows(sets["new"], backfilled))
            yield stage, _ask(gallery, sets[side], people, records, side, division, fpir)


def _ask(
    gallery: Gallery,
    embeddings: EmbeddingSet,
    people: np.ndarray,
    records: dict[str, Record],
    side: str,
    division: Division,
    fpir: float,
) -> Asked:
    threshold = gallery.threshold(cast(Encoder, records[side]), fpir=fpir)
    rows = np.concatenate([division.strangers, division.members])
    given = Queries(_rows(embeddings, rows), [None] * len(rows))
    nearest, every = (ask(gallery, given, k=1, threshold=threshold, within=within) for within in (False, True))
    known = gallery.identities()
    split = len(division.strangers)
    matched = np.array([answer.match is not None for answer in nearest[:split]])
    right = np.array([_is_right(answer) for answer in nearest[split:]])
    thresholds = threshold.of(records["new"].fingerprint), threshold.of(records["old"].fingerprint)
    return Asked(
        (people[division.strangers], matched),
        (people[division.members], right),
        thresholds,
        score(nearest, known) == score(every, known),
    )


def _is_right(answer: Answer) -> bool:
    return answer.match is not None and answer.match.identity == answer.identity


def _rows(embeddings: EmbeddingSet, rows: np.ndarray) -> EmbeddingSet:
    return replace(
        embeddings,
        vectors=embeddings.vectors[rows],
        paths=[embeddings.paths[row] for row in rows],
        identities=[embeddings.identities[row] for row in rows],
    )


def _summary(parts: list[Asked], before: list[Asked], fpir: float) -> dict[str, Any]:
    """Return shares over all divisions, with 95 % intervals of a bootstrap over people."""
    accepted, low, high = _interval(*_sums([part.strangers for part in parts]))
    hits, counts = _sums([part.members for part in parts])
    right, right_low, right_high = _interval(hits, counts)
    earlier, _ = _sums([part.members for part in before])  # the same questions
    gain, gain_low, gain_high = _interval(hits - earlier, counts)
    return {
        "strangers_accepted": accepted,
        "of_asked": accepted / fpir,
        "low": low,
        "high": high,
        "accepted_right": right,
        "right_low": right_low,
        "right_high": right_high,
        "gain": gain,
        "gain_low": gain_low,
        "gain_high": gain_high,
        "threshold_new": float(np.mean([part.thresholds[0] for part in parts])),
        "threshold_old": float(np.mean([part.thresholds[1] for part in parts])),
        "same_scores": sum(part.same for part in parts),
    }


def _sums(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Return each person's hits and questions, (people,) each."""
    whose = np.concatenate([people for people, _ in parts])
    return np.bincount(whose, np.concatenate([hits for _, hits in parts])), np.bincount(whose)


def _interval(hits: np.ndarray, counts: np.ndarray) -> tuple[float, float, float]:
    """Return the share of questions that are hits, and its interval over people who asked."""
    asked = np.flatnonzero(counts)
    rng = np.random.default_rng(0)
    drawn = [asked[rng.integers(0, len(asked), len(asked))] for _ in range(DRAWS)]
    low, high = np.quantile([hits[rows].sum() / counts[rows].sum() for rows in drawn], [0.025, 0.975])
    return float(hits.sum() / counts.sum()), float(low), float(high)


def tables(result: dict[str, Any]) -> list[Table]:
    """Lay out what :func:`run` returned."""
    rows = [
        (
            row["stage"],
            f"{row['strangers_accepted']:.4f} ({row['low']:.4f} to {row['high']:.4f})",
            f"{row['of_asked']:.2f}x",
            f"{row['accepted_right']:.3f} ({row['right_low']:.3f} to {row['right_high']:.3f})",
            f"{row['gain']:+.3f} ({row['gain_low']:+.3f} to {row['gain_high']:+.3f})",
            f"{row['threshold_new']:.3f}, {row['threshold_old']:.3f}",
            f"{row['same_scores']} of {result['divisions']}",
        )
        for row in result["rows"]
    ]
    header = (
        "gallery",
        f"strangers accepted (asked: {result['fpir']:g})",
        "of asked",
        "right and accepted",
        "against the first row",
        "sq_dist new, old",
        "k= scores as within=",
    )
    title = (
        f"upgrade: {result['enrolled']} faces enrolled, of {result['faces']} of {result['people']} people, "
        f"{result['divisions']} divisions"
    )
    return [Table(title, header, rows)]
