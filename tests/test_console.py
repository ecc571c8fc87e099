from __future__ import annotations

import io
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from facenet.console import flatten, format_cell, is_first_rank, one_line_errors, plain, progress, table, write_metrics
from facenet.errors import ConfigError, DataError
from facenet.files import read_json


class Point(NamedTuple):
    x: float


def test_metrics_are_plain_json(tmp_path: Path) -> None:
    path = write_metrics(tmp_path, {"a": {"b": np.float32(0.5), "nan": float("nan")}, "c": np.arange(2), "p": Point(1)})
    assert read_json(path) == {"a": {"b": 0.5, "nan": None}, "c": [0, 1], "p": {"x": 1}}


@pytest.mark.parametrize(("error", "code"), [(ConfigError("a\n b"), 2), (DataError("a\n b"), 3)])
def test_an_error_is_one_line_and_a_code(error: Exception, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped, one_line_errors():
        raise error
    assert stopped.value.code == code
    assert capsys.readouterr().err == "error: a b\n"


def test_a_reader_that_leaves_ends_a_command_quietly() -> None:
    code = (
        "from facenet.console import one_line_errors\n"
        "with one_line_errors():\n    for number in range(100_000): print(number)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as job:
        assert job.stdout is not None
        assert job.stderr is not None
        job.stdout.readline()
        job.stdout.close()
        assert job.stderr.read() == b""
    assert job.returncode == 141
    with pytest.raises(BrokenPipeError), one_line_errors():
        raise BrokenPipeError("of a worker")


def test_bugs_are_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError), one_line_errors():
        _ = 1 / 0


def test_table_prints_every_cell(capsys: pytest.CaptureFixture[str]) -> None:
    table([("accuracy", 0.98765), ("path", "[red]x")], header=("metric", "value"), title="verify")
    out = capsys.readouterr().out
    assert "0.9877" in out
    assert "[red]x" in out
    assert "metric" in out
    assert all(line == line.rstrip() for line in out.splitlines()), "a pipe gets no padding"


def test_a_piped_table_is_as_wide_as_its_content(capsys: pytest.CaptureFixture[str]) -> None:
    title = "a title that is wider than its table"
    table([("a", 1.5), ("b", "x" * 300)], header=("name", "value"), title=title)
    table([("loss", 0.25)])
    first, blank, head, rule, *rows = capsys.readouterr().out.splitlines()
    assert (first, blank) == (title, ""), "on one line, at the left"
    assert rows[:2] == ["  a      1.5000", f"  b      {'x' * 300}"], "no cell is cut"
    assert len(rule) <= len(rows[1]) + 2
    assert rows[-2] == "  loss   0.2500"
    assert head == "  name   value"


def test_cells_and_flatten() -> None:
    assert format_cell(0.00001234) == "1.234e-05"
    assert flatten({"a": {"b": 1, "c": [1]}}) == [("a.b", 1)]
    assert plain(Path("x")) == "x"


def told(capsys: pytest.CaptureFixture[str], counts: range, **options: Any) -> list[str]:
    with progress("embedding", **options) as report:
        for done in counts:
            report(done, counts.stop - 1, loss=f"{done / 10:.1f}")
    return capsys.readouterr().err.splitlines()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that shows what it holds."""
    now = [100.0]
    monkeypatch.setattr("facenet.console.time.monotonic", lambda: now[0])
    return now


def test_a_line_for_each_tenth_off_a_terminal(capsys: pytest.CaptureFixture[str], clock: list[float]) -> None:
    lines = told(capsys, range(1, 41), seconds=(0, 30))
    assert lines == [f"embedding: {done} of 40: loss {done / 10:.1f}" for done in range(4, 41, 4)]
    assert len(told(capsys, range(1, 5), seconds=(0, 30))) == 4, "four parts, four lines"
    assert told(capsys, range(30, 41), seconds=(0, 30))[0].startswith("embedding: 32 of 40"), "a run that goes on"
    assert told(capsys, range(1, 41), enabled=False, seconds=(0, 30)) == []
    assert told(capsys, range(1, 41)) == [], "short work is silent"


def test_long_work_says_its_rate_after_ten_seconds_then_every_thirty(
    capsys: pytest.CaptureFixture[str], clock: list[float]
) -> None:
    with progress("aligning") as report:
        report(500, 6500)  # a run that goes on
        for done in range(501, 1101):
            clock[0] += 0.25
            report(done, 6500)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "aligning: 540 of 6500, 4 a second, 25 min left"
    done = [int(line.split()[1]) for line in lines]
    assert done == [540, 650, 770, 890, 1010], "after 10 s, at a tenth, then every 30 s"


def test_the_next_part_of_a_work_has_its_own_rate(capsys: pytest.CaptureFixture[str], clock: list[float]) -> None:
    with progress("decoding", seconds=(0, 30)) as report:
        for total, each in ((10, 1.0), (4, 5.0)):
            for done in range(1, total + 1):
                clock[0] += each
                report(done, total)
    lines = capsys.readouterr().err.splitlines()
    assert lines[9:] == [
        "decoding: 10 of 10, 1 a second, 0 s left",
        "decoding: 1 of 4",
        "decoding: 2 of 4, 0.2 a second, 10 s left",
        "decoding: 3 of 4, 0.2 a second, 5 s left",
        "decoding: 4 of 4, 0.2 a second, 0 s left",
    ]


def test_long_work_is_never_silent(capsys: pytest.CaptureFixture[str]) -> None:
    said: list[str] = []
    assert told(capsys, range(1, 101), seconds=(60, 0), say=said.append) == []
    assert len(said) == 100, "each call comes after the longest silence"


def test_a_terminal_gets_a_bar_that_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with progress("embedding") as report:
        for done in range(3):
            report(done, 2, loss="0.5")
        assert not [thread for thread in threading.enumerate() if "Refresh" in type(thread).__name__]
    shown = terminal.getvalue()
    assert "embedding" in shown
    assert "2/2" in shown
    assert "loss 0.5" in shown
    assert shown.rstrip().endswith("\x1b[2K"), "the line is cleared at the end"


@pytest.mark.parametrize(
    ("given", "first"),
    [
        ({}, True),
        ({"RANK": "1", "LOCAL_RANK": "0"}, False),  # torchrun, the first of the second node
        ({"RANK": "0", "LOCAL_RANK": "0"}, True),
        ({"LOCAL_RANK": "1"}, False),
        ({"NODE_RANK": "1"}, False),  # Lightning's own start on a second node
        ({"NODE_RANK": "1", "LOCAL_RANK": "0"}, False),
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "1"}, False),
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "0"}, True),
        ({"SLURM_NTASKS": "1", "SLURM_PROCID": "1"}, True),
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "1", "SLURM_JOB_NAME": "bash"}, True),  # a shell inside an allocation
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "0", "LOCAL_RANK": "1"}, False),  # and ranks started from it
    ],
    ids=str,
)
def test_one_process_of_a_job_writes(given: dict[str, str], first: bool, monkeypatch: pytest.MonkeyPatch) -> None:

    for key in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_JOB_NAME"):
        monkeypatch.delenv(key, raising=False)
    for key, value in given.items():
        monkeypatch.setenv(key, value)
    assert is_first_rank() is first
