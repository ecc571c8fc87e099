"""Sorting, searching, finding and taking by integers: numpy's vectorised routines on CPU, torch's elsewhere.

On a CPU numpy's search of sorted needles and its nonzero take half of the time of torch's. Of the sorts the faster is
found by trying: with AVX2 numpy's takes a quarter of the time of torch's, but on processors that emulate the AVX-512
instruction it compresses with (Zen 4) three times that of torch's radix sort.
Letters: C keys, T rows.
"""

from __future__ import annotations

import functools
import timeit

import numpy as np
import torch
from torch import Tensor

RADIX = 2**15  # keys from which on torch sorts integers by their digits


def sort_keys(keys: Tensor, *, radix: bool | None = None) -> Tensor:
    """Return int64 `keys` (C,) in ascending order; those given may have been sorted in place.

    `radix` chooses torch's sort or numpy's, which is in place. None takes the faster one for this many keys.
    """
    if radix is None:
        radix = len(keys) >= RADIX and _radix_is_faster()
    if radix or keys.device.type != "cpu":
        return keys.sort().values
    keys.numpy().sort()
    return keys


@functools.cache
def _radix_is_faster() -> bool:
    """Sort some keys both ways, once in a process; a few milliseconds."""
    keys = torch.from_numpy(np.random.default_rng(0).integers(0, 2**51, RADIX + 1))
    ways = (lambda: keys.sort(), lambda: keys.clone().numpy().sort())
    radix, vectorised = (min(timeit.repeat(way, number=1, repeat=4)) for way in ways)
    return radix < vectorised


def argsort_stable(keys: Tensor, below: int) -> Tensor:
    """Return the order (T,) that sorts integers in [0, `below`), equals in the order they stand."""
    bits = max(1, (len(keys) - 1).bit_length())
    if keys.device.type == "cpu" and below << bits < 2**63:  # key and place in one integer
        packed = sort_keys((keys << bits).bitwise_or_(torch.arange(len(keys))))
        return packed.bitwise_and_(2**bits - 1)
    return torch.argsort(keys, stable=True)


def search(keys: Tensor, thresholds: Tensor) -> Tensor:
    """Return the number of sorted `keys` (C,) below each of the `thresholds` (T,), which are best sorted too."""
    if keys.device.type == "cpu":
        return torch.from_numpy(np.searchsorted(keys.numpy(), thresholds.numpy()))
    return torch.searchsorted(keys, thresholds)


def nonzero(mask: Tensor) -> Tensor:
    """Return the places of True in the flattened `mask`."""
    if mask.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(mask.numpy()))
    return mask.view(-1).nonzero().squeeze(1)


def pick(values: Tensor, places: Tensor) -> Tensor:
    """Return values[places] for rows or numbers by int64 `places` (T,), in a fifth of the time on CPU."""
    return values.index_select(0, places)


def exceeds(values: Tensor, bound: Tensor, out: Tensor) -> Tensor:
    """Write values (R, B) > bound (R,) into the mask `out` (R, B), and return it."""
    if values.device.type == "cpu":
        np.greater(values.numpy(), bound.numpy()[:, None], out=out.numpy())
        return out
    return torch.gt(values, bound[:, None], out=out)
