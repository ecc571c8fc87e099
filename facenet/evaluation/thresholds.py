"""The threshold for a set of N faces, from calibrated false accept rates {far: sq_dist}.

A face of a set of N meets about far(t) N strangers within the threshold t. The rule keeps that number, `links`, and so
t falls as N grows: far(t) = links / N. Search, clustering and the service share the rule.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from facenet.errors import ConfigError, DataError

REACH = 10.0  # how far below the smallest calibrated rate the line through the last two is drawn


class Threshold(NamedTuple):
    """A threshold and where it came from."""

    sq_dist: float
    far: float  # the false accept rate asked for
    rule: str  # one line for people


def threshold_for(count: int, thresholds: Mapping[float, float], *, links: float) -> Threshold:
    """Return the threshold t at which a face meets `links` strangers among `count`: far(t) = links / count.

    Between calibrated rates {far: sq_dist} the threshold is linear in log(far). Above the largest rate it is that
    rate's. Below the smallest rate it follows the line through the two smallest for one decade, not below 0, and is
    constant from there. If only one rate is calibrated, it is constant at once. In the tail a decade less takes off
    ever less of the distance: the line errs on the side of fewer links. The threshold never rises with `count`.

    Raises:
        ConfigError: count < 1 or links <= 0.
        DataError: nothing is calibrated.
    """
    if count < 1 or not links > 0:
        raise ConfigError(f"threshold: expected at least one face and links above 0, got {count} and {links}")
    if not thresholds:
        raise DataError(
            "threshold: no calibrated rate; run scripts/verify.py calibrate=true, or pass sample=EMBEDDINGS"
        )
    far = links / count
    fars = np.asarray(sorted(thresholds))
    known = np.maximum.accumulate([thresholds[rate] for rate in fars])
    rule = f"{links:.3g} strangers a face: far {far:.2g} of {count} faces"
    if far > fars[-1]:
        return Threshold(float(known[-1]), far, f"{rule}, stopped at the largest calibrated rate, {fars[-1]:g}")
    if far >= fars[0]:
        return Threshold(float(np.interp(np.log(far), np.log(fars), known)), far, rule)
    if len(fars) == 1:
        return Threshold(float(known[0]), far, f"{rule}, stopped at the only calibrated rate, {fars[0]:g}")
    slope = (known[1] - known[0]) / np.log(fars[1] / fars[0])
    sq_dist = known[0] - slope * np.log(min(fars[0] / far, REACH))
    how = "extrapolated" if fars[0] / far <= REACH else f"extrapolated to {fars[0] / REACH:.2g} and stopped there,"
    return Threshold(max(0.0, float(sq_dist)), far, f"{rule}, {how} below the smallest calibrated rate, {fars[0]:g}")
