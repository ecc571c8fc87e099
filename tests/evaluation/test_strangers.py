"""The tail of strangers: exact where measured, the right rate where extrapolated, and back again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facenet.evaluation.strangers import Tail, fit_tail, nearest_of_others, tail_of


def pareto(people: int, exponent: float, seed: int) -> np.ndarray:
    """Distances with P(D <= t) = t ** exponent in [0, 1]."""
    return np.random.default_rng(seed).random(people) ** (1 / exponent)


@pytest.mark.parametrize("people", [40, 400])
@pytest.mark.parametrize("rate", [0.002, 0.01, 0.05, 0.3])
def test_the_rate_holds_on_average_for_new_strangers(people: int, rate: float) -> None:
    """P(D <= t) = t ** 8: the rate of a threshold t is known, so the mean over samples needs no strangers."""
    found = [fit_tail(pareto(people, 8, seed), np.ones(people)).sq_dist(rate) ** 8 for seed in range(300)]
    assert np.mean(found) == pytest.approx(rate, rel=0.15)


def test_plugging_the_estimated_exponent_in_would_let_too_many_in() -> None:
    """The predictive rate is what makes few people enough: this test fails for the plain Hill estimate."""
    tails = [fit_tail(pareto(40, 8, seed), np.ones(40)) for seed in range(300)]
    plain = [Tail(t.shares, t.sq_dists, 0.0, t.spread / t.weight, t.least).sq_dist(0.002) ** 8 for t in tails]
    assert np.mean(plain) > 0.0025


def test_a_person_with_many_faces_counts_once() -> None:
    distances = pareto(200, 8, 0)
    often = np.concatenate([distances, np.full(100, distances[0])])
    weights = np.concatenate([[1 / 101], np.ones(199), np.full(100, 1 / 101)])
    for rate in (0.01, 0.1, 0.5):
        once, more = fit_tail(distances, np.ones(200)), fit_tail(often, weights)
        assert more.sq_dist(rate) == pytest.approx(once.sq_dist(rate), rel=0.03)


@given(st.integers(2, 300), st.integers(0, 99), st.lists(st.floats(1e-7, 1.0), min_size=2, max_size=6))
def test_thresholds_rise_with_the_rate_and_lead_back_to_it(people: int, seed: int, rates: list[float]) -> None:
    tail = fit_tail(pareto(people, 8, seed), np.ones(people))
    found = [tail.sq_dist(rate) for rate in sorted(rates)]
    assert found == sorted(found)
    for rate in rates:
        if tail.least < rate < tail.shares[0]:
            assert tail.share(tail.sq_dist(rate)) == pytest.approx(rate, rel=1e-6)
    assert Tail.from_plain(tail.plain()) == tail


def test_nothing_is_drawn_far_below_what_was_measured() -> None:
    tail = fit_tail(pareto(50, 8, 0), np.ones(50))
    assert tail.sq_dist(1e-9) == tail.sq_dist(tail.least) > 0
    assert tail.least == pytest.approx(1 / 5000)
    known = tail_of({1e-3: 1.0, 1e-4: 0.9})
    assert known.sq_dist(1e-5) == pytest.approx(0.81)
    assert known.sq_dist(1e-9) == known.sq_dist(1e-6) == pytest.approx(0.729)
    assert tail_of({1e-3: 1.0}).sq_dist(1e-9) == 1.0


def test_nearest_faces_against_a_loop() -> None:
    rng = np.random.default_rng(0)
    faces = rng.normal(size=(30, 8)).astype(np.float32)
    faces /= np.linalg.norm(faces, axis=1, keepdims=True)
    people, own = rng.integers(0, 9, 30), np.array([0, 7, 8, 29])
    blocks = [(faces[i : i + 8], people[i : i + 8]) for i in range(0, 30, 8)]
    other, mate = nearest_of_others(faces[own], people[own], blocks, own)
    for row, place in enumerate(own):
        far = ((faces - faces[place]) ** 2).sum(1)
        same = people == people[place]
        same_but_itself = same & (np.arange(30) != place)
        assert other[row] == pytest.approx(far[~same].min(), abs=1e-5)
        assert mate[row] == (pytest.approx(far[same_but_itself].min(), abs=1e-5) if same_but_itself.any() else np.inf)


@pytest.mark.parametrize(
    "content", [{}, {"shares": [0.5, 0.1], "sq_dists": [1, 2], "weight": 1, "spread": 1, "least": 0}]
)
def test_a_damaged_tail_is_refused(content: dict[str, object]) -> None:
    with pytest.raises((KeyError, ValueError)):
        Tail.from_plain(content)
