"""What signals do; with real processes: tests/training/test_stop.py and tests/commands/test_launch.py."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from facenet.interrupts import Interrupted, StopRequest, defer_signals, raise_on_signal, reinstall_handlers, thread_pool
from tests.helpers import ROOT


def send(signum: int) -> None:
    os.kill(os.getpid(), signum)
    time.sleep(0.01)  # handlers run between two instructions


@pytest.mark.parametrize(
    ("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 138), (signal.SIGUSR2, 140)]
)
def test_a_signal_ends_a_command_at_once(signum: signal.Signals, code: int) -> None:
    before = signal.getsignal(signum)
    with pytest.raises(Interrupted) as stop, raise_on_signal():
        send(signum)
    assert stop.value.code == code
    assert stop.value.text == f"stopped by {signum.name}"
    assert signal.getsignal(signum) is before


def test_a_first_signal_waits_and_a_second_does_not() -> None:
    request, reached = StopRequest(), []
    before = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]

    def work() -> None:
        with defer_signals(request):
            send(signal.SIGTERM)
            reached.append(request.signum)
            send(signal.SIGINT)
            reached.append(0)

    with pytest.raises(Interrupted) as stop:
        work()
    assert reached == [signal.SIGTERM]
    assert stop.value.code == 130
    assert "at once" in stop.value.text
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)] == before


def test_a_warning_cuts_nothing_and_neither_does_the_signal_it_warned_of() -> None:
    request, reached = StopRequest(), []

    def work() -> None:
        with defer_signals(request):
            for each in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGUSR1):
                send(each)
                reached.append(request.signum)
            send(signal.SIGTERM)
            reached.append(0)

    with pytest.raises(Interrupted) as stop:
        work()
    assert reached == [signal.SIGUSR1, signal.SIGUSR1, signal.SIGTERM, signal.SIGTERM]
    assert "at once" in stop.value.text


@pytest.mark.parametrize("stopped", [True, False])
def test_a_handler_of_the_program_around_is_called_at_the_end(stopped: bool) -> None:
    """That of submitit, which requeues its job."""
    requeued: list[str] = []
    before = signal.signal(signal.SIGUSR2, lambda number, frame: requeued.append("requeued"))

    def work() -> None:
        with defer_signals(StopRequest()):
            send(signal.SIGUSR2)
            requeued.append("saved")
            if stopped:
                raise Interrupted(signal.SIGUSR2)

    try:
        with pytest.raises(Interrupted) as stop:
            work()
        with pytest.raises(Interrupted), raise_on_signal(), defer_signals(StopRequest()):
            send(signal.SIGUSR2)
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert stop.value.code == 140
    assert requeued == ["saved", "requeued"], "once; the handler of a command is not passed on to"


def test_a_signal_that_nobody_asked_for_is_raised_at_the_end() -> None:
    reached = []

    def work() -> None:
        with defer_signals(StopRequest()):
            send(signal.SIGTERM)
            reached.append(True)

    with pytest.raises(Interrupted) as stop:
        work()
    assert reached
    assert stop.value.code == 143


def test_signals_that_were_taken_away_are_taken_back() -> None:
    request = StopRequest()

    def work() -> None:
        with defer_signals(request):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            reinstall_handlers(request)
            send(signal.SIGTERM)

    with pytest.raises(Interrupted):
        work()
    assert request.signum == signal.SIGTERM


def test_another_thread_leaves_signals_alone() -> None:
    before, seen = signal.getsignal(signal.SIGTERM), []

    def inside() -> None:
        with raise_on_signal(), defer_signals(StopRequest()):
            reinstall_handlers(StopRequest())
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert seen == [before]


def test_a_worker_outlives_signals_for_a_while() -> None:
    code = (
        "import time\nfrom facenet import interrupts\ninterrupts.init_worker_signals(0, grace=1)\n"
        "print('here', flush=True)\nfor second in range(50): time.sleep(0.2); print(second, flush=True)"
    )
    own = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=own) as worker:
        assert worker.stdout is not None
        worker.stdout.readline()
        for each in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM):
            worker.send_signal(each)
        assert worker.stdout.readline() == b"0\n"
        assert worker.wait(timeout=20) == -signal.SIGALRM


def test_threads_leave_what_they_have_not_begun() -> None:
    done: list[int] = []

    def work() -> None:
        with raise_on_signal(), thread_pool(1) as pool:
            for number in pool.map(lambda number: (time.sleep(0.02), done.append(number), number)[2], range(1000)):
                if number == 2:
                    send(signal.SIGTERM)

    with pytest.raises(Interrupted):
        work()
    assert len(done) < 100
    with thread_pool(2) as pool:
        assert list(pool.map(abs, [-1, -2])) == [1, 2]


def test_an_error_after_the_second_signal_is_that_signal() -> None:
    """Lightning flushes its logs after any exception; one that was cut while it closed is closed already."""

    @defer_signals(StopRequest())
    def closing() -> None:
        try:
            for _ in range(2):
                send(signal.SIGTERM)
        except Interrupted:
            raise OSError("Writer is closed") from None

    with pytest.raises(Interrupted) as stop:
        closing()
    assert stop.value.code == 128 + signal.SIGTERM
