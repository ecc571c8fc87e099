"""Faults of checkpoints: killed writers, full disks, folders without rights. What was saved last must still be there.

A child saves for ever and says each checkpoint once it is saved; it is killed at a random moment. Checkpoints lie in
`folder`, on another file system than the temporary one where `temporary` names such.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from facenet.callbacks import AtomicCheckpointIO
from facenet.errors import DataError
from facenet.files import sweep

MOST_ALIVE = 0.15  # seconds after its first checkpoint at which a child is killed at the latest; one takes some 10 ms
DISK = 4 << 20  # bytes of a small disk
PAGE = 4096


def run(
    *, kills: int = 100, full_disks: int = 10, read_only: int = 5, folder: str = "", temporary: str = "", seed: int = 0
) -> dict[str, dict[str, int]]:
    """Play every fault so many times; counts of what went wrong, by fault."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="facenet-checkpoints-", dir=folder or None) as name:
        os.chmod(name, 0o755)  # noqa: PTH101 - for the rights test another user must get in
        places = [Path(name) / part for part in ("kills", "disk", "closed")]
        for place in places:
            place.mkdir()
        return {
            "checkpoint_kills": _kill(places[0], kills, temporary, rng),
            "checkpoint_full_disks": _full_disks(places[1], full_disks, rng),
            "checkpoint_read_only": _read_only(places[2], read_only, rng),
        }


class Nursery:
    """A process that has imported what is slow to import, and forks a child for each call.

    A child is a process of its own: it can be killed. `temporary`, where given, is its temporary folder.
    """

    def __init__(self, *modules: str, temporary: str = "") -> None:
        code = f"from {__name__} import nurse; nurse({modules!r})"
        paths = os.pathsep.join(path for path in sys.path if path)
        own = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"} | ({"TMPDIR": temporary} if temporary else {})
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._process = subprocess.Popen([sys.executable, "-c", code], env=own, text=True, **pipes)  # type: ignore[call-overload]

    def __enter__(self) -> Nursery:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def start(self, call: str, *arguments: Any) -> int:
        """Start ``module:function`` with plain arguments in a child; return its process id."""
        self._process.stdin.write(json.dumps([call, *arguments]) + "\n")
        self._process.stdin.flush()
        return int(self.line().removeprefix("started "))

    def line(self) -> str:
        """Return the next line of the child; its last is "ended" and its exit code (negative: a signal's number)."""
        text = self._process.stdout.readline()
        if not text:
            raise RuntimeError("the process that starts children ended")
        return str(text).rstrip("\n")

    def end(self) -> tuple[int, list[str]]:
        """Wait for the child; return its exit code and what it said."""
        lines = [self.line()]
        while not lines[-1].startswith("ended "):
            lines.append(self.line())
        return int(lines.pop().removeprefix("ended ")), lines


def nurse(modules: tuple[str, ...]) -> None:
    """Fork a child for each line of standard input; nothing else happens in this process, so forking it is safe."""
    for module in modules:
        importlib.import_module(module)
    for text in sys.stdin:
        call, *arguments = json.loads(text)
        module, function = call.split(":")
        read, write = os.pipe()
        child = os.fork()
        if not child:
            os.close(write)
            os.read(read, 1)  # until its start was said
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            getattr(importlib.import_module(module), function)(*arguments)
            raise SystemExit(0)
        print(f"started {child}", flush=True)
        for end in (read, write):
            os.close(end)
        print(f"ended {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}", flush=True)


