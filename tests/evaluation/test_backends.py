"""Back-ends of pairs against the formulas, on made faces."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from facenet.errors import ConfigError, DataError
from facenet.evaluation.backends import Plda, as_norm, fit_backend, fit_plda
from facenet.evaluation.roc import auc_and_eer, by_distance, curve
from facenet.vectors import normalise


def faces(people: int, images: int, seed: int = 0, dim: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """People who differ in a few directions, faces that differ in others."""
    rng = np.random.default_rng(seed)
    spread = np.linspace(1.5, 0.1, dim)
    of_people = rng.normal(size=(people, dim)) * spread
    labels = np.repeat(np.arange(people), images)
    return normalise(of_people[labels] + rng.normal(size=(len(labels), dim)) * spread[::-1]), labels


def test_the_score_is_the_log_likelihood_ratio() -> None:
    rng = np.random.default_rng(1)
    basis = rng.normal(size=(4, 4))
    model = Plda(rng.normal(size=4), rng.normal(size=4) / 9, basis, np.array([3.0, 1.0, 0.2, 0.0]))
    first, second = rng.normal(size=(2, 5, 4)).astype(np.float32)
    one, two = model.project(first), model.project(second)
    b = np.diag(model.between)
    together = np.block([[b + np.eye(4), b], [b, b + np.eye(4)]])
    alone = multivariate_normal(np.zeros(4), b + np.eye(4))
    expected = multivariate_normal(np.zeros(8), together).logpdf(np.hstack([one, two]))
    expected = expected - alone.logpdf(one) - alone.logpdf(two)
    np.testing.assert_allclose(model(first, second), expected, rtol=1e-6, atol=1e-8)


def test_plda_finds_the_covariances_it_was_drawn_from() -> None:
    rng = np.random.default_rng(2)
    labels = np.repeat(np.arange(4000), rng.integers(1, 6, 4000))
    between = np.array([0.5, 0.2, 0.05, 0.4, 0.3]) * 0.01
    within = np.array([0.1, 0.3, 0.3, 0.05, 0.2]) * 0.01
    far = np.array([10.0, 0, 0, 0, 0])  # length normalisation then hardly bends the cloud
    given = (
        far
        + rng.normal(size=(4000, 5))[labels] * np.sqrt(between)
        + rng.normal(size=(len(labels), 5)) * np.sqrt(within)
    )
    model = fit_plda(np.hstack([given, np.ones((len(given), 1)) * 30]), labels)
    assert (np.diff(model.between) >= 0).all()
    assert model.between[-1] == pytest.approx(8, rel=0.4), "the ratio of the fourth direction"


@pytest.mark.parametrize("name", ["plda", "asnorm"])
def test_backends_tell_new_people_apart_better_than_cosines(name: str) -> None:
    scores = fit_backend(name, *faces(200, 5))
    vectors, labels = faces(150, 2, seed=9)
    rng = np.random.default_rng(3)
    first, second = vectors[::2], vectors[1::2]
    order = np.roll(np.arange(150), 1 + rng.integers(100))
    one, two = np.concatenate([first, first]), np.concatenate([second, second[order]])
    same = np.repeat([True, False], 150)
    assert len(set(labels)) == 150

    def auc(values: np.ndarray) -> float:
        return auc_and_eer(curve(*by_distance(-values, same)))[0]

    found, plain = auc(scores(one, two)), auc((one * two).sum(1))
    assert found > plain + (0.02 if name == "plda" else -0.02)
    np.testing.assert_allclose(scores(one, two), scores(two, one), rtol=1e-6, atol=1e-8)


def test_asnorm_is_its_formula() -> None:
    vectors, labels = faces(20, 3)
    people = normalise(np.array([vectors[labels == person].sum(0) for person in range(20)]))
    one, two = vectors[:1], vectors[5:6]
    parts = []
    for side in (one, two):
        nearest = np.sort(side @ people.T)[0, -7:]
        parts.append(((one * two).sum() - nearest.mean()) / nearest.std())
    assert as_norm(vectors, labels, cohort=7)(one, two)[0] == pytest.approx(sum(parts) / 2, rel=1e-4)


def test_too_few_people_and_unknown_names() -> None:
    vectors, labels = faces(5, 1)
    with pytest.raises(DataError, match="plda: expected two people"):
        fit_plda(vectors, labels)
    with pytest.raises(DataError, match="asnorm: expected two"):
        as_norm(vectors[:1], labels[:1])
    with pytest.raises(ConfigError, match="did you mean 'plda'"):
        fit_backend("pldaa", vectors, labels)
