"""Faults of checkpoints: killed writers, full disks, folders without rights. What was saved last must still be there.

A child saves checkpoint after checkpoint and reports each once it is saved. It is killed at a random moment.
Checkpoints lie in `folder`. If `temporary` names another file system, temporary files lie there.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import torch

from benchmarks.faults.options import CheckpointFaults
from benchmarks.faults.rights import close_folder
from benchmarks.gallery import on_another_file_system
from facenet.errors import DataError
from facenet.files import remove_abandoned
from facenet.interrupts import SIGNALS
from facenet.training.checkpoints import AtomicCheckpointIO

MOST_ALIVE = 0.15  # seconds after its first checkpoint at which a child is killed at the latest; one takes some 10 ms
DISK = 4 << 20  # bytes of a small disk
PAGE = 4096
LINES = 20  # of a child's standard error that are kept


def run(counts: CheckpointFaults, *, folder: str = "", temporary: str = "", seed: int = 0) -> dict[str, dict[str, int]]:
    """Play every fault so many times; returns counts of what went wrong, by fault."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="facenet-checkpoints-", dir=folder or None) as name:
        os.chmod(name, 0o755)  # noqa: PTH101 - for the rights test another user must get in
        places = [Path(name) / part for part in ("kills", "disk", "closed")]
        for place in places:
            place.mkdir()
        return {
            "checkpoint_kills": _kill(places[0], counts.kills, temporary, rng),
            "checkpoint_full_disks": _full_disks(places[1], counts.full_disks, rng),
            "checkpoint_read_only": _read_only(places[2], counts.read_only, rng),
        }


class Child:
    """A process that calls ``function(*arguments, report)`` and can be killed. What it reports is received here.

    The child is a fork of this process, which saves the seconds of its imports. After :meth:`end`, `errors` holds the
    last lines that it wrote to standard error.
    """

    errors = ""

    def __init__(self, function: Callable[..., None], *arguments: Any, temporary: str = "") -> None:
        context = multiprocessing.get_context("fork")
        self._receiver, sender = context.Pipe(duplex=False)
        self._printed = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 - closed by end()
        given = (function, arguments, sender, temporary, self._printed)
        self._process = context.Process(target=_in_child, args=given)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads; the child has one of its own
            before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # they wait until the child has its own handlers
            try:
                self._process.start()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
        sender.close()

    def receive(self) -> Any:
        """Return the next report; raises EOFError at the child's end."""
        return self._receiver.recv()

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send(signal.SIGKILL)

    def send(self, signum: int) -> None:
        """Send a signal; nothing happens if the child has ended."""
        if self._process.is_alive():
            os.kill(int(self._process.pid or 0), signum)

    def end(self) -> tuple[int, list[Any]]:
        """Wait for the child's end; return its exit code (negative: a signal's number) and its last reports."""
        reports = []
        with contextlib.suppress(EOFError):
            while True:
                reports.append(self.receive())
        self._process.join()
        self._receiver.close()
        with self._printed as file:
            file.seek(0)
            self.errors = "\n".join(file.read().splitlines()[-LINES:])
        return int(self._process.exitcode or 0), reports


