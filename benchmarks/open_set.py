"""Does a stranger get a name? Open-set identification at the thresholds that a gallery derives, on labelled embeddings.

Half of the people with two or more images are enrolled, with all their images but one, which asks. Everybody else is a
stranger. The threshold comes once from the gallery's own people and once from a calibration of others. A person answers
by the nearest face, or by the mean of the faces. Shares are means over divisions of the people; the interval is a
bootstrap over strangers.
Source: Grother et al., NIST FRVT part 2 (FPIR, TPIR).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.tables import Table
from facenet.encoders import lookup as encoders
from facenet.errors import ConfigError
from facenet.evaluation.strangers import tail_of
from facenet.evaluation.thresholds import search_threshold
from facenet.gallery.gallery import Gallery
from facenet.gallery.people import MEAN, NEAREST
from facenet.options import INSIDE, SEED, option
from facenet.options import Options as BaseOptions
from facenet.types import EmbeddingSet
from facenet.vectors import normalise, sq_dist_matrix

DRAWS = 1000  # of the bootstrap


@dataclass(frozen=True, kw_only=True)
class Options(BaseOptions):
    """Options of open-set identification."""

    embeddings: str = option("", help="labelled embeddings folder")
    encoder: str | None = option(
        None, help="encoder that made them, whose calibration is tried beside the gallery's own"
    )
    divisions: int = option(20, least=1, help="divisions of the people")
    sizes: tuple[int, ...] = option((100, 1000, 0), least=0, help="faces enrolled; 0: all of the people enrolled")
    fpirs: tuple[float, ...] = option((0.01, 0.05, 0.2), **INSIDE, help="shares of strangers asked for")
    identity_by: tuple[str, ...] = option((NEAREST, MEAN), help="by which face people answer: nearest, mean")
    seed: int = option(0, **SEED, help="of the divisions")


@dataclass(frozen=True)
class Division:
    """One division of the people; rows of the embeddings."""

    gallery: np.ndarray
    members: np.ndarray  # the image of each enrolled person that asks
    strangers: np.ndarray


def divide(people: np.ndarray, faces: int, rng: np.random.Generator) -> Division:
    """Enrol half of the people (numbers, (N,)) with two images or more, or as many of them as `faces` hold."""
    several = np.flatnonzero(np.bincount(people) >= 2)
    half = rng.permutation(several)[: len(several) // 2]
    rows = rng.permutation(np.flatnonzero(np.isin(people, half)))
    place = np.argsort(rng.permutation(people.max() + 1))[people[rows]]
    rows = rows[np.argsort(place, kind="stable")]  # person by person, in random order
    first = np.append(True, people[rows][1:] != people[rows][:-1])
    gallery = rows[~first][: faces or None]
    members = rows[first]
    members = members[np.isin(people[members], people[gallery])]
    return Division(gallery, members, np.flatnonzero(~np.isin(people, half)))


def run(options: Options) -> dict[str, Any]:
    """Measure the strangers accepted and the members found at each size, rate and source of the threshold."""
    if not options.embeddings:
        raise ConfigError("open_set: pass benchmark.embeddings=DIR, embeddings of labelled faces")
    found = EmbeddingSet.load(options.embeddings)
    people = np.unique(np.asarray(found.identities), return_inverse=True)[1]
    calibrated = encoders.read_record(options.encoder) if options.encoder else None
    thresholds = {float(far): at for far, at in calibrated["thresholds"].items()} if calibrated else {}
    rows = []
    for size in options.sizes:
        measured: dict[tuple[float, str, str], list[Any]] = {}
        for number in range(options.divisions):
            division = divide(people, size, np.random.default_rng([options.seed, number]))
            for rule in options.identity_by:
                measure = _measure(found.vectors, people, division, rule)
                for fpir, source, threshold in _thresholds(found, division, options.fpirs, thresholds, rule):
                    measured.setdefault((fpir, source, rule), []).append(measure(threshold))
        for (fpir, source, rule), parts in measured.items():
            told = {"size": size, "identity_by": rule, "fpir": fpir, "source": source}
            rows.append({**told, **_summary(parts, people, fpir)})
    return {"faces": len(found), "people": int(people.max()) + 1, "divisions": options.divisions, "rows": rows}


def _thresholds(
    found: EmbeddingSet, division: Division, fpirs: tuple[float, ...], calibrated: dict[float, float], rule: str
) -> Iterator[tuple[float, str, float]]:
    """Yield rate, source and threshold of a gallery of the division."""
    rows = division.gallery.tolist()
    enrolled = EmbeddingSet(
        found.vectors[division.gallery],
        [found.paths[row] for row in rows],
        [found.identities[row] for row in rows],
        found.fingerprint,
    )
    with tempfile.TemporaryDirectory() as folder, Gallery.open(Path(folder) / "g", create=True) as gallery:
        gallery.add(enrolled)
        for fpir in fpirs:
            if len(set(enrolled.identities)) >= 20:
                yield fpir, "gallery", gallery.threshold(fpir=fpir, identity_by=rule).sq_dist
            if calibrated:
                tails = {found.fingerprint: tail_of(calibrated)}
                count = {found.fingerprint: len(rows) if rule == NEAREST else len(set(enrolled.identities))}
                yield fpir, "calibration", search_threshold(count, found.fingerprint, tails, fpir=fpir).sq_dist


def _measure(
    vectors: np.ndarray, people: np.ndarray, division: Division, rule: str
) -> Callable[[float], tuple[Any, ...]]:
    """Return what measures at a threshold: strangers' rows, who of them got a match, and the share of members right."""
    faces, names = vectors[division.gallery], people[division.gallery]
    if rule == MEAN:
        names, group = np.unique(names, return_inverse=True)
        faces = normalise(np.array([faces[group == one].sum(0) for one in range(len(names))]))
    near = np.concatenate(
        [sq_dist_matrix(vectors[part], faces).min(1) for part in np.array_split(division.strangers, 16) if len(part)]
    )
    asked = sq_dist_matrix(vectors[division.members], faces)
    nearest, right = asked.min(1), names[asked.argmin(1)] == people[division.members]
    return lambda at: (division.strangers, near <= at, float(np.mean(right & (nearest <= at))), at)


