"""SIGTERM and SIGINT: a command ends with 128 + the signal's number, at once or where it is good to stop.

Schedulers send SIGTERM some seconds before they take a machine away; Ctrl-C is SIGINT.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)
GRACE = 60  # seconds; schedulers give 30 as a rule


class Interrupted(SystemExit):
    """A signal ends the command, with exit code 143 (SIGTERM) or 130 (SIGINT); `text` is the line that says so."""

    def __init__(self, signum: int, *, at: str = "") -> None:
        super().__init__(128 + signum)
        self.text = f"stopped by {signal.Signals(signum).name}{at}"


class Request:
    """Which signal asked to stop, if one did; the second ends the block at once, whatever it does."""

    def __init__(self) -> None:
        self.signum = 0

    def __call__(self, signum: int, frame: Any) -> None:
        """Take a signal."""
        if self.signum:
            for each in SIGNALS:
                signal.signal(each, signal.SIG_DFL)  # the third does not even ask Python
            raise Interrupted(signum, at=" at once, nothing more was saved")
        self.signum = signum


def stop_at_once(signum: int, frame: Any) -> None:
    """Handle a signal by raising Interrupted, so that what is open is closed and half-written files are removed."""
    raise Interrupted(signum)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let a signal raise Interrupted wherever the block stands. Signals reach the main thread alone; it alone sets."""
    with _handled_by(stop_at_once):
        yield


@contextlib.contextmanager
def postponed(request: Request) -> Iterator[None]:
    """Let a first signal wait until the block asks `request` for it, or ends; then Interrupted is raised."""
    with _handled_by(request):
        yield
    if request.signum:
        raise Interrupted(request.signum)


def reinstall(request: Request) -> None:
    """Take the signals again from who took them in the block."""
    if threading.current_thread() is threading.main_thread():
        for each in SIGNALS:
            signal.signal(each, request)


def leave_to_parent(*_: Any) -> None:
    """Let a loader worker outlive the signals that a scheduler or a terminal sends to all processes of a job.

    The process that started it needs it for the step that is being taken, then ends it; it ends `GRACE` seconds later.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform != "win32":
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(GRACE))


@contextlib.contextmanager
def thread_pool(workers: int | None = None) -> Iterator[ThreadPoolExecutor]:
    """Work in threads; where the block is left by an error or a signal, what has not been begun is not done."""
    pool = ThreadPoolExecutor(workers)
    try:
        yield pool
    except BaseException:
        pool.shutdown(cancel_futures=True)
        raise
    pool.shutdown()


@contextlib.contextmanager
def _handled_by(handler: Callable[[int, Any], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {each: signal.signal(each, handler) for each in SIGNALS}
    try:
        yield
    finally:
        for each, old in before.items():
            signal.signal(each, signal.SIG_DFL if old is None else old)
