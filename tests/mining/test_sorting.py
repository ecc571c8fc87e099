"""Each routine against torch's own."""

from __future__ import annotations

import pytest
import torch

from facenet.mining.sorting import argsort_stable, exceeds, nonzero, pick, search, sort_keys

KEYS = torch.randint(0, 40, (500,), generator=torch.Generator().manual_seed(0))


def test_sorting_and_searching() -> None:
    expected = KEYS.sort().values
    found = sort_keys(KEYS.clone())
    assert torch.equal(found, expected)
    assert torch.equal(search(found, torch.arange(-1, 42)), torch.searchsorted(expected, torch.arange(-1, 42)))
    assert len(sort_keys(KEYS[:0].clone())) == 0


@pytest.mark.parametrize("below", [40, 2**60])  # packed with the place, and too large for it
def test_the_order_is_stable(below: int) -> None:
    assert torch.equal(argsort_stable(KEYS, below), torch.argsort(KEYS, stable=True))
    assert argsort_stable(KEYS[:1], below).tolist() == [0]
    assert argsort_stable(KEYS[:0], below).tolist() == []


def test_finding_and_taking() -> None:
    values = KEYS.float().view(20, 25)
    bound = torch.arange(20.0) * 2
    mask = exceeds(values, bound, out=torch.empty(20, 25, dtype=torch.bool))
    assert torch.equal(mask, values > bound[:, None])
    places = nonzero(mask)
    assert torch.equal(places, mask.flatten().nonzero().squeeze(1))
    assert torch.equal(pick(values.view(-1), places), values[mask])
    assert torch.equal(pick(values, places[:3] // 25), values[places[:3] // 25])


@pytest.mark.parametrize("radix", [True, False])
def test_both_sorts_give_the_same(radix: bool) -> None:
    values = torch.randint(0, 2**62, (4000,), generator=torch.Generator().manual_seed(0))
    values[1::2] = values[::2]  # equals
    expected, given = values.sort(stable=True).values, values.clone()
    assert torch.equal(sort_keys(given, radix=radix), expected)
    assert torch.equal(given, values if radix else expected), "numpy's sorts in place, torch's does not"
