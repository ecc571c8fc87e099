"""What a command prints and writes, and which process does: tables, ``metrics.json``, progress, errors in one line."""

from __future__ import annotations

import contextlib
import math
import os
import select
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facenet.errors import FacenetError
from facenet.files import write_json

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

PIPE_WIDTH = 1_000_000  # columns that a table may have in a file or a pipe: no cell is cut
PIPE_CLOSED = 141  # exit code of a command whose output nobody reads any more, as of SIGPIPE
REDRAW = 0.1  # seconds between two pictures of a bar
SHORTEST = 1.0  # seconds of work that tell a rate


def is_first_rank() -> bool:
    """Whether this process is on its own or rank 0 of a distributed job, and so the one that writes and reports."""
    given = os.environ
    if "RANK" in given:  # torchrun
        return int(given["RANK"]) == 0
    if "LOCAL_RANK" in given or "NODE_RANK" in given:  # started by Lightning, which trusts these before SLURM's
        return not int(given.get("LOCAL_RANK", 0)) and not int(given.get("NODE_RANK", 0))
    tasks = int(given.get("SLURM_NTASKS", 1)) if given.get("SLURM_JOB_NAME") not in ("bash", "interactive") else 1
    return tasks == 1 or int(given.get("SLURM_PROCID", 0)) == 0


def table(rows: Sequence[Sequence[Any]], *, header: Sequence[str] = (), title: str = "") -> None:
    """Print rows as one aligned table; numbers are right-aligned and floats get four decimals.

    A terminal folds long cells. A file or a pipe gets each row as one line, as wide as its content.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    grid = Table(show_header=bool(header), box=box.SIMPLE_HEAD)
    width = max((len(row) for row in rows), default=len(header))
    for column in range(max(width, len(header))):
        cells = [row[column] for row in rows if column < len(row)]
        right = bool(cells) and all(isinstance(cell, int | float) for cell in cells)
        name = header[column] if column < len(header) else ""
        grid.add_column(name, justify="right" if right else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(format_cell(cell) for cell in row))
    if title:
        print(title)
    if sys.stdout.isatty():
        Console(markup=False, highlight=False).print(grid)
        return
    console = Console(markup=False, highlight=False, width=PIPE_WIDTH)
    with console.capture() as captured:
        console.print(grid)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))


def format_cell(value: Any) -> str:
    """Format one cell: None is a dash, floats get four decimals, or four digits if they are very small or large.

    >>> format_cell(0.98765432), format_cell(1234567), format_cell(None)
    ('0.9877', '1234567', '-')
    """
    if value is None:
        return "-"
    if isinstance(value, float):
        if not math.isfinite(value):
            return str(value)
        return f"{value:.4f}" if 1e-3 <= abs(value) < 1000 or value == 0 else f"{value:.4g}"
    return str(value)


def flatten(metrics: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """List the leaves of nested metrics with dotted names, lists left out.

    >>> flatten({"verification": {"accuracy": 0.9, "folds": [1, 2]}, "seconds": 3})
    [('verification.accuracy', 0.9), ('seconds', 3)]
    """
    rows: list[tuple[str, Any]] = []
    for key, value in metrics.items():
        if isinstance(value, Mapping):
            rows += flatten(value, f"{prefix}{key}.")
        elif not isinstance(value, list | tuple):
            rows.append((f"{prefix}{key}", value))
    return rows


def write_metrics(folder: str | Path, metrics: Mapping[str, Any]) -> Path:
    """Write ``metrics.json`` in `folder`: plain numbers in nested objects; not-finite values become null."""
    path = Path(folder) / "metrics.json"
    write_json(path, plain(metrics))
    return path


def plain(value: Any) -> Any:
    """Turn numpy scalars and arrays, paths, named tuples and mappings into what JSON knows."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if hasattr(value, "_asdict"):
        return plain(value._asdict())
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn an error a user can mend into one line on standard error and its exit code (2 options, 3 data)."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read the output has gone, as `| head` does
        if not _reader_has_gone():  # another pipe
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(PIPE_CLOSED) from None
    except FacenetError as error:
        text = " ".join(str(error).split())
        print(f"error: {text}", file=sys.stderr)
        raise SystemExit(error.exit_code) from error


