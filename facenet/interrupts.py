"""Signals that stop a command: it ends with exit code 128 + the signal's number, at once or after the current step.

Schedulers send SIGTERM some seconds before they take a machine away; Ctrl-C sends SIGINT. SLURM and submitit warn with
SIGUSR1 or SIGUSR2 minutes before the time of a job is over. Python delivers signals to the main thread only. In another
thread the blocks below install no handlers.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

WARNINGS = tuple(getattr(signal, name) for name in ("SIGUSR1", "SIGUSR2") if hasattr(signal, name))  # not on Windows
SIGNALS = (signal.SIGTERM, signal.SIGINT, *WARNINGS)
GRACE = 60  # seconds; schedulers usually give 30


class Interrupted(SystemExit):
    """A signal ends the command with exit code 128 + `signum`; `text` is the line that is printed for it."""

    def __init__(self, signum: int, *, at: str = "") -> None:
        super().__init__(128 + signum)
        self.signum = signum
        self.text = f"stopped by {signal.Signals(signum).name}{at}"


class StopRequest:
    """Signal handler that remembers the first signal in `signum`; a second SIGTERM or SIGINT raises Interrupted.

    A warning (SIGUSR1, SIGUSR2) cuts nothing: the SIGTERM that follows it still lets the current step end.
    """

    def __init__(self) -> None:
        self.signum = 0
        self.interrupted: Interrupted | None = None  # what the second signal raised

    def __call__(self, signum: int, frame: Any) -> None:
        """Handle a signal."""
        if self.signum and signum in WARNINGS:
            return
        if self.signum and self.signum not in WARNINGS:
            for each in SIGNALS:
                signal.signal(each, signal.SIG_DFL)  # a third signal ends the process without Python
            self.interrupted = Interrupted(signum, at=" at once, nothing more was saved")
            raise self.interrupted
        self.signum = signum


@contextlib.contextmanager
def raise_on_signal() -> Iterator[None]:
    """Raise Interrupted on a signal within the block, so that open files are closed and half-written ones removed."""
    with _handlers(_raise_interrupted):
        yield


@contextlib.contextmanager
def defer_signals(request: StopRequest) -> Iterator[None]:
    """Let a first signal only set ``request.signum``; Interrupted is raised at the end of the block.

    A second signal cuts a library anywhere. An error that the library then raises is replaced by Interrupted. If the
    program around has a handler for a warning, as submitit has, which requeues its job, that handler is called before.
    """
    with _handlers(request) as before:
        try:
            yield
        except Interrupted as stop:
            _pass_on(stop.signum, before)
            raise
        except Exception:
            if request.interrupted is not None:
                raise request.interrupted from None
            raise
    if request.signum:
        _pass_on(request.signum, before)
        raise Interrupted(request.signum)


def _pass_on(signum: int, handlers: Mapping[int, Any]) -> None:
    handler = handlers.get(signum)
    if signum in WARNINGS and callable(handler) and handler is not _raise_interrupted:
        handler(signum, None)


def reinstall_handlers(request: StopRequest) -> None:
    """Install `request` again within :func:`defer_signals`, after a library has installed handlers of its own."""
    if threading.current_thread() is threading.main_thread():
        for each in SIGNALS:
            signal.signal(each, request)


def init_worker_signals(worker: int, *, grace: int = GRACE) -> None:
    """Let a loader worker outlive the signals that a scheduler or a terminal sends to every process of a job.

    The main process still needs the worker for its current step and then ends it. If it does not, the worker ends
    `grace` seconds after SIGTERM. `worker` is the worker's number, which a DataLoader passes to its `worker_init_fn`.
    """
    for each in (signal.SIGINT, *WARNINGS):
        signal.signal(each, signal.SIG_IGN)
    if sys.platform != "win32":
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(grace))


@contextlib.contextmanager
def thread_pool(workers: int | None = None) -> Iterator[ThreadPoolExecutor]:
    """Open a thread pool; if an error or a signal ends the block, the tasks that have not begun are cancelled."""
    pool = ThreadPoolExecutor(workers)
    try:
        yield pool
    except BaseException:
        pool.shutdown(cancel_futures=True)
        raise
    pool.shutdown()


def _raise_interrupted(signum: int, frame: Any) -> None:
    raise Interrupted(signum)


@contextlib.contextmanager
def _handlers(handler: Callable[[int, Any], None]) -> Iterator[dict[int, Any]]:
    """Install a handler for SIGNALS and restore the earlier ones, which are yielded, at the end."""
    if threading.current_thread() is not threading.main_thread():
        yield {}
        return
    before: dict[int, Any] = {each: signal.signal(each, handler) for each in SIGNALS}
    try:
        yield before
    finally:
        for each, old in before.items():
            signal.signal(each, signal.SIG_DFL if old is None else old)
