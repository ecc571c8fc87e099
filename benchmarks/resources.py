"""Threads and memory of what is measured, and calls in processes of their own."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.profiler import profile

STATUS = Path("/proc/self/status")


@contextmanager
def limited_threads(count: int | None) -> Iterator[int]:
    """Hold torch, NumPy's BLAS and OpenMP to a number of threads; None is what torch takes. Yields the number."""
    import torch
    from threadpoolctl import threadpool_limits  # comes with scikit-learn

    before = torch.get_num_threads()
    count = count or before
    torch.set_num_threads(count)
    try:
        with threadpool_limits(limits=count):
            yield count
    finally:
        torch.set_num_threads(before)


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def environment(temporary: str = "") -> dict[str, str]:
    """Return the environment of a child process: it imports what this one does, with `temporary` as TMPDIR if given."""
    paths = os.pathsep.join(path for path in sys.path if path)
    return {**os.environ, "PYTHONPATH": paths} | ({"TMPDIR": temporary} if temporary else {})


def in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a module's function returns in a process of its own, in which no freed memory hides what it takes.

    Arguments and result are plain values, which travel as JSON.

    Raises:
        subprocess.CalledProcessError: the process failed; `stderr` says why.
    """
    call = f"from {function.__module__} import {function.__name__} as call"
    code = f"import json, sys; {call}; print(json.dumps(call(*json.loads(sys.argv[1]))))"
    command = [sys.executable, "-c", code, json.dumps(arguments)]
    done = subprocess.run(command, env=environment(), check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def extra_bytes(function: Callable[..., int], *arguments: Any) -> int | None:
    """Return what :func:`in_fresh_process` returns, or None if the system has no /proc, which memory is read from."""
    return int(in_fresh_process(function, *arguments)) if STATUS.exists() else None


def peak_above(call: Callable[[], object]) -> int:
    """Return the peak resident memory of a call above the level before it, in bytes.

    The process must be a fresh one, and have loaded what the call loads.
    """
    with suppress(OSError, AttributeError):  # freed memory must not hide what the call takes
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = status_bytes("VmRSS")
    call()
    return status_bytes("VmHWM") - before


@contextmanager
def watched_peak(name: str, every: float = 0.005) -> Iterator[list[int]]:
    """Look at a memory figure of this process every few milliseconds; the list holds the largest at the end.

    The system keeps the peak of the resident memory alone, in which files that are mapped count too.
    """
    most, ended = [status_bytes(name)], threading.Event()

    def watch() -> None:
        while not ended.wait(every):
            most[0] = max(most[0], status_bytes(name))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield most
    finally:
        ended.set()
        watcher.join()


def status_bytes(name: str) -> int:
    """Return a memory figure of this process, such as VmRSS, in bytes."""
    lines = STATUS.read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def quiet_profile(**options: Any) -> profile:
    """Return torch's profiler with some options. It does not report on itself."""
    from torch.profiler import profile

    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    return profile(**options)