def _reader_has_gone() -> bool:
    """Whether standard output is a pipe that nobody reads any more."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), select.POLLOUT)
    except (OSError, ValueError):  # no file, as in a notebook
        return False
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


class ProgressReport:
    """How far long work is: a bar on a terminal, else a line now and then. Made by :func:`progress`."""

    def __init__(
        self, bar: Bar | None, say: Callable[[str], None] | None, what: str, seconds: tuple[float, float]
    ) -> None:
        self._bar, self._say, self._what, self._seconds = bar, say, what, seconds
        self._task = bar.add_task(what, total=None, figures="") if bar else None
        self._started = self._last = time.monotonic()
        self._first, self._tenth, self._lines, self._done = -1, -1, 0, 0
        if bar:
            bar.start()

    def __call__(self, done: int, total: int, **figures: str) -> None:
        """Report that `done` of `total` parts are done; `figures` are shown behind, as name and value."""
        if self._bar is not None and self._task is not None:
            text = " ".join(f"{name} {value}" for name, value in figures.items())
            self._bar.update(self._task, completed=done, total=total, figures=text)
            if time.monotonic() - self._last >= REDRAW or done >= total:
                self._bar.refresh()
                self._last = time.monotonic()
        elif self._say is not None:
            now, (least, most) = time.monotonic(), self._seconds
            if self._first < 0 or done < self._done:  # a run that goes on begins with what is done; so does a next part
                self._started, self._first, self._tenth = now, done, 10 * max(0, done - 1) // max(1, total)
            self._done = done
            tenth, waited = 10 * done // max(1, total), now - self._last
            if waited >= (most if self._lines else most / 3) or (tenth > self._tenth and waited >= least):
                text = ", ".join(f"{name} {value}" for name, value in figures.items())
                self._say(f"{self._what}: {done} of {total}{self._speed(done, total)}" + (f": {text}" if text else ""))
                self._last, self._tenth, self._lines = now, tenth, self._lines + 1

    def _speed(self, done: int, total: int) -> str:
        """Return the rate since the first report and the time that is left, once they can be told."""
        seconds = time.monotonic() - self._started
        if done <= self._first or seconds < SHORTEST:
            return ""
        rate = (done - self._first) / seconds
        return f", {rate:.3g} a second, {duration((total - done) / rate)} left"

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()

    def __enter__(self) -> ProgressReport:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def duration(seconds: float) -> str:
    """Return a time in the unit that fits it.

    >>> duration(42.4), duration(500), duration(9000)
    ('42 s', '8 min', '2.5 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def progress(
    what: str,
    *,
    enabled: bool = True,
    seconds: tuple[float, float] = (5.0, 30.0),
    say: Callable[[str], None] | None = None,
) -> ProgressReport:
    """Show how far long work is; call the result with (done, total), and close it or use it with ``with``.

    If standard error is a terminal there is a bar with the remaining time. Otherwise `say` prints one line for each
    tenth of the work, by default to standard error, with the rate and the time left. `seconds` bounds the time between
    two lines: no line comes before the first bound, and after the second (a third of it at the beginning) the next call
    prints one. A first call with what is done already makes the rate exact. A call with less than before begins the
    next part of the work.
    """
    if not enabled:
        return ProgressReport(None, None, what, seconds)
    if not sys.stderr.isatty():
        return ProgressReport(None, say or _print_error_line, what, seconds)
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        *(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()),
        TextColumn("{task.fields[figures]}"),
    )
    # no refreshing thread: a process that loads batches is forked, and would inherit that thread's lock
    bar = Progress(*columns, console=Console(stderr=True), transient=True, auto_refresh=False)
    return ProgressReport(bar, None, what, seconds)


def _print_error_line(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
