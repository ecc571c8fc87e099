"""The threshold of a gallery: its rate of strangers, its size, its own people, and encoders of two generations."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facenet.encoders.encoder import Encoder
from facenet.errors import ConfigError, DataError
from facenet.evaluation.thresholds import FPIRS, SearchThreshold
from facenet.gallery.answers import ask, score
from facenet.gallery.gallery import Gallery
from facenet.gallery.queries import Queries
from facenet.gallery.strangers import NAMES
from facenet.types import EmbeddingSet
from tests.helpers.encoders import make

FILE = NAMES["nearest"] + ".json"
OLD, NEW, D = "aa" * 32, "bb" * 32, 16


def world(people: int, faces: int, seed: int, spread: float = 0.25) -> tuple[np.ndarray, list[str]]:
    """Unit vectors (N, 16) of people around random centres, and their names."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(people, 1, D))
    vectors = (centres / np.linalg.norm(centres, axis=2, keepdims=True)) + spread / 4 * rng.normal(
        size=(people, faces, D)
    )
    vectors = vectors.reshape(-1, D) / np.linalg.norm(vectors.reshape(-1, D), axis=1, keepdims=True)
    return vectors.astype(np.float32), [f"s{seed}p{i:03d}" for i in range(people) for _ in range(faces)]


def embeddings(vectors: np.ndarray, names: list[str], fingerprint: str = NEW, **rest: Any) -> EmbeddingSet:
    return EmbeddingSet(vectors, [f"{name or i}/{i}.png" for i, name in enumerate(names)], names, fingerprint, **rest)


def encoder(**thresholds: Any) -> Encoder:
    return replace(make(), fingerprint=NEW, **thresholds)


def accepted(gallery: Gallery, strangers: EmbeddingSet, threshold: float) -> float:
    return float(np.mean([bool(hits) for hits in gallery.hits_within(strangers, threshold)]))


@pytest.mark.parametrize("fpir", [0.01, 0.05, 0.2])
def test_strangers_get_a_match_at_the_rate_asked_for(fpir: float, tmp_path: Path) -> None:
    shares, right = [], []
    for seed in range(4):
        with Gallery.open(tmp_path / str(seed), create=True) as gallery:
            vectors, names = world(60, 3, seed)
            gallery.add(embeddings(vectors, names))
            found = gallery.threshold(fpir=fpir)
            shares.append(accepted(gallery, embeddings(*world(1500, 1, 100 + seed)), found.sq_dist))
            right.append(found.right)
            assert found.source == f"60 people of the gallery{', extrapolated' if fpir * 60 < 10 else ''}"
            assert found.strangers == pytest.approx(fpir, rel=0.6)
    assert 0.3 * fpir <= np.mean(shares) <= 1.25 * fpir
    assert min(right) > 0.9


def test_a_gallery_that_grows_is_stricter_and_its_answers_are_kept(tmp_path: Path) -> None:
    with Gallery.open(tmp_path / "g", create=True) as gallery:
        gallery.add(embeddings(*world(40, 3, 0)))
        small = gallery.threshold()
        kept = (tmp_path / "g" / FILE).read_bytes()
        gallery.add(embeddings(*world(1, 3, 1)))
        assert gallery.threshold().sq_dist < small.sq_dist, "three faces more"
        assert (tmp_path / "g" / FILE).read_bytes() == kept, "too few came for the faces to ask again"
        gallery.add(embeddings(*world(200, 3, 2)))
        large = gallery.threshold()
        assert (tmp_path / "g" / FILE).read_bytes() != kept
        assert (large.faces, small.faces) == (723, 120)
        assert large.sq_dist < small.sq_dist
        (tmp_path / "g" / FILE).write_text("{}")
    with Gallery.open(tmp_path / "g") as gallery:
        assert gallery.threshold() == large, "a damaged cache is made again"
        few = gallery.threshold(where={"identity": ["s0p001", "s0p002"]})
        assert few.faces == 6
        assert few.sq_dist > large.sq_dist


