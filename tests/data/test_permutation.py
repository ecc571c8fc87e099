from __future__ import annotations

import numpy as np
import pytest

from facenet.data.permutation import FEW, derive_key, derive_keys, draw_below, permute

SIZES = [*range(1, 41), 63, 64, 65, 97, 101, 256, 1000, 1009, 4093, 65_537]


@pytest.mark.parametrize("key", [0, 1, 2**64 - 1])
def test_every_number_stands_at_one_place(key: int) -> None:
    for size in SIZES:
        found = permute(np.arange(size), size, key)
        assert found.dtype == np.int64
        np.testing.assert_array_equal(np.sort(found), np.arange(size), err_msg=f"{size} numbers")


def test_any_place_can_be_entered_alone() -> None:
    """A few places are computed by other code than many."""
    for size in (5, 100, 42_474_558, 2**53):
        places = np.unique(np.random.default_rng(size).integers(0, size, 40))
        together = permute(places, size, 7)
        assert ((together >= 0) & (together < size)).all()
        assert len(np.unique(together)) == len(places)
        for part in np.split(places, range(FEW, len(places), FEW)):
            np.testing.assert_array_equal(permute(part, size, 7), together[np.isin(places, part)])
    assert permute(np.arange(0), 5, 7).shape == (0,)


def test_places_have_sizes_and_keys_of_their_own() -> None:
    sizes = np.random.default_rng(0).integers(1, 50, 200)
    places, keys = np.arange(200) % sizes, derive_keys(3, np.arange(200))
    alone = [int(permute(places[i : i + 1], int(sizes[i]), int(keys[i]))[0]) for i in range(200)]
    np.testing.assert_array_equal(permute(places, sizes, keys), alone)


@pytest.mark.parametrize("size", [3, 4, 8, 11])
def test_all_pairs_of_neighbours_are_about_as_frequent(size: int) -> None:
    keys = derive_keys(5, np.arange(40_000))
    first, second = (permute(np.full(40_000, place), size, keys) for place in (0, 1))
    pairs = np.bincount(first * size + second, minlength=size * size).reshape(size, size)
    assert not np.diag(pairs).any()
    share = pairs[~np.eye(size, dtype=bool)] * size * (size - 1) / 40_000
    assert share.min() > 0.75
    assert share.max() < 1.25


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
