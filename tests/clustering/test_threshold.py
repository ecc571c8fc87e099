"""The threshold of clusters: what is given is taken, and what a labelled sample tells."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from benchmarks.drawn import draw_gallery
from facenet.clustering.clusters import cluster, scores
from facenet.clustering.threshold import (
    LEAST_PAIRS,
    PLATEAU,
    TRIED,
    _middle,
    calibrate_clustering,
    describe,
    find_threshold,
)
from facenet.errors import ConfigError, DataError
from facenet.evaluation.thresholds import threshold_for
from facenet.types import EmbeddingSet

RATES = {1e-2: 1.2, 1e-3: 1.0, 1e-4: 0.9}


def sample(faces: int = 600, each: int = 10, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    vectors, people = draw_gallery(faces, 32, per_identity=each, seed=seed)
    return vectors, people.astype(str)


def test_a_sample_gives_the_exact_thresholds_of_its_pairs() -> None:
    vectors, names = sample(200, 5)
    names[::9] = ""
    found = calibrate_clustering(vectors, names)
    rows = np.flatnonzero(names != "")
    pairs = [(i, j) for i, j in combinations(rows.tolist(), 2) if names[i] != names[j]]
    strange = np.sort([float(((vectors[i].astype(float) - vectors[j]) ** 2).sum()) for i, j in pairs])
    assert len(found.thresholds) > 3
    for far, sq_dist in found.thresholds.items():
        assert (strange <= sq_dist - 1e-5).sum() / len(strange) <= far
        assert (strange <= sq_dist + 1e-5).sum() >= LEAST_PAIRS
        more = strange[min(int(far * len(strange)) + 1, len(strange) - 1)]
        assert sq_dist <= more + 1e-5
    assert min(found.thresholds) * len(strange) >= LEAST_PAIRS - 1
    assert found.faces == len(rows)


def test_a_sample_gives_links_that_cluster_it_about_as_well_as_any() -> None:
    vectors, names = sample(1000, 10)
    found = calibrate_clustering(vectors, names)

    def quality(links: float) -> float:
        threshold = threshold_for(1000, found.thresholds, links=links).sq_dist
        got = scores(cluster(vectors, threshold, method="chinese_whispers"), names)
        return (got["pairwise_f1"] + got["bcubed_f1"]) / 2

    tried = [quality(links) for links in TRIED]
    assert max(tried) - min(tried) > 3 * PLATEAU, "or any links would do"
    assert quality(found.links) >= max(tried) - 2 * PLATEAU
    assert found.scores["bcubed_f1"] == pytest.approx(2 * quality(found.links) - found.scores["pairwise_f1"])
    assert describe(found)["links"] == found.links


def test_fewer_faces_of_a_person_bear_fewer_links() -> None:
    many, few = (calibrate_clustering(*sample(600, each)).links for each in (20, 2))
    assert few < many / 4


def test_the_middle_of_the_plateau() -> None:
    quality = [0.5] * len(TRIED)
    quality[3:6] = [0.9, 0.9 + PLATEAU, 0.9]
    quality[8] = 0.9  # as good, but not joined to the best
    assert _middle(quality) == pytest.approx(TRIED[4])
    assert _middle([1.0] * len(TRIED)) == pytest.approx(math.sqrt(TRIED[0] * TRIED[-1]))
    quality[0] = 1.0
    assert _middle(quality) == pytest.approx(TRIED[0])


def test_samples_that_tell_nothing_raise() -> None:
    vectors, names = sample(60)
    with pytest.raises(DataError, match="two or more identities"):
        calibrate_clustering(vectors, ["a"] * 60)
    with pytest.raises(DataError, match="needs more faces"):
        calibrate_clustering(vectors[:4], ["a", "a", "b", "b"])
    with pytest.raises(ConfigError, match="did you mean"):
        calibrate_clustering(vectors, names, method="chinese_whisper")


def test_what_is_given_is_taken() -> None:
    vectors, names = sample()
    labelled = EmbeddingSet(vectors, [str(i) for i in range(len(names))], names.tolist(), "")
    whispers: dict[str, Any] = {"count": 5000, "method": "chinese_whispers"}
    assert find_threshold(**whispers, calibrated=RATES, threshold=0.3) == (0.3, {"rule": "given"})
    with pytest.raises(ConfigError, match="pass one of them"):
        find_threshold(**whispers, calibrated=RATES, threshold=0.3, far=0.01)
    assert find_threshold(**whispers, calibrated=RATES, far=1e-3) == (1.0, {"rule": "far 0.001"})
    assert find_threshold(**whispers, calibrated=RATES)[0] == pytest.approx(1.0)
    assert find_threshold(**whispers, calibrated=RATES, links=50)[0] == pytest.approx(1.2)
    by_sample = calibrate_clustering(vectors, names)
    found = find_threshold(**whispers, calibrated=RATES, sample=labelled)
    assert found[0] == threshold_for(5000, by_sample.thresholds, links=by_sample.links).sq_dist
    assert found[1]["sample"]["faces"] == 600
    assert find_threshold(**whispers, sample=labelled, far=1e-2)[0] == pytest.approx(by_sample.thresholds[1e-2])
    with pytest.raises(ConfigError, match="pass encoder=DIR"):
        find_threshold(**whispers)
    for far in (1e-5, 0.5):
        with pytest.raises(DataError, match=r"no threshold for far=.* \(calibrated: 0.0001 to 0.01\)"):
            find_threshold(**whispers, calibrated=RATES, far=far)
    for asked in ({"far": 1e-3}, {}):
        with pytest.raises(DataError, match="calibrate=true"):
            find_threshold(**whispers, calibrated={}, **asked)


def test_a_small_album_links_no_face_to_a_fifth_of_the_others() -> None:
    rates = {0.1: 1.0, 0.01: 0.5, 0.001: 0.3}
    assert find_threshold(24, "average_linkage", rates)[0] == pytest.approx(rates[0.01])
    assert find_threshold(5000, "average_linkage", rates)[0] == pytest.approx(rates[0.001])
    assert find_threshold(24, "average_linkage", rates, links=2.4)[0] == pytest.approx(rates[0.1]), "what is asked for"
