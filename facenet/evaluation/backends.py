"""Scores of pairs that are fitted on faces of known people: two-covariance PLDA, and adaptive score normalisation.

They tell pairs apart a little better than the squared distance of the vectors. They are no distance: neither a gallery
nor a threshold of an encoder knows them. So they stand in reports alone.

Letters: N training faces, M of them people, P pairs, D width.
Sources: Brümmer and de Villiers 2010, The speaker partitioning problem (two-covariance model, which Chen et al. 2012
call joint Bayesian); Garcia-Romero and Espy-Wilson 2011 (length normalisation); Matejka et al. 2017 (AS-norm).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from facenet.errors import DataError, choose
from facenet.vectors import normalise

ROUNDS = 10  # of expectation maximisation; the likelihood hardly rises afterwards
COHORT = 300  # nearest people of the training set by which a score is normalised
Scores = Callable[[np.ndarray, np.ndarray], np.ndarray]  # two sides (P, D) to scores (P,), larger is more alike


@dataclass(frozen=True)
class Plda:
    """x = y + e with y ~ N(m, B) for a person and e ~ N(0, W) for a face, in a basis where W = I and B is diagonal."""

    mean: np.ndarray  # (D,) of the vectors as they are
    centre: np.ndarray  # (D,) of the centred vectors, scaled to unit length
    basis: np.ndarray  # (D, D)
    between: np.ndarray  # (D,) diagonal of B there

    def project(self, vectors: np.ndarray) -> np.ndarray:
        """Return vectors (N, D) in the basis."""
        found: np.ndarray = (normalise(vectors - self.mean) - self.centre) @ self.basis
        return found

    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Return the log likelihood ratio (P,) of one person against two."""
        one, two, b = self.project(first), self.project(second), self.between
        squares, products = one**2 + two**2, one * two
        ratio = ((b + 1) * squares - 2 * b * products) / (2 * b + 1) - squares / (b + 1)
        found: np.ndarray = -0.5 * (np.log((2 * b + 1) / (b + 1) ** 2) + ratio).sum(1)
        return found


def fit_plda(vectors: np.ndarray, labels: np.ndarray, *, rounds: int = ROUNDS) -> Plda:
    """Fit the two-covariance model to faces (N, D) of people `labels` (N,) by expectation maximisation.

    Vectors are centred and scaled to unit length before. People with one face are left out: with them the AUC on LFW
    was lower.

    Raises:
        DataError: fewer than two people with several faces.
    """
    from scipy.linalg import eigh

    _, person, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if (counts > 1).sum() < 2:
        raise DataError("plda: expected two people or more with several training faces; give more faces")
    several = counts[person] > 1
    vectors, person = np.asarray(vectors, np.float64)[several], np.unique(person[several], return_inverse=True)[1]
    counts, mean = np.bincount(person), vectors.mean(0)
    given = normalise(vectors - mean)
    sums = np.zeros((len(counts), given.shape[1]))
    np.add.at(sums, person, given)
    means = sums / counts[:, None]
    floor = 1e-4 * np.eye(given.shape[1]) * np.trace(np.cov(given, rowvar=False)) / given.shape[1]
    rest = given - means[person]
    within = rest.T @ rest / (len(given) - len(counts)) + floor
    centre, between = means.mean(0), np.cov(means, rowvar=False) + floor
    for _ in range(rounds):
        inverse_b, inverse_w = np.linalg.inv(between), np.linalg.inv(within)
        person_means, spread_b, spread_w = np.empty_like(means), np.zeros_like(between), np.zeros_like(within)
        for count in np.unique(counts):
            who = counts == count
            covariance = np.linalg.inv(inverse_b + count * inverse_w)
            person_means[who] = (inverse_b @ centre + sums[who] @ inverse_w) @ covariance
            spread_b += who.sum() * covariance
            spread_w += who.sum() * count * covariance
        centre = person_means.mean(0)
        off, rest = person_means - centre, given - person_means[person]
        between = (spread_b + off.T @ off) / len(counts) + floor
        within = (spread_w + rest.T @ rest) / len(given) + floor
    values, basis = eigh(between, within)
    return Plda(mean, centre, basis, np.maximum(values, 0))


def as_norm(vectors: np.ndarray, labels: np.ndarray, *, cohort: int = COHORT) -> Scores:
    """Return cosines that are normalised on both sides by those to the nearest people of the training set.

    s' = ((s - mean_1) / std_1 + (s - mean_2) / std_2) / 2, mean and standard deviation over the `cohort` largest
    cosines of a side to mean vectors of people.
    """
    _, person = np.unique(labels, return_inverse=True)
    people = np.zeros((person.max() + 1, vectors.shape[1]))
    np.add.at(people, person, vectors)
    people = normalise(people)
    size = min(cohort, len(people))
    if size < 2:
        raise DataError("asnorm: expected two training people or more; give more faces")

    def score(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        cosine, total = (first * second).sum(1), np.zeros(len(first))
        for side in (first, second):
            nearest = np.partition(side @ people.T, -size, axis=1)[:, -size:]
            total += (cosine - nearest.mean(1)) / nearest.std(1)
        return total / 2

    return score


BACKENDS: dict[str, Callable[..., Scores]] = {"plda": fit_plda, "asnorm": as_norm}


def fit_backend(name: str, vectors: np.ndarray, labels: np.ndarray) -> Scores:
    """Return the scores of pairs by a name of `BACKENDS`, fitted on training faces (N, D) of people (N,).

    Raises:
        ConfigError: an unknown name.
        DataError: too few people.
    """
    return choose(BACKENDS, name, "backend")(vectors, labels)