def _summary(parts: list[tuple[Any, ...]], people: np.ndarray, fpir: float) -> dict[str, Any]:
    """Return means over divisions, and the bootstrap interval over people of the share of strangers accepted."""
    hits, counts = np.zeros(people.max() + 1), np.zeros(people.max() + 1)
    for strangers, accepted, *_ in parts:
        np.add.at(hits, people[strangers], accepted)
        np.add.at(counts, people[strangers], 1)
    asked = np.flatnonzero(counts)
    rng = np.random.default_rng(0)
    drawn = [rng.integers(0, len(asked), len(asked)) for _ in range(DRAWS)]
    shares = [hits[asked[rows]].sum() / counts[asked[rows]].sum() for rows in drawn]
    low, high = np.quantile(shares, [0.025, 0.975])
    mean = float(np.mean([np.mean(accepted) for _, accepted, *_ in parts]))
    return {
        "strangers_accepted": mean,
        "of_asked": mean / fpir,
        "low": float(low),
        "high": float(high),
        "accepted_right": float(np.mean([right for _, _, right, _ in parts])),
        "threshold": float(np.mean([threshold for *_, threshold in parts])),
    }


def tables(result: dict[str, Any]) -> list[Table]:
    """Lay out what :func:`run` returned."""
    rows = [
        (
            row["size"] or "all",
            row["identity_by"],
            row["source"],
            row["fpir"],
            f"{row['strangers_accepted']:.4f} ({row['low']:.4f} to {row['high']:.4f})",
            f"{row['of_asked']:.2f}x",
            f"{row['accepted_right']:.3f}",
            f"{row['threshold']:.3f}",
        )
        for row in result["rows"]
    ]
    header = (
        "faces",
        "answer by",
        "threshold from",
        "fpir",
        "strangers accepted",
        "of asked",
        "accepted and right",
        "sq_dist",
    )
    return [
        Table(
            f"open set: {result['faces']} faces, {result['people']} people, {result['divisions']} divisions",
            header,
            rows,
        )
    ]
