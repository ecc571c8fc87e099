"""The threshold that clusters N faces: by the rule of :mod:`facenet.evaluation.thresholds`, or from a labelled sample.

The rule asks how many strangers, `links`, a face may meet within the threshold. How many do no harm depends on how many
faces a person has. With 20 each whispers bear 100 links, with one or two each no more than 0.5. `LINKS` fits galleries
of five and more, with either method. :func:`calibrate_clustering` finds the number for galleries that are like a
labelled sample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from facenet.clustering.clusters import METHODS, NEIGHBOURS, checked, method_for, scores
from facenet.errors import ConfigError, DataError
from facenet.evaluation.all_pairs import all_pairs
from facenet.evaluation.thresholds import threshold_for
from facenet.types import EmbeddingSet

LINKS = 5.0
LARGEST_FAR = 0.01  # of a small album: five strangers among 24 faces would be every fifth of them
TRIED = tuple(0.1 * 2**step for step in range(11))  # links that a sample is clustered with: 0.1 to 102
PLATEAU = 0.005  # of a score: links that come so near the best are as good
FARS = tuple(share * 10.0**-power for power in range(1, 10) for share in (1.0, 0.3))
LEAST_PAIRS = 10  # different pairs that a rate must accept to be told from chance


class Calibration(NamedTuple):
    """What a labelled sample says about the vectors of its encoder."""

    thresholds: dict[float, float]  # {far: sq_dist}
    links: float  # the middle, in logarithms, of the numbers with which the sample clusters about as well as it can
    faces: int
    scores: dict[str, float]  # of the sample's clusters at that number, see facenet.clustering.clusters.scores


def calibrate_clustering(
    vectors: np.ndarray,
    identities: Sequence[str] | np.ndarray,
    *,
    method: str = "chinese_whispers",
    neighbours: int = NEIGHBOURS,
    seed: int = 0,
    threads: int | None = None,
) -> Calibration:
    """Calibrate on N labelled vectors (N, D) of people who are not in the gallery, with as many faces of each as there.

    The thresholds are exact over all pairs (:mod:`facenet.evaluation.all_pairs`), down to the rate at which ten
    different pairs are accepted. For `links` the sample itself is clustered with 0.1 to 102 strangers a face; of those
    whose mean of pairwise and BCubed F1 is within 0.005 of the best, the middle is taken. Rows of identity "" are left
    out.

    Raises:
        DataError: NaN, other lengths, fewer than two identities, or too few pairs for any rate.
        ConfigError: an unknown method.
    """
    names = np.asarray(identities)
    rows = np.flatnonzero(names != "") if names.dtype.kind in "US" else np.arange(len(names))
    cut_of, known = METHODS[method_for(len(rows), method)], checked(np.asarray(vectors)[rows], 0.0, neighbours)
    pairs = all_pairs(vectors, names, FARS, memory_gb=1.0)
    thresholds = {
        far: float(row["threshold"])
        for far, row in pairs.val_at_far.items()
        if row["threshold"] is not None and row["accepted_different"] >= LEAST_PAIRS
    }
    if not thresholds:
        raise DataError(f"calibration: {pairs.different} different pairs tell no rate; the sample needs more faces")
    names, options = names[rows], {"neighbours": neighbours, "seed": seed, "threads": threads}
    cut = cut_of(known, **options)
    found = [scores(cut(threshold_for(len(rows), thresholds, links=links).sq_dist), names) for links in TRIED]
    links = _middle([(one["pairwise_f1"] + one["bcubed_f1"]) / 2 for one in found])
    at = scores(cut(threshold_for(len(rows), thresholds, links=links).sq_dist), names)
    return Calibration(thresholds, links, len(rows), at)


def _middle(quality: Sequence[float]) -> float:
    """Return the middle, in logarithms, of the unbroken run of `TRIED` links around the best that are about as good."""
    first = last = int(np.argmax(quality))
    least = quality[first] - PLATEAU
    while first > 0 and quality[first - 1] >= least:
        first -= 1
    while last + 1 < len(quality) and quality[last + 1] >= least:
        last += 1
    return float(np.sqrt(TRIED[first] * TRIED[last]))


def find_threshold(
    count: int,
    method: str,
    calibrated: Mapping[float, float] | None = None,
    sample: EmbeddingSet | None = None,
    *,
    threshold: float | None = None,
    far: float | None = None,
    links: float | None = None,
    **options: Any,
) -> tuple[float, dict[str, Any]]:
    """Return the threshold (sq_dist) to cluster `count` faces with, and what to report: its rule, and the sample's.

    Whichever is given decides: a `threshold`, the rate `far`, or `links`, by :func:`threshold_for`. Without any the
    sample's links decide, and without a sample `LINKS`, at a rate of at most `LARGEST_FAR`. Rates are those of the
    labelled `sample` if there is one, else those `calibrated` for the encoder. `options` are those of
    :func:`calibrate_clustering`.

    Raises:
        ConfigError: neither threshold nor rates, or several of threshold, far and links.
        DataError: `far` is smaller or larger than the calibrated rates.
    """
    if sum(value is not None for value in (threshold, far, links)) > 1:
        raise ConfigError("cluster: threshold, far and links each choose the threshold; pass one of them")
    if threshold is not None:
        return threshold, {"rule": "given"}
    if sample is None and calibrated is None:
        raise ConfigError("cluster: pass encoder=DIR for its calibration, sample=EMBEDDINGS, or threshold=SQ_DIST")
    usual, report = min(LINKS, LARGEST_FAR * count), {}
    if sample is not None:
        found = calibrate_clustering(sample.vectors, sample.identities, method=method, **options)
        calibrated, usual, report = found.thresholds, found.links, {"sample": describe(found)}
    rates = sorted(calibrated or {})
    if far is not None:
        if not rates or not rates[0] <= far <= rates[-1]:
            known = f"{rates[0]:g} to {rates[-1]:g}" if rates else "none; run facenet verify calibrate=true"
            raise DataError(f"cluster: no threshold for far={far:g} (calibrated: {known})")
        return threshold_for(1, calibrated or {}, links=far).sq_dist, {"rule": f"far {far:g}", **report}
    at = threshold_for(count, calibrated or {}, links=usual if links is None else links)
    return at.sq_dist, {"rule": at.rule, **report}


def describe(calibration: Calibration) -> dict[str, Any]:
    """Return plain numbers for ``metrics.json``."""
    rates = sorted(calibration.thresholds)
    return {
        "faces": calibration.faces,
        "links": calibration.links,
        "smallest_far": rates[0],
        "largest_far": rates[-1],
        "pairwise_f1": calibration.scores["pairwise_f1"],
        "bcubed_f1": calibration.scores["bcubed_f1"],
    }