def test_the_faces_ask_again_when_people_get_other_names(tmp_path: Path) -> None:
    vectors, names = world(100, 3, 0)
    with Gallery.open(tmp_path, create=True) as gallery:
        gallery.add(embeddings(vectors, ["" if i % 3 else name for i, name in enumerate(names)]))
        ids = [item.id for item in gallery.items(range(1, 301))]
        assert gallery.threshold().source.startswith("100 people of the gallery")
        kept = (tmp_path / FILE).read_bytes()
        for i in (1, 4, 7):
            gallery.rename(ids[i], names[i])
        gallery.threshold()
        assert (tmp_path / FILE).read_bytes() == kept, "too few were named"
        for i in range(10, 46, 3):
            gallery.rename(ids[i], names[i], by="id")
        named = gallery.threshold()
        assert (tmp_path / FILE).read_bytes() != kept
        kept = (tmp_path / FILE).read_bytes()
        gallery.rename([f"s0p{i:03d}" for i in range(60)], "one")
        assert gallery.threshold().sq_dist != named.sq_dist, "as many are labelled, with other names"
        assert gallery.threshold().source.startswith("41 people of the gallery")
    (tmp_path / FILE).write_bytes(kept.replace(b'"renamed"', b'"unknown"'))
    with Gallery.open(tmp_path) as gallery:
        assert gallery.threshold().source.startswith("41 people of the gallery"), "a file without that count"


def test_what_a_threshold_needs_is_counted_once_a_write(tmp_path: Path) -> None:
    with Gallery.open(tmp_path, create=True) as gallery, Gallery.open(tmp_path) as other:
        gallery.add(embeddings(*world(40, 3, 0)))
        for rule in NAMES:
            first = gallery.threshold(identity_by=rule)
            seen: list[str] = []
            gallery._engine.truth.database._connection.set_trace_callback(seen.append)
            assert gallery.threshold(identity_by=rule) == first
            gallery._engine.truth.database._connection.set_trace_callback(None)
            assert seen
            assert not [sql for sql in seen if "items" in sql.replace("token, last, items", "")], "no table of faces"
            assert [one.rate for one in first.others()] == list(FPIRS)
            assert first.others() == [gallery.threshold(fpir=rate, identity_by=rule) for rate in FPIRS]
            other.add(embeddings(*world(1, 1, 9 + len(rule))))
            assert gallery.threshold(identity_by=rule).faces == first.faces + 1
            assert gallery.info()["count"] == len(other)
            assert gallery.info()["identities"] == len(other.identities())
    assert SearchThreshold(1.0).others() == []


def test_without_people_of_its_own_the_calibration_tells(tmp_path: Path) -> None:
    with Gallery.open(tmp_path / "g", create=True) as gallery:
        vectors, names = world(100, 1, 0)
        gallery.add(embeddings(vectors, [""] * len(names)))
        with pytest.raises(DataError, match=r"no calibration, .*run facenet calibrate, or pass threshold=SQ_DIST"):
            gallery.threshold(encoder())
        found = gallery.threshold(encoder(thresholds={1e-2: 0.9, 1e-3: 0.7, 1e-4: 0.5}), fpir=0.05)
        assert found.sq_dist == pytest.approx(0.7 - 0.2 * np.log10(1e-3 / (1 - 0.95**0.01)))
        assert found.strangers == pytest.approx(0.05)
        assert "the calibration, far 0.00051 of 100 faces" in found.source
        assert gallery.threshold(encoder(thresholds={1e-3: 0.7}), far=1e-3).sq_dist == 0.7
        with pytest.raises(DataError, match=r"no threshold for far=0\.5"):
            gallery.threshold(encoder(thresholds={1e-3: 0.7}), far=0.5)
        with pytest.raises(ConfigError, match="fpir and far each choose the threshold; pass one"):
            gallery.threshold(encoder(thresholds={1e-3: 0.7}), far=1e-3, fpir=0.1)
        assert gallery.threshold(threshold=0.0).sq_dist == 0.0
        with pytest.raises(ConfigError, match=r"threshold: expected a number in \[0, 4\], got 5"):
            gallery.threshold(threshold=5.0)
        with pytest.raises(ConfigError, match="fpir: expected a number above 0 and below 1, got 0"):
            gallery.threshold(fpir=0.0)


def test_a_calibration_of_other_faces_is_named(tmp_path: Path) -> None:
    with Gallery.open(tmp_path / "g", create=True) as gallery:
        gallery.add(embeddings(*world(60, 3, 0)))
        own = gallery.threshold().sq_dist
        wide, fitting = ({1e-2: at + 0.2, 1e-3: at + 0.1, 1e-4: at} for at in (1.3, own - 0.1))
        assert "it is of other faces, run facenet calibrate" in gallery.threshold(encoder(thresholds=wide)).source
        found = gallery.threshold(encoder(thresholds=fitting))
        assert (found.sq_dist, "other faces" in found.source) == (own, False)


