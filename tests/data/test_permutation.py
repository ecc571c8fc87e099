from __future__ import annotations

import numpy as np
import pytest

from facenet.data.permutation import derive_key, derive_keys, draw_below, draw_distinct, permute

SIZES = [*range(1, 41), 63, 64, 65, 97, 101, 256, 1000, 1009, 4093, 65_537, 70_000]


def one(places: np.ndarray, size: int, key: int) -> np.ndarray:
    return permute(places, np.zeros(len(places), int), np.array([size]), np.array([key], np.uint64))


@pytest.mark.parametrize("key", [0, 1, 2**64 - 1, derive_key(3)])
def test_every_number_stands_at_one_place(key: int) -> None:
    for size in SIZES:
        for found in (one(np.arange(size), size, key), draw_distinct(size, size, key)):
            assert found.dtype == np.int64
            np.testing.assert_array_equal(np.sort(found), np.arange(size), err_msg=f"{size} numbers")


def test_any_place_can_be_entered_alone() -> None:
    for size in (5, 100, 2_059_906, 10**7):
        places = np.unique(np.random.default_rng(size).integers(0, size, 40))
        together = one(places, size, derive_key(7))
        assert ((together >= 0) & (together < size)).all()
        assert len(np.unique(together)) == len(places)
        alone = [int(one(places[i : i + 1], size, derive_key(7))[0]) for i in range(len(places))]
        np.testing.assert_array_equal(alone, together)
    assert one(np.arange(0), 5, 7).shape == (0,)


def test_several_permutations_at_once_are_those_alone() -> None:
    sizes = np.array([*SIZES, 2**20])
    which = np.random.default_rng(0).integers(0, len(sizes), 400)
    places, keys = np.random.default_rng(1).integers(0, sizes[which]), derive_keys(3, np.arange(len(sizes)))
    alone = [one(places[i : i + 1], int(sizes[q]), int(keys[q]))[0] for i, q in enumerate(which)]
    np.testing.assert_array_equal(permute(places, which, sizes, keys), alone)


@pytest.mark.parametrize("size", [2, 3, 4, 8, 11, 20])
def test_all_numbers_are_about_as_frequent_at_a_place(size: int) -> None:
    keys, which = derive_keys(5, np.arange(40_000)), np.arange(40_000)
    for place in (0, size - 1):
        counts = np.bincount(permute(np.full(40_000, place), which, np.full(40_000, size), keys), minlength=size)
        assert np.abs(counts / counts.mean() - 1).max() < 0.15


@pytest.mark.parametrize("size", [3, 4, 8])
def test_all_pairs_of_drawn_numbers_are_as_frequent(size: int) -> None:
    pairs = np.zeros((size, size))
    for number in range(5000):
        first, *_, last = draw_distinct(3, size, derive_key(5, number))
        pairs[first, last] += 1
    assert not np.diag(pairs).any()
    expected = 5000 / (size * (size - 1))
    assert np.abs(pairs[~np.eye(size, dtype=bool)] - expected).max() < 5 * expected**0.5


def test_fewer_draws_are_the_first_of_more() -> None:
    for size in (1, 10, 300, 2_059_906):
        drawn = draw_distinct(min(size, 50), size, 5)
        for count in range(len(drawn)):
            np.testing.assert_array_equal(draw_distinct(count, size, 5), drawn[:count])


def test_keys_follow_from_every_number_and_their_order() -> None:
    found = {derive_key(*parts) for parts in [(), (0,), (1,), (0, 0), (0, 1), (1, 0), (1, 1), (2**64 - 1,)]}
    assert len(found) == 8
    alone = [derive_key(4, 9, number) for number in range(5)]
    np.testing.assert_array_equal(derive_keys(derive_key(4, 9), np.arange(5)), np.array(alone, np.uint64))


def test_draws_are_even_and_below_their_limit() -> None:
    keys = derive_keys(1, np.arange(10_000))
    for limit in (1, 2, 7):
        counts = np.bincount(draw_below(np.full(10_000, limit), keys), minlength=limit)
        assert len(counts) == limit
        assert counts.min() > 0.9 * 10_000 / limit
    assert draw_below(np.full(10_000, 2**32), keys).max() > 0.99 * 2**32
