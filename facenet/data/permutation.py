"""Pseudo-random permutations that can be entered at any place, and the keys that choose them.

A permutation of the numbers from 0 to n - 1 is ``x -> (a * x + b) mod p``, for the smallest prime p >= n and a, b that
follow from a key. Results from n on are mapped again until they are below n (cycle walking), or left out. So a number
costs the same for any n, and no list is kept.
Sources: Carter and Wegman 1979, "Universal classes of hash functions"; Black and Rogaway 2002, "Ciphers with arbitrary
finite domains" (cycle walking); Steele et al. 2014 (SplitMix64, whose finaliser hashes the keys).
"""

from __future__ import annotations

import functools

import numpy as np

ALL_BITS, LOW_BITS = 2**64 - 1, 2**32 - 1
FEW = 256  # numbers, at most, that are sorted by their hashes, which makes all orders equally likely
LARGEST_GAP = 336  # between two primes below 2**32
STEP, FIRST, SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB  # of SplitMix64


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
    """Return a random number from 0 to ``limit - 1`` for each key, int64 (M,); limits are from 1 to 2**31."""
    return _scale(keys >> 32, limits)


def draw_distinct(count: int, size: int, key: int) -> np.ndarray:
    """Return `count` different numbers from 0 to ``size - 1`` in random order, int64 (M,).

    Pairs of numbers are about equally likely. Fewer numbers of the same key are the first ones of more.
    """
    if size <= FEW:
        return np.argsort(derive_keys(key, np.arange(size)))[:count]
    prime = int(_next_primes(np.array([size]))[0])
    factor, offset = 1 + ((key >> 32) * (prime - 1) >> 32), (key & LOW_BITS) * prime >> 32
    numbers: np.ndarray = (np.arange(count + prime - size) * factor + offset) % prime
    return numbers[numbers < size][:count]


def permute(places: np.ndarray, which: np.ndarray, sizes: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Return the numbers at some places of several permutations, int64 (M,).

    Numbers are about equally likely at a place. The first call with a size n takes up to 2 * n bytes for a moment.

    Args:
        places: Places (M,), from 0 to n - 1; all of a permutation give each number from 0 to n - 1 once.
        which: Index (M,) of the permutation of each place.
        sizes: Sizes n of the permutations (Q,), from 1 to 2**31.
        keys: Keys of the permutations (Q,), uint64.
    """
    primes = _next_primes(sizes)
    factors, offsets = 1 + _scale(keys >> 32, primes - 1), _scale(keys & LOW_BITS, primes)
    numbers: np.ndarray = (places * factors[which] + offsets[which]) % primes[which]
    outside = np.flatnonzero(numbers >= sizes[which])
    while len(outside):
        one = which[outside]
        numbers[outside] = (numbers[outside] * factors[one] + offsets[one]) % primes[one]
        outside = outside[numbers[outside] >= sizes[one]]
    return numbers


def _scale(bits: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Scale random numbers of 32 bits to 0 to ``limit - 1``, int64."""
    scaled: np.ndarray = bits * limits.astype(np.uint64) >> 32
    return scaled.astype(np.int64)


def _next_primes(numbers: np.ndarray) -> np.ndarray:
    """Return the smallest prime that is at least as large as each number from 1 on."""
    primes = _primes_below((1 << int(numbers.max()).bit_length()) + LARGEST_GAP)
    found: np.ndarray = primes[np.searchsorted(primes, numbers)]
    return found


@functools.cache
def _primes_below(limit: int) -> np.ndarray:
    """Return all primes below a limit in order, by the sieve of Eratosthenes."""
    prime = np.ones(limit, bool)
    prime[:2] = False
    for number in range(2, int(limit**0.5) + 1):
        if prime[number]:
            prime[number * number :: number] = False
    return np.flatnonzero(prime)
