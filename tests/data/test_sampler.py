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


@pytest.mark.parametrize("labels", [LONG_TAIL, BALANCED], ids=["long_tail", "balanced"])
def test_every_batch_keeps_its_promises(labels: np.ndarray) -> None:
    for epoch in range(6):
        plan = sampler(labels).plan(epoch)
        assert plan.shape == (len(sampler(labels)), 60)
        for batch in plan:
            assert len(set(batch.tolist())) == 60, "no row twice"
            counts = np.bincount(labels[batch])
            assert counts.max() <= 6
            assert (counts == 1).sum() >= 12, "a fifth of the rows are identities seen once"
            assert (counts > 1).sum() >= 8, "the rest are groups"


@pytest.mark.parametrize("labels", [LONG_TAIL, BALANCED], ids=["long_tail", "balanced"])
def test_over_a_few_epochs_every_image_is_seen(labels: np.ndarray) -> None:
    seen: set[int] = set()
    for epoch in range(8):
        seen.update(sampler(labels).plan(epoch).ravel().tolist())
    assert len(seen) == len(labels)


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


def test_bad_data_and_options() -> None:
    with pytest.raises(DataError, match="has two images"):
        sampler(np.arange(100))
    with pytest.raises(DataError, match="only one identity"):
        sampler(np.zeros(100, int))
    with pytest.raises(DataError, match=r"set sampler\.batch_size=\d+ or less"):
        sampler(np.repeat(np.arange(5), 5), batch_size=60)
    for options in ({"faces_per_identity": 1}, {"negative_share": 1.0}, {"batch_size": 61, "world_size": 2}):
        with pytest.raises(ConfigError):
            sampler(**options)
