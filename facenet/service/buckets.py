"""Token buckets: how often somebody may ask."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from facenet.service.options import RateOptions

MOST = 10_000  # names that are remembered; who has not asked for the longest time is forgotten first


class TokenBuckets:
    """A bucket for each name: it holds `burst` tokens, a request takes one, and `per_second` come back."""

    def __init__(self, rate: RateOptions, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate, self._clock = rate, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, and when they were counted

    def take(self, name: str) -> float:
        """Take a token; returns 0, or the seconds until there is one."""
        if self.rate.per_second is None:
            return 0.0
        now = self._clock()
        tokens, before = self._buckets.pop(name, (float(self.rate.burst), now))
        tokens = min(self.rate.burst, tokens + (now - before) * self.rate.per_second)
        allowed = tokens >= 1
        self._buckets[name] = (tokens - allowed, now)
        if len(self._buckets) > MOST:
            self._buckets.popitem(last=False)
        return 0.0 if allowed else (1 - tokens) / self.rate.per_second
