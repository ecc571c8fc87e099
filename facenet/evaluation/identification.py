"""One-to-many identification: rank-k (CMC), mean average precision, and TPIR at FPIR with probes that have no mate.

A probe is compared with every face of a gallery, in blocks of rows. A person is as near as the nearest of their
faces. Of equally near faces the wrong one counts as nearer, so a constant embedding scores nothing.
Letters: Q probes, N gallery faces, D embedding width.
Source: Grother et al., NIST FRVT part 2 (identification); Schroff et al. 2015 for distance and acceptance, D <= d.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from facenet.errors import ConfigError, DataError
from facenet.evaluation.roc import at_far, far_name
from facenet.vectors import finite_rows, sq_dist_matrix

RANKS = (1, 5, 10, 20)
FPIRS = (1e-1, 1e-2, 1e-3)
TILE = 1 << 24  # distances at a time: 64 MB


@dataclass(frozen=True)
class Identification:
    """What :func:`identify` measured; fractions in [0, 1], thresholds in squared L2."""

    cmc: dict[int, float]  # k -> share of mated probes whose person is among the k nearest people
    mean_average_precision: float
    tpir_at_fpir: dict[float, dict[str, Any]]  # fpir -> tpir, low, high, threshold, resolvable, strangers
    gallery: int
    people: int
    probes: int  # with a mate in the gallery
    strangers: int  # probes without

    def metrics(self) -> dict[str, Any]:
        """Return plain nested numbers for ``metrics.json``; `rank1` is ``cmc.1`` under its usual name."""
        counts = {name: getattr(self, name) for name in ("gallery", "people", "probes", "strangers")}
        return {
            "rank1": self.cmc[1],
            "cmc": {str(k): share for k, share in self.cmc.items()},
            "map": self.mean_average_precision,
            "tpir_at_fpir": {far_name(fpir): dict(row) for fpir, row in self.tpir_at_fpir.items()},
            **counts,
        }


class Answers(NamedTuple):
    """What each of Q probes found; rank and precision mean nothing for a probe without a mate."""

    rank: np.ndarray  # (Q,) int64, 1 + the number of other people no farther than the own one
    precision: np.ndarray  # (Q,) float64, average precision over the own faces
    nearest: np.ndarray  # (Q,) sq_dist of the nearest face
    mated: np.ndarray  # (Q,) bool


class Enrolment(NamedTuple):
    """Rows of a labelled set that are enrolled, and rows that ask."""

    gallery: np.ndarray  # (N,) int64
    probes: np.ndarray  # (Q,) int64


def enrol(identities: Sequence[str], *, gallery_faces: int = 1, strangers: float = 0.5, seed: int = 0) -> Enrolment:
    """Draw who is enrolled: the protocol of ``facenet verify identification=true``.

    Of the people with more than `gallery_faces` faces the share `strangers` is left out, at random; of every other
    one `gallery_faces` random faces are enrolled. All remaining faces are probes, so those of people left out, or
    with too few faces, have no mate. Faces without identity ("") take no part. The same arguments draw the same.

    Raises:
        ConfigError: `gallery_faces` < 1, or `strangers` outside [0, 1).
        DataError: nobody has enough faces.
    """
    if gallery_faces < 1 or not 0 <= strangers < 1:
        raise ConfigError(
            f"identification: expected gallery_faces >= 1 and strangers in [0, 1), got {gallery_faces} and {strangers}"
        )
    names = np.asarray(identities, str)
    rng = np.random.default_rng([seed, 11])
    known = np.flatnonzero(names != "")
    people, counts = np.unique(names[known], return_counts=True)
    able = people[counts > gallery_faces]
    if not len(able):
        raise DataError(
            f"identification: none of {len(people)} people has more than {gallery_faces} faces; give more faces of each"
        )
    enrolled = set(rng.permutation(able)[min(len(able) - 1, round(strangers * len(able))) :].tolist())
    gallery: list[int] = []
    seen: dict[str, int] = {}
    for row in rng.permutation(known).tolist():
        name = str(names[row])
        if name in enrolled and seen.get(name, 0) < gallery_faces:
            seen[name] = seen.get(name, 0) + 1
            gallery.append(row)
    return Enrolment(np.sort(np.asarray(gallery, np.int64)), np.setdiff1d(known, gallery))


def identify(
    gallery: np.ndarray,
    gallery_ids: Sequence[str] | np.ndarray,
    probes: np.ndarray,
    probe_ids: Sequence[str] | np.ndarray,
    *,
    ranks: Sequence[int] = RANKS,
    fpirs: Sequence[float] = FPIRS,
    block_rows: int | None = None,
) -> Identification:
    """Look for the person of each of Q probes (Q, D) among N gallery faces (N, D), unit vectors both.

    cmc(k) = share of the mated probes with rank <= k, rank = 1 + the number of other people no farther than the own
    one. map = mean over the mated probes of mean_j |own faces with D <= d_j| / |faces with D <= d_j|, d_j the
    distances of their own faces. FPIR(d) = share of strangers whose nearest face has D <= d; TPIR(d) = share of the
    mated probes with rank 1 and D <= d; TPIR at FPIR is read at the largest d that keeps FPIR, with the 95 % Wilson
    interval, and is None where fpir times strangers < 1.

    Raises:
        DataError: an empty gallery, no mated probe, ids of another length, or NaN.
        ConfigError: a rank < 1, or an FPIR outside (0, 1].
    """
    wanted = sorted({1, *ranks})
    if wanted[0] < 1:
        raise ConfigError(f"ranks: expected whole numbers >= 1, got {wanted[0]}")
    rank, precision, nearest, mated = look_up(gallery, gallery_ids, probes, probe_ids, block_rows=block_rows)
    right, wrong = np.sort(nearest[mated & (rank == 1)]), np.sort(nearest[~mated])
    return Identification(
        cmc={k: float(np.mean(rank[mated] <= k)) for k in wanted},
        mean_average_precision=float(np.mean(precision[mated])),
        tpir_at_fpir={float(fpir): _tpir(right, wrong, fpir, int(mated.sum())) for fpir in fpirs},
        gallery=len(gallery),
        people=len(np.unique(np.asarray(gallery_ids))),
        probes=int(mated.sum()),
        strangers=int((~mated).sum()),
    )


def look_up(
    gallery: np.ndarray,
    gallery_ids: Sequence[str] | np.ndarray,
    probes: np.ndarray,
    probe_ids: Sequence[str] | np.ndarray,
    *,
    block_rows: int | None = None,
) -> Answers:
    """Compare each of Q probes (Q, D) with N gallery faces (N, D): what :func:`identify` counts, probe by probe.

    Raises:
        DataError: an empty gallery, no mated probe, ids of another length, or NaN.
    """
    _check(gallery, gallery_ids, probes, probe_ids)
    people, codes = np.unique(np.asarray(gallery_ids), return_inverse=True)
    order = np.argsort(codes, kind="stable")  # the faces of one person lie together
    gallery, starts = gallery[order], np.searchsorted(codes[order], np.arange(len(people) + 1))
    ids = np.asarray(probe_ids)
    own = np.minimum(np.searchsorted(people, ids), len(people) - 1)
    own = np.where(people[own] == ids, own, -1)  # (Q,) number of the person, -1 for strangers
    step = block_rows or max(1, min(1024, TILE // len(gallery)))
    blocks = [
        _look_up(sq_dist_matrix(probes[at : at + step], gallery), own[at : at + step], starts)
        for at in range(0, len(probes), step)
    ]
    rank, precision, nearest = (np.concatenate(column) for column in zip(*blocks, strict=True))
    return Answers(rank, precision, nearest, own >= 0)


def _look_up(sq_dist: np.ndarray, own: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rank, average precision and nearest distance (Q,) of a block of distances (Q, N), columns by person."""
    by_person = np.minimum.reduceat(sq_dist, starts[:-1], axis=1)  # (Q, people)
    rows = np.arange(len(own))
    rank = (by_person <= by_person[rows, own][:, None]).sum(1)  # counts the own person once; strangers are not used
    precision = np.zeros(len(own))
    for row in np.flatnonzero(own >= 0):
        mates = np.sort(sq_dist[row, starts[own[row]] : starts[own[row] + 1]])
        found = np.searchsorted(mates, mates, side="right")  # own faces no farther, for each own face
        precision[row] = np.mean(found / (sq_dist[row] <= mates[:, None]).sum(1))
    return rank, precision, by_person.min(1)


def _tpir(right: np.ndarray, wrong: np.ndarray, fpir: float, mated: int) -> dict[str, Any]:
    row = at_far(right, wrong, fpir, positives=mated)
    return {"tpir": row.pop("val"), **{k: row[k] for k in ("low", "high", "threshold", "resolvable")}} | {
        "strangers": row["negatives"]
    }


def _check(
    gallery: np.ndarray,
    gallery_ids: Sequence[str] | np.ndarray,
    probes: np.ndarray,
    probe_ids: Sequence[str] | np.ndarray,
) -> None:
    """Raise DataError for what can not be compared."""
    if len(gallery) != len(gallery_ids) or len(probes) != len(probe_ids):
        raise DataError(
            f"identification: expected an id for each vector, got {len(gallery)} gallery and {len(probes)} probe "
            f"vectors with {len(gallery_ids)} and {len(probe_ids)} ids"
        )
    if not np.isin(np.asarray(probe_ids), np.asarray(gallery_ids)).any():
        raise DataError(
            f"identification: none of {len(probes)} probes shows one of the {len(set(gallery_ids))} people enrolled;"
            " give more faces of each"
        )
    finite_rows(gallery, "identification, gallery")
    finite_rows(probes, "identification, probes")
