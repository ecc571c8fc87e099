"""How many may wait for something, and for how long."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from typing import Any, TypeVar

from facenet.service.problems import too_busy, too_late

DEADLINE: ContextVar[float] = ContextVar("deadline", default=float("inf"))  # of the request, on time.monotonic
T = TypeVar("T")


class Places:
    """A bounded number of places; used by one event loop."""

    def __init__(self, most: int, full: str) -> None:
        """Begin with all places free; `full` tells why there is none, and may name {count}."""
        self.most, self.full = most, full
        self.taken = 0

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """Take a place within the block.

        Raises:
            Problem: there is none.
        """
        if self.taken >= self.most:
            raise too_busy(self.full.format(count=self.taken))
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1


async def run_in(pool: ThreadPoolExecutor, work: Callable[..., T], *values: Any, seconds: float) -> T:
    """Run blocking work in a pool, unless the time of the request is up before it begins.

    Raises:
        Problem: the time is up.
    """

    def begin() -> T:
        check_deadline(seconds)
        return work(*values)

    return await asyncio.get_running_loop().run_in_executor(pool, copy_context().run, begin)


def check_deadline(seconds: float) -> None:
    """Raise Problem if the time of the request is up, in work that takes long."""
    if time.monotonic() > DEADLINE.get():
        raise too_late(seconds)
