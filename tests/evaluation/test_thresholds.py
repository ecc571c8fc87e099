"""The rule by size: between, above and below calibrated rates."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from facenet.errors import ConfigError, DataError
from facenet.evaluation.thresholds import threshold_for

RATES = {1e-2: 1.2, 1e-3: 1.0, 1e-4: 0.9}


@pytest.mark.parametrize(
    ("count", "links", "sq_dist", "says"),
    [
        (500, 5.0, 1.2, "far 0.01 of 500 faces"),
        (5000, 5.0, 1.0, "5 strangers a face"),
        (round(5000 * 10**0.5), 5.0, 0.95, "far 0.00032"),
        (10, 5.0, 1.2, "stopped at the largest calibrated rate, 0.01"),
        (5000, 0.05, 0.81, "extrapolated below the smallest calibrated rate, 0.0001"),
        (10**9, 5.0, 0.729, "extrapolated to 1e-06 and stopped there"),
    ],
)
def test_the_rule_by_size(count: int, links: float, sq_dist: float, says: str) -> None:
    found = threshold_for(count, RATES, links=links)
    assert found.sq_dist == pytest.approx(sq_dist, abs=1e-5)
    assert says in found.rule
    assert found.far == links / count


@given(
    st.dictionaries(st.floats(1e-7, 1.0), st.floats(0, 4), min_size=1, max_size=6),
    st.lists(st.integers(1, 10**8), min_size=2, max_size=6),
    st.floats(0.01, 100),
)
@example({1e-07: 1.0, 1.0000000000000001e-07: 0.0}, [1, 1], 1.0)  # two rates that have one logarithm
@settings(deadline=None, derandomize=True)
def test_the_threshold_never_rises_with_the_number_of_faces(
    rates: dict[float, float], counts: list[int], links: float
) -> None:
    found = [threshold_for(count, rates, links=links).sq_dist for count in sorted(counts)]
    assert all(later <= earlier + 1e-12 for earlier, later in pairwise(found))
    assert min(found) >= 0
    assert max(found) <= max(rates.values())


def test_one_rate_is_not_extrapolated() -> None:
    assert threshold_for(10**6, {1e-3: 1.0}, links=5).sq_dist == 1.0
    assert "only calibrated rate" in threshold_for(10**6, {1e-3: 1.0}, links=5).rule


@pytest.mark.parametrize(
    ("count", "rates", "links", "error"),
    [(0, RATES, 5, ConfigError), (9, RATES, 0, ConfigError), (9, RATES, math.nan, ConfigError), (9, {}, 5, DataError)],
)
def test_bad_rules_raise(count: int, rates: dict[float, float], links: float, error: type) -> None:
    with pytest.raises(error, match="threshold: "):
        threshold_for(count, rates, links=links)
