"""How near strangers come: the share of them within a distance, measured, and extrapolated below what was measured.

Of a gallery the distances are those from each labelled face to the nearest face of another person: what a stranger
would find there. The share within a threshold t is the false positive identification rate FPIR(t) of that gallery. Of
a calibration the distances are those of all pairs of different people, and the share is the false accept rate FAR(t).

Below the measured shares the tail is a Pareto law in the distance: P(D <= t) = s (t / c)^a. Its exponent is Hill's
estimate from the nearest k of n people; the rate is the predictive one, which allows for the error of the exponent, so
that thresholds from few people are not too wide on average.
Letters: N faces, Q probes, D embedding width.
Source: Hill 1975; Amsaleg et al., KDD 2015 (local intrinsic dimensionality: this tail); Grother et al., FRVT part 2
(FPIR).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

SHARE = 0.25  # of the people: their distances make the tail
LEAST = 20.0  # people that make the tail at least, or half of them if there are fewer
POINTS = 64  # of the measured part that are kept
REACH = 100.0  # how far below one in n the tail is drawn
NEAR = 1e-6  # sq_dist: nearer faces are one picture twice


@dataclass(frozen=True)
class Tail:
    """Shares of strangers within squared distances.

    Attributes:
        shares: Measured shares in (0, 1], rising.
        sq_dists: The distances of these shares.
        weight: k, how many strangers the exponent was estimated from; 0 if the exponent is known.
        spread: The sum of ln(c / d) over these strangers, c the first of `sq_dists`. If k is 0, 1 / a.
        least: The smallest share that the tail is drawn to.
    """

    shares: tuple[float, ...]
    sq_dists: tuple[float, ...]
    weight: float
    spread: float
    least: float

    def sq_dist(self, share: float) -> float:
        """Return the squared distance within which this share of strangers comes; that of `least` for less.

        Measured shares are joined by lines in the logarithm of the share.
        """
        if share >= self.shares[0]:
            return float(np.interp(np.log(share), np.log(self.shares), self.sq_dists))
        ratio = self.shares[0] / max(share, self.least)
        away = self.spread * (ratio ** (1 / self.weight) - 1 if self.weight else np.log(ratio))
        return float(self.sq_dists[0] * np.exp(-away))

    def share(self, sq_dist: float) -> float:
        """Return the share of strangers within a squared distance, at least `least`: the inverse of :meth:`sq_dist`."""
        if sq_dist >= self.sq_dists[0]:
            return float(np.exp(np.interp(sq_dist, self.sq_dists, np.log(self.shares))))
        away = np.log(self.sq_dists[0] / max(sq_dist, 1e-12))
        if not self.spread:
            return self.least
        ratio = (1 + away / self.spread) ** -self.weight if self.weight else np.exp(-away / self.spread)
        return float(max(self.least, self.shares[0] * ratio))

    def plain(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_plain(cls, content: Mapping[str, Any]) -> Tail:
        """Return the tail that :meth:`plain` wrote.

        Raises:
            KeyError, TypeError, ValueError: it is damaged.
        """
        shares, sq_dists = (tuple(map(float, content[key])) for key in ("shares", "sq_dists"))
        tail = cls(shares, sq_dists, *(float(content[key]) for key in ("weight", "spread", "least")))
        steps = (np.diff(shares) > 0).all() and (np.diff(sq_dists) >= 0).all() and shares[0] > 0
        if len(shares) != len(sq_dists) or not shares or not steps or not tail.weight >= 0 or not tail.spread >= 0:
            raise ValueError("expected rising shares and distances")
        return tail


@dataclass(frozen=True)
class OwnPeople:
    """What the labelled faces of a gallery find in it if their own people, or they alone, are left out.

    Attributes:
        by_person: Shares of people whose nearest face of another person is within a distance: FPIR(t) of `faces`.
        by_face: The same shares of faces. A person with many faces who is like another counts for more in them.
        right: Shares of people whose nearest face is within a distance and their own; None without two faces of one.
        faces: How many faces are compared with.
        people: How many people asked.
    """

    by_person: Tail
    by_face: Tail
    right: Tail | None
    faces: int
    people: int

    def sq_dist(self, fpir: float) -> float:
        """Return the threshold that keeps FPIR whether strangers are counted by person or by face."""
        return min(self.by_person.sq_dist(fpir), self.by_face.sq_dist(fpir))

    def fpir(self, sq_dist: float) -> float:
        """Return the share of strangers who get a match, the larger of both counts."""
        return max(self.by_person.share(sq_dist), self.by_face.share(sq_dist))

    def plain(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        tails = {name: getattr(self, name) for name in ("by_person", "by_face", "right")}
        told = {name: tail and tail.plain() for name, tail in tails.items()}
        return {**told, "faces": self.faces, "people": self.people}

    @classmethod
    def from_plain(cls, content: Mapping[str, Any]) -> OwnPeople:
        """Return what :meth:`plain` wrote.

        Raises:
            KeyError, TypeError, ValueError: something else.
        """
        right = None if content["right"] is None else Tail.from_plain(content["right"])
        by_person, by_face = (Tail.from_plain(content[name]) for name in ("by_person", "by_face"))
        return cls(by_person, by_face, right, int(content["faces"]), int(content["people"]))


def fit_tail(sq_dist: np.ndarray, weights: np.ndarray) -> Tail:
    """Fit the tail of squared distances (n,) whose `weights` (n,) add up to the number of people.

    A person with several distances has the weight 1 in all. The i-th nearest of n people bounds the share i / (n + 1).

    Raises:
        ValueError: no distance.
    """
    order = np.argsort(sq_dist, kind="stable")
    distances, weight = np.maximum(sq_dist[order], NEAR), weights[order]
    reached = np.cumsum(weight)
    people = float(reached[-1])
    wanted = max(SHARE * people, min(LEAST, people / 2))
    last = min(int(np.searchsorted(reached, wanted)), len(distances) - 1)
    cut, kept = distances[min(last + 1, len(distances) - 1)], reached[last]
    first = (kept + 1) / (people + 1)
    asked = np.geomspace(min(first, 1.0), 1.0, POINTS)
    places = np.searchsorted(reached, asked * (people + 1) - 1, side="right").clip(0, len(distances) - 1)
    points = dict(zip(asked.tolist(), np.maximum.accumulate(np.maximum(distances[places], cut)).tolist(), strict=True))
    spread = float((weight[: last + 1] * np.log(cut / distances[: last + 1])).sum())
    return Tail(tuple(points), tuple(points.values()), float(kept), spread, 1 / (people * REACH))


def tail_of(thresholds: Mapping[float, float], *, reach: float = REACH) -> Tail:
    """Return the tail through calibrated thresholds {far: sq_dist}; below them the Pareto law through the lowest two.

    With one rate nothing is extrapolated.
    """
    fars = sorted(thresholds)
    known = np.maximum.accumulate([thresholds[far] for far in fars])
    slope = 0.0
    gap = np.log(fars[1]) - np.log(fars[0]) if len(fars) > 1 else 0.0
    if gap > 0 and known[0] > 0:
        slope = float((np.log(known[1]) - np.log(known[0])) / gap)
    return Tail(tuple(fars), tuple(known.tolist()), 0.0, slope, fars[0] / (reach if len(fars) > 1 else 1.0))


def nearest_of_others(
    probes: np.ndarray, people: np.ndarray, faces: Iterable[tuple[np.ndarray, np.ndarray]], own: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return for each probe (Q, D) the sq_dist of the nearest face of another person, and of another face of its own.

    Args:
        probes: Unit vectors (Q, D), which are faces of the gallery.
        people: The numbers of their people, (Q,).
        faces: Blocks of the gallery's labelled vectors (n, D) and numbers of their people (n,).
        own: The place of each probe among all faces, (Q,), which is left out.

    Returns:
        Two arrays (Q,), inf if there is none.
    """
    other, mate = np.full(len(probes), -np.inf, np.float32), np.full(len(probes), -np.inf, np.float32)
    start = 0
    for vectors, names in faces:
        similar = probes @ vectors.T  # (Q, n)
        here = np.flatnonzero((own >= start) & (own < start + len(vectors)))
        similar[here, own[here] - start] = -np.inf
        pairs = _of_one_person(people, names)
        np.maximum.at(mate, pairs[0], similar[pairs])
        similar[pairs] = -np.inf
        np.maximum(other, similar.max(1), out=other)
        start += len(vectors)
    return np.maximum(2 - 2 * other, 0), np.maximum(2 - 2 * mate, 0)


def _of_one_person(people: np.ndarray, names: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the places (m,) in `people` (Q,) and in `names` (n,) of all pairs of equal numbers."""
    order = np.argsort(names, kind="stable")
    first, last = (np.searchsorted(names[order], people, side=side) for side in ("left", "right"))
    count = last - first
    rows = np.repeat(np.arange(len(people)), count)
    return rows, order[np.arange(len(rows)) - np.repeat(np.cumsum(count) - count - first, count)]
