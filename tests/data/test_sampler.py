from __future__ import annotations

import numpy as np
import pytest

from facenet.data.options import SamplerOptions
from facenet.data.sampler import IdentitySampler
from facenet.errors import ConfigError, DataError
from facenet.options import build

LONG_TAIL = np.repeat(np.arange(200), [1] * 90 + [2] * 60 + [5] * 30 + [20] * 18 + [150, 300])
BALANCED = np.repeat(np.arange(40), 10)


def sampler(labels: np.ndarray = LONG_TAIL, **options: object) -> IdentitySampler:
    place = {"seed": 1, **{name: options.pop(name) for name in ("seed", "rank", "world_size") if name in options}}
    defaults = {"batch_size": 60, "faces_per_identity": 6, "negative_share": 0.2, "coverage": 3}
    return IdentitySampler(labels, build(SamplerOptions, {**defaults, **options}), **place)  # type: ignore[arg-type]


SETTINGS = [(60, 6, 0.2, 3), (48, 5, 0.1, 5), (30, 6, 0.3, 5), (90, 8, 0.1, 1), (45, 3, 0.4, 3), (200, 9, 0.0, 2)]


@pytest.mark.parametrize("labels", [LONG_TAIL, BALANCED], ids=["long_tail", "balanced"])
@pytest.mark.parametrize(("size", "faces", "share", "coverage"), SETTINGS)
def test_every_batch_keeps_its_promises(labels: np.ndarray, size: int, faces: int, share: float, coverage: int) -> None:
    made = sampler(labels, batch_size=size, faces_per_identity=faces, negative_share=share, coverage=coverage)
    asked, seen = round(size * share), set[int]()
    for epoch in range(7, 7 + coverage):
        plan = made.plan(epoch)
        assert plan.shape == (len(made), size)
        seen.update(plan.ravel().tolist())
        for batch in plan:
            assert len(set(batch.tolist())) == size, "no row twice"
            counts = np.bincount(labels[batch])
            assert counts.max() <= faces
            assert asked <= (counts == 1).sum() <= asked + 1, "as many as asked, and what no group can fill"
    assert seen >= set(np.flatnonzero(np.bincount(labels)[labels] > 1).tolist()), "all images of people with pairs"


@pytest.mark.parametrize(("size", "faces"), [(24, 4), (12, 4), (48, 8)])
def test_a_few_people_with_many_images_are_seen_too(size: int, faces: int) -> None:
    made = sampler(np.repeat(np.arange(6), 100), batch_size=size, faces_per_identity=faces, coverage=5)
    assert len(np.unique([made.plan(epoch) for epoch in range(5)])) == 600


def test_faces_of_people_with_one_image_follow_by_turns() -> None:
    made = sampler()
    epochs = -(-90 // (len(made) * 12))
    seen = np.unique([made.plan(epoch) for epoch in range(epochs)])
    assert (seen < 90).sum() == 90


def test_large_identities_do_not_crowd_out_the_others() -> None:
    shown = np.bincount(LONG_TAIL[np.concatenate([sampler().plan(e).ravel() for e in range(5)])])
    assert shown[90:180].min() >= 5, "every identity with a pair is shown about once an epoch"
    assert shown[-1] / shown.sum() < 300 / len(LONG_TAIL), "the largest is shown less than its share of images"


def test_a_pure_function_of_seed_and_epoch() -> None:
    one, two = sampler(), sampler()
    two.plan(5)
    np.testing.assert_array_equal(one.plan(3), two.plan(3))
    assert (one.plan(3) != one.plan(4)).any()
    assert (one.plan(0) != sampler(seed=2).plan(0)).any()
    first = 3 * len(one)
    batches = [one.batch(number) for number in range(first, first + len(one))]
    np.testing.assert_array_equal(np.array(batches), two.plan(3))


def test_ranks_share_one_global_batch() -> None:
    whole = sampler().plan(2)
    parts = []
    for rank in range(3):
        part = sampler(rank=rank, world_size=3)
        first = 2 * len(part)
        parts.append(np.array([part.batch(number) for number in range(first, first + len(part))]))
    np.testing.assert_array_equal(np.concatenate(parts, 1), whole)


def test_no_negatives_and_few_identities() -> None:
    plan = sampler(BALANCED, negative_share=0.0, batch_size=240).plan(0)
    assert np.bincount(BALANCED[plan[0]]).max() <= 6
    tight = np.repeat(np.arange(3), 4)
    plan = sampler(tight, batch_size=12, faces_per_identity=4, negative_share=0.25).plan(0)
    assert sorted(plan[0].tolist()) == list(range(12)), "the whole set is one batch"


@pytest.mark.parametrize(
    ("size", "faces", "share"), [(3, 2, 0.0), (3, 2, 0.33), (10, 9, 0.0), (16, 40, 0.1), (20, 5, 0.9)]
)
def test_every_batch_holds_a_triplet_under_the_tightest_settings(size: int, faces: int, share: float) -> None:
    made = sampler(batch_size=size, faces_per_identity=faces, negative_share=share)
    for batch in made.plan(0):
        counts = np.bincount(LONG_TAIL[batch])
        assert counts.max() > 1
        assert (counts > 0).sum() > 1


def test_bad_data_and_options() -> None:
    with pytest.raises(DataError, match="has two images"):
        sampler(np.arange(100))
    with pytest.raises(DataError, match="only one identity"):
        sampler(np.zeros(100, int))
    with pytest.raises(DataError, match=r"set sampler\.batch_size=\d+ or less"):
        sampler(np.repeat(np.arange(5), 5), batch_size=60)
    for size, share, text in ((10, 0.9, "are 9 .* leaves 1 for a pair"), (7, 0.8, "are 6 .* leaves 1")):
        with pytest.raises(ConfigError, match=f"negative_share: {share} of a batch of {size} faces {text}"):
            sampler(batch_size=size, negative_share=share)
    with pytest.raises(ConfigError, match=r"40 faces of one person fill a batch of 16, .* use 8 or less"):
        sampler(batch_size=16, faces_per_identity=40, negative_share=0.0)
    for options in ({"faces_per_identity": 1}, {"negative_share": 1.0}, {"batch_size": 61, "world_size": 2}):
        with pytest.raises(ConfigError):
            sampler(**options)