def _in_child(
    function: Callable[..., None], arguments: tuple[Any, ...], sender: Any, temporary: str, errors: TextIO
) -> None:
    for signum in SIGNALS:
        signal.signal(signum, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    os.dup2(errors.fileno(), 2)
    sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115 - the parent's may be one in memory
    torch.set_num_threads(1)
    if temporary:
        os.environ["TMPDIR"], tempfile.tempdir = temporary, None
    function(*arguments, sender.send)


def checkpoint(number: int, size: int) -> dict[str, Any]:
    """Return a checkpoint of about `size` bytes that follow from a number."""
    values = torch.arange(size // 8, dtype=torch.int64) + number
    return {"number": number, "values": values, "nested": {"scale": [number, float(number)]}}


def number_of(path: Path) -> int:
    """Return the number of a :func:`checkpoint` on disk; raises DataError if any part is not of that number."""
    found = AtomicCheckpointIO().load_checkpoint(path)
    number = int(found["number"])
    if not torch.equal(found["values"], checkpoint(number, 8 * len(found["values"]))["values"]):
        raise DataError(f"{path}: its parts are not of one checkpoint")
    return number


def save_until_killed(path: Path, first: int, size: int, report: Callable[[int], None]) -> None:
    """The child: save checkpoint after checkpoint, and report the number of each once it is saved."""
    for number in range(first, first + 10**6):
        AtomicCheckpointIO().save_checkpoint(checkpoint(number, size), path)
        report(number)


def kill_writer(path: Path, first: int, rng: random.Random, *, temporary: str = "") -> int:
    """Run a child, kill it at a random moment, and return the last number it reported."""
    child = Child(save_until_killed, path, first, rng.randrange(1 << 16, 1 << 22), temporary=temporary)
    reports = [child.receive()]
    time.sleep(rng.random() * MOST_ALIVE)
    child.kill()
    return int([*reports, *child.end()[1]][-1])


def _kill(place: Path, kills: int, temporary: str, rng: random.Random) -> dict[str, int]:
    path, last = place / "last.ckpt", -1
    found = {"kills": kills, "saved": 0, "lost": 0, "unreadable": 0, "halves_swept": 0}
    before = set(os.listdir(temporary)) if temporary else set()  # noqa: PTH208
    for number in range(kills):
        first = last + 1000
        last = kill_writer(path, first, rng, temporary=temporary)
        found["saved"] += last - first + 1
        try:
            found["lost"] += number_of(path) not in (last, last + 1)  # one may be saved and not yet reported
        except DataError:
            found["unreadable"] += 1
        found["halves_swept"] += len(remove_abandoned(place))
        if number % 25 == 24:
            print(f"{number + 1} of {kills} writers killed: {found}", flush=True)
    left = {path.name for path in place.iterdir()} - {"last.ckpt", "last.ckpt.sha256"}
    left |= (set(os.listdir(temporary)) if temporary else set()) - before  # noqa: PTH208
    other = on_another_file_system(temporary, place)
    return found | {"leaked_files": len(left), "other_file_system": int(other)}


@contextlib.contextmanager
def small_disk(place: Path) -> Iterator[bool]:
    """Mount a small file system at `place` if this process may; yields whether it did."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(place)]
    with contextlib.suppress(OSError):
        if os.geteuid() == 0 and subprocess.run(mount, capture_output=True, check=False).returncode == 0:
            try:
                yield True
            finally:
                subprocess.run(["umount", str(place)], check=True)
            return
    yield False


def _full_disks(place: Path, count: int, rng: random.Random) -> dict[str, int]:
    """Save on a disk that is too small for the checkpoint and its sum; without a mount, limit the size of files."""
    found = {"full_disks": count, "changed": 0, "unclear": 0, "leaked_files": 0}
    path, limits = place / "last.ckpt", resource.getrlimit(resource.RLIMIT_FSIZE)
    with small_disk(place) as mounted:
        if count:
            AtomicCheckpointIO().save_checkpoint(checkpoint(0, 1 << 19), path)
        for number in range(1, count + 1):
            size = rng.randrange(1 << 16, 1 << 20)

            def fill(size: int = size) -> Callable[[], None]:
                if not mounted:
                    resource.setrlimit(resource.RLIMIT_FSIZE, (rng.randrange(size), limits[1]))
                    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limits)
                room = os.statvfs(place)
                ballast = place / "ballast"
                ballast.write_bytes(bytes(room.f_bavail * room.f_frsize - rng.randrange(size // PAGE) * PAGE))
                return ballast.unlink

            _refused(path, checkpoint(number, size), fill, found)
        found |= {"by_tmpfs": count if mounted else 0, "by_file_size_limit": 0 if mounted else count}
    return found


def _read_only(place: Path, count: int, rng: random.Random) -> dict[str, int]:
    found = {"read_only": count, "changed": 0, "unclear": 0, "leaked_files": 0}
    path = place / "last.ckpt"
    if count:
        AtomicCheckpointIO().save_checkpoint(checkpoint(0, 1 << 16), path)
    for number in range(1, count + 1):
        _refused(path, checkpoint(number, rng.randrange(1 << 12, 1 << 18)), lambda: close_folder(place), found)
    return found


def _refused(
    path: Path, new: dict[str, Any], break_it: Callable[[], Callable[[], None]], found: dict[str, int]
) -> None:
    """Save while something is broken: the error must be one line that names the file, and the old file must stay."""
    before = path.read_bytes()
    names = sorted(path.parent.iterdir())
    mend = break_it()
    try:
        AtomicCheckpointIO().save_checkpoint(new, path)
        found["unclear"] += 1
    except DataError as error:
        found["unclear"] += str(path) not in str(error) or "\n" in str(error)
    except Exception:
        found["unclear"] += 1
    finally:
        mend()
    found["leaked_files"] += sorted(path.parent.iterdir()) != names
    try:
        number_of(path)
        found["changed"] += path.read_bytes() != before
    except DataError:
        found["changed"] += 1