def test_people_ask_again_when_a_backfill_goes_on(tmp_path: Path) -> None:
    """A backfill leaves the number of items as it is; what its first faces told must not stand for all."""
    vectors, names = world(60, 3, 0)
    new = encoder(compatible_with=[OLD], with_older={OLD: {1e-2: 1.2, 1e-3: 1.0}})
    fresh = embeddings(vectors, names, NEW, compatible_with=(OLD,))
    first = embeddings(vectors[:90], names[:90], NEW, compatible_with=(OLD,))
    with Gallery.open(tmp_path / "g", create=True) as gallery:
        gallery.add(embeddings(vectors, names, OLD))
        gallery.backfill(first)
        assert "30 people of the gallery" in gallery.threshold(new).source
        gallery.backfill(fresh)
        assert "60 people of the gallery" in gallery.threshold(new).source
        assert gallery.fingerprint == gallery.info()["fingerprint"] == NEW, "the old encoder has no vectors any more"
        assert "60 people of the gallery" in gallery.threshold().source, "a query by id has the encoder of the vectors"


def test_a_rate_is_no_distance_where_there_is_no_face(tmp_path: Path) -> None:
    with Gallery.open(tmp_path / "g", create=True) as gallery:
        assert gallery.threshold(encoder(), fpir=0.5).sq_dist == 0
        assert gallery.threshold(encoder(), threshold=0.5).sq_dist == 0.5


def test_each_face_is_judged_by_the_threshold_of_its_encoder(tmp_path: Path) -> None:
    """Half of a gallery is backfilled; old faces lie farther from new queries, and have a threshold of their own."""
    vectors, names = world(30, 2, 0, spread=0.1)
    with Gallery.open(tmp_path / "g", create=True) as gallery:
        gallery.add(embeddings(vectors[:30], names[:30], OLD))
        gallery.add(embeddings(vectors[30:], names[30:], NEW, compatible_with=(OLD,)))
        new = encoder(
            thresholds={1e-2: 0.2, 1e-3: 0.1}, compatible_with=[OLD], with_older={OLD: {1e-2: 1.2, 1e-3: 1.0}}
        )
        found = gallery.threshold(new, far=1e-3)
        assert (found.sq_dist, found.older) == (0.1, {OLD: 1.0})
        assert found.plain()["thresholds_of_older"] == {OLD[:12]: 1.0}
        turned = vectors.copy()
        turned[:, 0] += 0.75  # what the new encoder says of the same people, 0.3 to 0.6 away from the old vectors
        turned /= np.linalg.norm(turned, axis=1, keepdims=True)
        queries = embeddings(turned, names, NEW, compatible_with=(OLD,))
        given = Queries(queries, [None] * len(names))
        nearest = ask(gallery, given, k=5, threshold=found)
        every = ask(gallery, given, k=5, threshold=found, within=True)
        assert score(nearest, set(names)) == score(every, set(names))
        by_old = [answer.match is not None for answer in nearest[:30]]
        assert np.mean(by_old) > 0.9, "at 1.0"
        strict = ask(gallery, given, k=5, threshold=0.1)
        assert np.mean([answer.match is not None for answer in strict[:30]]) < 0.1, "one threshold for all refuses them"
        for answer in every:
            assert all(hit.sq_dist <= (1.0 if hit.fingerprint == OLD else 0.1) for hit in answer.hits)


def test_scores_within_are_those_of_the_nearest(tmp_path: Path) -> None:
    vectors, names = world(40, 3, 0)
    with Gallery.open(tmp_path / "g", create=True) as gallery:
        gallery.add(embeddings(vectors, names))
        asked, unknown = world(40, 1, 0, spread=0.4)[0], world(60, 1, 9)
        queries = embeddings(np.concatenate([asked, unknown[0]]), [f"s0p{i:03d}" for i in range(40)] + unknown[1])
        given = Queries(queries, [None] * 100)
        found = gallery.threshold(fpir=0.2)
        scores = [
            score(ask(gallery, given, k=3, threshold=found, within=w), gallery.identities()) for w in (False, True)
        ]
        assert scores[0] == scores[1]
        assert 0 < scores[0]["strangers_rejected"] < 1
