"""Thresholds for a set of N faces: to cluster it, and to search it without letting strangers in.

A face of a set of N meets about far(t) N strangers within the threshold t. The rule of clusters keeps that number,
`links`: far(t) = links / N. A search keeps the share of strangers who get any match: FPIR(t) = 1 - (1 - far(t))^N if
its faces are as independent as those of the calibration. A gallery that knows its own people measures FPIR(t) itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from facenet.errors import ConfigError, DataError
from facenet.evaluation.strangers import OwnPeople, Tail, tail_of

FOREIGN = 3.0  # times the strangers asked for: a calibration that lets in more was made on other faces
FAR = 0.001  # share of pairs of different people that match if nothing else is asked
FPIR = 0.05  # share of strangers who may get a match if nothing else is asked
OFTEN = 0.1  # false matches of a stranger; fewer are as many as the share of strangers with a match
FPIRS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)  # whose costs stand beside


class Threshold(NamedTuple):
    """A threshold and where it came from."""

    sq_dist: float
    far: float  # the false accept rate asked for
    rule: str  # one line for people


def threshold_for(count: int, thresholds: Mapping[float, float], *, links: float) -> Threshold:
    """Return the threshold t at which a face meets `links` strangers among `count`: far(t) = links / count.

    Between calibrated rates {far: sq_dist} the threshold is linear in log(far). Above the largest rate it is that
    rate's. Below the smallest rate it follows the tail of :mod:`facenet.evaluation.strangers` for two decades and is
    constant from there. If only one rate is calibrated, it is constant at once. It never rises with `count`.

    Raises:
        ConfigError: count < 1 or links <= 0.
        DataError: nothing is calibrated.
    """
    if count < 1 or not links > 0:
        raise ConfigError(f"threshold: expected at least one face and links above 0, got {count} and {links}")
    if not thresholds:
        raise DataError("threshold: no calibrated rate; run facenet verify calibrate=true, or pass sample=EMBEDDINGS")
    far = links / count
    tail = tail_of(thresholds)
    rule = f"{links:.3g} strangers a face: far {far:.2g} of {count} faces"
    return Threshold(tail.sq_dist(far), far, rule + _beyond(tail, far))


def _beyond(tail: Tail, rate: float) -> str:
    """Say what is not measured about a rate; "" if it is between measured ones."""
    least, largest = tail.shares[0], tail.shares[-1]
    if rate > largest:
        return f", stopped at the largest calibrated rate, {largest:g}"
    if rate >= least:
        return ""
    if tail.least >= least:
        return f", stopped at the only calibrated rate, {least:g}"
    how = "extrapolated" if rate >= tail.least else f"extrapolated to {tail.least:.2g} and stopped there,"
    return f", {how} below the smallest calibrated rate, {least:.2g}"


class Basis(NamedTuple):
    """What a search threshold is derived from; the arguments of :func:`search_threshold`."""

    faces: Mapping[str, int]
    fingerprint: str
    tails: Mapping[str, Tail]
    own: OwnPeople | None

    def plain(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        tails = {name: tail.plain() for name, tail in self.tails.items()}
        return {**self._asdict(), "tails": tails, "own": self.own and self.own.plain()}

    @classmethod
    def from_plain(cls, content: Mapping[str, Any]) -> Basis:
        """Return what :meth:`plain` wrote; raises as :meth:`OwnPeople.from_plain`."""
        tails = {name: Tail.from_plain(tail) for name, tail in content["tails"].items()}
        own = None if content["own"] is None else OwnPeople.from_plain(content["own"])
        return cls(content["faces"], content["fingerprint"], tails, own)


@dataclass(frozen=True)
class SearchThreshold:
    """Up to which squared distance a gallery's face is a match of a query, and what that costs.

    Attributes:
        sq_dist: For faces of the query's own encoder.
        older: For faces whose vectors are another encoder's, by its fingerprint.
        kind: What was asked for: "fpir", "far" or "threshold".
        rate: The rate asked for; None for a given threshold.
        faces: N, how many faces the query is compared with.
        source: What the threshold was derived from, one line.
        strangers: Expected share of strangers who get a match; None if nothing tells.
        right: Expected share of the people enrolled who are found and accepted; None if nothing tells.
        basis: What :meth:`others` derives the thresholds of other rates from; None for a plain number.
    """

    sq_dist: float
    older: Mapping[str, float] = field(default_factory=dict)
    kind: str = "threshold"
    rate: float | None = None
    faces: int = 0
    source: str = "given"
    strangers: float | None = None
    right: float | None = None
    basis: Basis | None = field(default=None, compare=False, repr=False)

    def of(self, fingerprint: str) -> float:
        """Return the threshold of faces whose vectors are by the encoder of that fingerprint."""
        return self.older.get(fingerprint, self.sq_dist)

    @property
    def largest(self) -> float:
        """The threshold of the most lenient of the encoders."""
        return max(self.sq_dist, *self.older.values()) if self.older else self.sq_dist

    @property
    def false_matches(self) -> float | None:
        """How many faces of other people a stranger is expected to match: -ln(1 - `strangers`), at most `faces`.

        Matches of a stranger are taken to be Poisson: independent, and each of them rare. None if nothing tells.
        """
        if self.strangers is None:
            return None
        return min(-math.log1p(-self.strangers), float(self.faces)) if self.strangers < 1 else float(self.faces)

    def cost(self) -> str:
        """Say in a sentence how many strangers find a match, and how many false matches if they are not rare.

        Of two photos, which meet no gallery, it says how many pairs of different people match.
        """
        if self.kind == "far" and not self.faces and self.strangers is None:
            return f"At this threshold {_short(100 * (self.rate or 0))} % of pairs of different people match."
        if self.strangers is None or self.false_matches is None:
            return "Nothing tells how many strangers find a match at this threshold; run facenet calibrate."
        rate = f", {self.kind}={self.rate:g}," if self.kind == "far" else ""
        among = "this one face" if self.faces == 1 else f"these {self.faces:,} faces"
        often = self.false_matches >= OFTEN and self.faces > 1
        more = f", and a stranger matches {_short(self.false_matches)} of them on average" if often else ""
        share = f"{_short(100 * self.strangers)} %"
        return f"At this threshold{rate} {share} of strangers find a match among {among}{more}."

    def named(self) -> str:
        """Name the threshold by what was asked for: "threshold", or for instance "threshold at fpir=0.05"."""
        return self.kind if self.rate is None else f"threshold at {self.kind}={self.rate:g}"

    def plain(self) -> dict[str, Any]:
        """Return plain values for ``metrics.json``."""
        expected = {"expected_strangers_accepted": self.strangers, "expected_right": self.right}
        older = {"thresholds_of_older": {name[:12]: value for name, value in self.older.items()}} if self.older else {}
        rate = {} if self.rate is None else {self.kind: self.rate}
        named = {"rate_kind": self.kind, **rate, "faces": self.faces, "threshold_from": self.source}
        return {"threshold": self.sq_dist, **older, **named, **expected}

    def others(self) -> list[SearchThreshold]:
        """Return what the rates of `FPIRS` would give; [] if nothing tells."""
        try:
            return [] if self.basis is None else [_threshold_at("fpir", rate, self.basis) for rate in FPIRS]
        except DataError:
            return []

    def plain_others(self) -> list[dict[str, float | None]]:
        """Return the costs of the rates of `FPIRS` as plain values for ``metrics.json``."""
        return [
            {"fpir": one.rate, "threshold": one.sq_dist, "expected_strangers_accepted": one.strangers,
             "expected_right": one.right}
            for one in self.others()
        ]  # fmt: skip


def search_threshold(
    faces: Mapping[str, int],
    fingerprint: str,
    tails: Mapping[str, Tail],
    own: OwnPeople | None = None,
    *,
    fpir: float | None = None,
    far: float | None = None,
    threshold: float | None = None,
) -> SearchThreshold:
    """Return the threshold of a search, for each encoder whose vectors the gallery holds.

    Every face gets the same share of the rate: far = 1 - (1 - fpir)^(1 / N).

    Args:
        faces: How many faces of each encoder a query is compared with, by fingerprint.
        fingerprint: The encoder of the queries.
        tails: Calibrated tails FAR(t) of distances from a query to a face of that encoder, by fingerprint.
        own: What the gallery's own people tell about the faces of the queries' encoder.
        fpir: Share of strangers who get any match. At most one of fpir, far and threshold is given; without one 0.05.
        far: Share of pairs of different people that match.
        threshold: The squared distance itself.

    Raises:
        ConfigError: several of fpir, far and threshold, or one out of range.
        DataError: no calibration, and too few people in the gallery to do without.
    """
    chosen = choose_rate(fpir=fpir, far=far, threshold=threshold)
    here = {name: count for name, count in faces.items() if count}
    return _threshold_at(*chosen, Basis(here, fingerprint, tails, own))


def _threshold_at(kind: str, value: float, basis: Basis) -> SearchThreshold:
    here, fingerprint, tails, own = basis
    count = sum(here.values())
    if kind == "threshold":
        at, source = dict.fromkeys(here, value), "given"
    else:
        each = value if kind == "far" else 1 - (1 - value) ** (1 / max(count, 1))
        at, source = _at_rate(each, here, fingerprint, tails, own if kind == "fpir" else None)
    main = at.pop(fingerprint, None)
    if main is None and kind == "threshold":  # no face of the queries' own encoder
        main = value
    elif main is None:
        main = tails[fingerprint].sq_dist(each) if fingerprint in tails else max(at.values(), default=0.0)
    found = SearchThreshold(main, at, kind, None if kind == "threshold" else value, count, source, basis=basis)
    return _with_costs(found, basis)


def pair_threshold(
    calibrated: Callable[[float], float], *, far: float | None = None, threshold: float | None = None
) -> SearchThreshold:
    """Return up to which sq_dist two photos show one person; `calibrated` maps a rate to it, by default at 0.001.

    Raises:
        ConfigError: both are given, or one is out of range.
        DataError: the rate is not calibrated.
    """
    kind, value = choose_rate(("far", FAR), far=far, threshold=threshold)
    return SearchThreshold(value) if kind == "threshold" else SearchThreshold(calibrated(value), kind=kind, rate=value)


def choose_rate(default: tuple[str, float] = ("fpir", FPIR), **given: float | None) -> tuple[str, float]:
    """Return which of fpir, far and threshold is `given`, and its value, or the default.

    Raises:
        ConfigError: several are given, or one is out of range.
    """
    chosen = {name: value for name, value in given.items() if value is not None} or dict([default])
    if len(chosen) > 1:
        raise ConfigError(f"{' and '.join(chosen)} each choose the threshold; pass one of them")
    ((kind, value),) = chosen.items()
    if not (0 <= value <= 4 if kind == "threshold" else 0 < value < 1):
        allowed = "in [0, 4]" if kind == "threshold" else "above 0 and below 1"
        raise ConfigError(f"{kind}: expected a number {allowed}, got {value}")
    return kind, value


def _at_rate(
    each: float, faces: Mapping[str, int], fingerprint: str, tails: Mapping[str, Tail], own: OwnPeople | None
) -> tuple[dict[str, float], str]:
    """Return the thresholds at which each face accepts that share of strangers, and what they are derived from."""
    at, sources = {}, []
    for name in faces:
        if name == fingerprint and own is not None:
            rate = _shared(each, own.faces)
            at[name] = own.sq_dist(rate)
            foreign = _foreign(tails[name].sq_dist(each), rate, own) if name in tails else ""
            sources.append(f"{own.people} people of the gallery{_few(rate, own)}{foreign}")
        elif name in tails:
            at[name] = tails[name].sq_dist(each)
            whose = "the calibration" if name == fingerprint else f"the calibration with encoder {name[:12]}"
            sources.append(f"{whose}, far {each:.2g} of {sum(faces.values())} faces{_beyond(tails[name], each)}")
        elif fingerprint in tails:
            at[name] = tails[fingerprint].sq_dist(each)
            sources.append(
                f"the encoder's own calibration for faces of encoder {name[:12]}, which may not fit; run"
                " facenet compat with encoder= to calibrate the two together"
            )
        else:
            raise DataError(
                f"threshold: encoder {fingerprint[:12]} has no calibration, and the gallery has too few people of its"
                " own; run facenet calibrate, or pass threshold=SQ_DIST"
            )
    return at, "; ".join(sources) or "no face"


def _few(rate: float, own: OwnPeople) -> str:
    """Say that a rate rests on the fitted tail, because fewer than ten of the people come so near to others."""
    if rate * own.people >= 10:
        return ""
    least = own.by_person.least
    return ", extrapolated" if rate >= least else f", extrapolated to a share of {least:.1g} and stopped there"


def _foreign(calibrated: float, rate: float, own: OwnPeople) -> str:
    """Say that a calibration was made on other faces than the gallery's: its threshold lets far more strangers in."""
    found = own.fpir(calibrated)
    if found <= FOREIGN * rate:
        return ""
    return f"; the encoder's calibration would let in {found:.0%}: it is of other faces, run facenet calibrate on yours"


def _short(value: float) -> str:
    """Return a number with two digits that count, never as a power of ten above 1."""
    return f"{float(f'{value:.2g}'):,g}"


def _shared(each: float, count: int) -> float:
    """Return the share of strangers whom `count` faces accept that accept the share `each` one by one."""
    return float(1 - (1 - each) ** count)


def _with_costs(found: SearchThreshold, basis: Basis) -> SearchThreshold:
    """Add the expected shares of strangers let in and of right people kept."""
    faces, fingerprint, tails, own = basis
    rejected: float | None = 1.0
    for name, count in faces.items():
        if name == fingerprint and own is not None:
            accepted = 1 - (1 - own.fpir(found.of(name))) ** (count / own.faces)
        elif name in tails:
            accepted = _shared(tails[name].share(found.of(name)), count)
        else:
            rejected = None
            break
        rejected = (rejected or 0.0) * (1 - accepted)
    right = own.right.share(found.sq_dist) if own is not None and own.right is not None else None
    return replace(found, strangers=None if rejected is None else 1 - rejected, right=right)