def checkpoint(number: int, size: int) -> dict[str, Any]:
    """Some `size` bytes that follow from a number."""
    values = torch.arange(size // 8, dtype=torch.int64) + number
    return {"number": number, "values": values, "nested": {"scale": [number, float(number)]}}


def number_of(path: Path) -> int:
    """The number of a checkpoint; DataError where it is not one of ours, whole."""
    found = AtomicCheckpointIO().load_checkpoint(path)
    number = int(found["number"])
    if not torch.equal(found["values"], checkpoint(number, 8 * len(found["values"]))["values"]):
        raise DataError(f"{path}: its parts are not of one checkpoint")
    return number


def save_for_ever(path: str, first: int, size: int) -> None:
    """The child: checkpoint after checkpoint, each said when it is saved."""
    torch.set_num_threads(1)
    for number in range(first, first + 10**6):
        AtomicCheckpointIO().save_checkpoint(checkpoint(number, size), path)
        print(number, flush=True)


def kill_writer(nursery: Nursery, path: Path, first: int, rng: random.Random) -> int:
    """Run the child, kill it at a random moment, and return the last number it said."""
    child = nursery.start(f"{__name__}:save_for_ever", str(path), first, rng.randrange(1 << 16, 1 << 22))
    said = [nursery.line()]
    time.sleep(rng.random() * MOST_ALIVE)
    os.kill(child, signal.SIGKILL)
    code, rest = nursery.end()
    if code != -signal.SIGKILL:
        raise RuntimeError(f"the child ended by itself, with {code}: {rest}")
    return int([*said, *rest][-1])


def _kill(place: Path, kills: int, temporary: str, rng: random.Random) -> dict[str, int]:
    path, last = place / "last.ckpt", -1
    told = {"kills": kills, "saved": 0, "lost": 0, "unreadable": 0, "halves_swept": 0}
    before = set(os.listdir(temporary)) if temporary else set()  # noqa: PTH208
    with contextlib.ExitStack() as stack:
        nursery = stack.enter_context(Nursery("facenet.callbacks", temporary=temporary)) if kills else None
        for number in range(kills):
            assert nursery is not None
            first = last + 1000
            last = kill_writer(nursery, path, first, rng)
            told["saved"] += last - first + 1
            try:
                there = number_of(path)
                told["lost"] += there not in (last, last + 1)  # one may be saved and not yet said
            except DataError:
                told["unreadable"] += 1
            told["halves_swept"] += len(sweep(place))
            if number % 25 == 24:
                print(f"{number + 1} of {kills} writers killed: {told}", flush=True)
    left = {path.name for path in place.iterdir()} - {"last.ckpt", "last.ckpt.sha256"}
    left |= (set(os.listdir(temporary)) if temporary else set()) - before  # noqa: PTH208
    other = bool(temporary) and os.stat(temporary).st_dev != os.stat(place).st_dev  # noqa: PTH116
    return told | {"leaked_files": len(left), "other_file_system": int(other)}


@contextlib.contextmanager
def small_disk(place: Path) -> Iterator[bool]:
    """Mount a small file system at `place`, where we may; whether that was done."""
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
    """A disk with less room than the checkpoint and its sum need; without a mount, a file that may not grow so far."""
    told = {"full_disks": count, "changed": 0, "unclear": 0, "leaked_files": 0}
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

            _refused(path, checkpoint(number, size), fill, told)
        told |= {"by_tmpfs": count if mounted else 0, "by_file_size_limit": 0 if mounted else count}
    return told


def _read_only(place: Path, count: int, rng: random.Random) -> dict[str, int]:
    told = {"read_only": count, "changed": 0, "unclear": 0, "leaked_files": 0}
    root, path = os.geteuid() == 0, place / "last.ckpt"

    def close() -> Callable[[], None]:
        place.chmod(0o555)
        if root:
            os.seteuid(65534)

        def again() -> None:
            if root:
                os.seteuid(0)
            place.chmod(0o755)

        return again

    if count:
        AtomicCheckpointIO().save_checkpoint(checkpoint(0, 1 << 16), path)
    for number in range(1, count + 1):
        _refused(path, checkpoint(number, rng.randrange(1 << 12, 1 << 18)), close, told)
    return told


def _refused(path: Path, new: dict[str, Any], break_it: Callable[[], Callable[[], None]], told: dict[str, int]) -> None:
    """Save while something is broken: the error has to be one line that names the file, and the old one to stay."""
    before = path.read_bytes()
    names = sorted(path.parent.iterdir())
    mend = break_it()
    try:
        AtomicCheckpointIO().save_checkpoint(new, path)
        told["unclear"] += 1
    except DataError as error:
        told["unclear"] += str(path) not in str(error) or "\n" in str(error)
    except Exception:
        told["unclear"] += 1
    finally:
        mend()
    told["leaked_files"] += sorted(path.parent.iterdir()) != names
    try:
        number_of(path)
        told["changed"] += path.read_bytes() != before
    except DataError:
        told["changed"] += 1
