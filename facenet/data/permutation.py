"""Pseudo-random permutations that can be entered at any place, and the keys that choose them.

A permutation of n numbers is computed place by place, so no list of n numbers is made. It is a Feistel network over an
a x b rectangle with a * b >= n. Numbers outside are mapped again until they fall inside (cycle walking).
Source: Black and Rogaway 2002, "Ciphers with arbitrary finite domains", methods 2 and 3. Keys are hashed by the
finaliser of SplitMix64 (Steele et al. 2014). All of it mixes well but is no protection against an attacker.
"""

from __future__ import annotations

import numpy as np

ROUNDS = 8  # even; fewer leave visible differences between the permutations of few numbers
FEW = 8  # numbers, at most, for which Python's integers are faster than numpy's arrays
ALL_BITS = 2**64 - 1
STEP, FIRST, SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB  # of SplitMix64
STEPS = [number * STEP & ALL_BITS for number in range(1, ROUNDS + 1)]
STEP_ARRAY = np.array(STEPS, np.uint64)[:, None]  # (ROUNDS, 1)
FIRST_ARRAY, SECOND_ARRAY, HALF_ARRAY = (np.array([value], np.uint64) for value in (FIRST, SECOND, 32))


def derive_key(*numbers: int) -> int:
    """Return a key that follows from some numbers, which are at least 0 and below 2**64; so is the key.

    Other numbers, or the same ones in another order, give another key.
    """
    key = 0
    for number in numbers:
        key = (key + number + STEP) & ALL_BITS
        key = (key ^ key >> 30) * FIRST & ALL_BITS
        key = (key ^ key >> 27) * SECOND & ALL_BITS
        key ^= key >> 31
    return key


def derive_keys(key: int, numbers: np.ndarray) -> np.ndarray:
    """Return a key for each of some numbers, uint64 (M,).

    The key of a number is ``derive_key(*first, number)`` for ``key = derive_key(*first)``.
    """
    keys = numbers.astype(np.uint64) + ((key + STEP) & ALL_BITS)
    for shift, factor in ((30, FIRST), (27, SECOND)):
        keys ^= keys >> shift
        keys *= factor
    keys ^= keys >> 31
    return keys


def draw_below(limits: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Return a random number from 0 to ``limit - 1`` for each key, int64 (M,); limits are from 1 to 2**32."""
    drawn: np.ndarray = (keys >> 32) * limits.astype(np.uint64) >> 32
    return drawn.astype(np.int64)


def permute(places: np.ndarray, sizes: int | np.ndarray, keys: int | np.ndarray) -> np.ndarray:
    """Return the number at each place of a permutation, int64 (M,).

    For one size n and one key, the places 0 to n - 1 give each number from 0 to n - 1 once.

    Args:
        places: Places (M,), from 0 to n - 1.
        sizes: Size n of the permutation, from 1 to 2**53, or one for each place (M,).
        keys: Key of the permutation, or one for each place (M,).
    """
    n, keys = np.full(places.shape, sizes, np.uint64), np.full(places.shape, keys, np.uint64)
    a = np.ceil(np.sqrt(n)).astype(np.uint64)
    b = (n + a - 1) // a
    numbers, outside = places.astype(np.uint64), np.arange(len(places))  # outside: whose number is yet to be found
    if len(places) > FEW:
        numbers = _feistel(numbers, a, b, keys)
        outside = np.flatnonzero(numbers >= n)
    while len(outside) > FEW:
        numbers[outside] = _feistel(numbers[outside], a[outside], b[outside], keys[outside])
        outside = outside[numbers[outside] >= n[outside]]
    for i in outside.tolist():
        numbers[i] = _permute_one(int(numbers[i]), int(n[i]), int(a[i]), int(b[i]), int(keys[i]))
    return numbers.astype(np.int64)


def _permute_one(number: int, n: int, a: int, b: int, key: int) -> int:
    """Permute the a * b numbers of a rectangle until the number is below n.

    A round adds a hash of the row to the column, modulo the width. Then rows and columns change places.
    """
    while True:
        row, column = divmod(number, a)
        width, height = a, b
        for step in STEPS:
            moved = (row + key + step) * FIRST & ALL_BITS
            moved = (moved ^ moved >> 32) * SECOND & ALL_BITS
            row, column = (column + ((moved >> 32) * width >> 32)) % width, row
            width, height = height, width
        number = row * a + column
        if number < n:
            return number


def _feistel(numbers: np.ndarray, a: np.ndarray, b: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Permute the numbers once, as :func:`_permute_one` does, with as few numpy calls as possible."""
    rows, width, height = numbers // a, a, b
    columns = numbers - rows * a
    for key in keys + STEP_ARRAY:
        moved = rows + key
        moved *= FIRST_ARRAY
        moved ^= moved >> HALF_ARRAY
        moved *= SECOND_ARRAY
        moved >>= HALF_ARRAY
        moved *= width
        moved >>= HALF_ARRAY
        moved += columns
        columns, rows = rows, np.minimum(moved, moved - width)  # what is below 0 wraps to a huge number
        width, height = height, width
    return rows * a + columns
