"""Hostile and damaged files: thousands of changes of everything that is read back, pickles, paths and addresses.

Half of the changed files keep their checksum: each change that has an effect must be noticed. The other half get sums
that fit again, as an attacker would make them: these files are read or refused in one line. Each kind is played in a
process of its own, whose death or silence is counted too.
"""

from __future__ import annotations

import json
import random
import resource
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from benchmarks.faults import onnx_graphs
from benchmarks.faults.hostile import addressed, pickled, traversed
from benchmarks.faults.kinds import KINDS
from benchmarks.faults.mutate import mutated
from benchmarks.faults.options import FileFaults
from benchmarks.faults.outcomes import Kind, fresh_copy, outcome_of, value_digest
from benchmarks.faults.restored import CHECKPOINTS
from benchmarks.faults.tiny import tiny_net
from benchmarks.resources import environment

MEMORY = 1 << 34  # bytes that a child may reserve
SILENCE = 60.0  # seconds without output after which a process counts as hanging
CHILD = (
    "import faulthandler, sys; from benchmarks.faults.files import print_outcomes;"
    " faulthandler.enable(); print_outcomes(*sys.argv[1:])"
)
ALL: dict[str, Kind] = {"encoders": KINDS["encoders"], "checkpoints": CHECKPOINTS, **KINDS}
OUTCOMES = ("refused", "same", "resealed", "as_written", "silently_accepted", "crashes", "hangs", "executions")


def run(
    counts: FileFaults, *, folder: str = "", temporary: str = "", seed: int = 0, apart: bool = True
) -> dict[str, dict[str, int]]:
    """Change so many files of each kind, then try payloads and paths: {fault: {what: count}}.

    `refused` is one line of ours; `same` had no effect. `resealed` was read, with sums made to fit. `as_written` is
    another table of a kind that people write and that has no sum. `silently_accepted`, `crashes`, `hangs` and
    `executions` are the failures. With `apart` each kind has a process of its own.
    """
    numbers = {"encoders": counts.encoders, "checkpoints": counts.checkpoints, "embeddings": counts.embeddings}
    found: dict[str, dict[str, int]] = {}
    with tempfile.TemporaryDirectory(prefix="facenet-files-", dir=folder or None) as name:
        for kind in ALL:
            count, started = numbers.get(kind, counts.others), time.perf_counter()
            (Path(name) / kind).mkdir()
            play = _apart if apart else _here
            found[kind] = play(Path(name) / kind, kind, count, seed, temporary)
            print(f"{kind}: {count} files, {time.perf_counter() - started:.0f} s", flush=True)
        with tiny_net():
            found["pickles"] = pickled(Path(name), ALL, counts.pickles)
            found["traversals"] = traversed(Path(name), counts.traversals)
            found["addresses"] = addressed()
        found["onnx_graphs"] = onnx_graphs.played(Path(name), counts.onnx_graphs, seed)
    return found


def _here(place: Path, kind: str, count: int, seed: int, temporary: str) -> dict[str, int]:
    return _summed(count, Counter(outcome for outcome, _ in played(place, kind, 0, count, seed)))


def _summed(count: int, found: Counter[str]) -> dict[str, int]:
    return {"files": count, **{name: found[name] for name in OUTCOMES}}


def played(
    place: Path,
    name: str,
    first: int,
    count: int,
    seed: int,
    *,
    kinds: Mapping[str, Kind] = ALL,
    change: Callable[[str, bytes, random.Random], bytes] = mutated,
) -> Iterator[tuple[str, str]]:
    """Play the mutations `first` to `count` of a kind in a folder; yields the outcome of each, and its message."""
    kind, sound = kinds[name], place / "sound"
    with tiny_net():
        if not sound.exists():
            (place / "tried").mkdir()
            kind.make(place / "tried")  # where they are used: caches know their folder
            fresh_copy(place / "tried", sound)
        expected = value_digest(kind.use(fresh_copy(sound, place / "tried")))
        for number in range(first, count):
            rng = random.Random(f"{seed} {name} {number}")
            sealed = kind.reseal is not None and rng.random() < 0.5
            files = [path for path in sorted(sound.glob(kind.sealed if sealed else kind.files)) if path.is_file()]
            chosen = rng.choice(files).relative_to(sound)
            tried = fresh_copy(sound, place / "tried")
            (tried / chosen).write_bytes(change(chosen.name, (sound / chosen).read_bytes(), rng))
            if sealed and kind.reseal:
                kind.reseal(tried, chosen.as_posix())
            outcome, message = outcome_of(kind, tried, expected, sealed)
            yield outcome, f"{number} {chosen}{' resealed' if sealed else ''}: {message}"


def print_outcomes(place: str, name: str, first: str, count: str, seed: str) -> None:
    """The child: print a line of JSON for every mutation."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    for outcome, message in played(Path(place), name, int(first), int(count), int(seed)):
        print(json.dumps([outcome, message[:300]]), flush=True)


def _apart(
    place: Path, kind: str, count: int, seed: int, temporary: str, *, child: str = CHILD, silence: float = SILENCE
) -> dict[str, int]:
    """Play a kind in a child process. If that dies or falls silent, another one goes on with the next mutation."""
    found: Counter[str] = Counter()
    while found.total() < count:
        command = [sys.executable, "-c", child, str(place), kind, str(found.total()), str(count), str(seed)]
        with subprocess.Popen(command, env=environment(temporary), stdout=subprocess.PIPE, text=True) as process:
            for line in _lines(process, silence):
                if line.startswith('["'):
                    outcome, message = json.loads(line)
                    found[outcome] += 1
                    if outcome in ("silently_accepted", "crashes", "hangs"):
                        print(f"{kind}: {outcome}: {message}", flush=True)
            process.kill()
        if found.total() < count:
            what = "hangs" if process.returncode == -signal.SIGKILL else "crashes"
            print(f"{kind}: {what}: mutation {found.total()} ended the process ({process.returncode})", flush=True)
            found[what] += 1
    return _summed(count, found)


def _lines(child: subprocess.Popen[str], silence: float) -> Iterator[str]:
    """Yield the lines of a child until it ends, or prints nothing for `silence` seconds."""
    assert child.stdout is not None
    with selectors.DefaultSelector() as ready:
        ready.register(child.stdout, selectors.EVENT_READ)
        while ready.select(silence) and (line := child.stdout.readline()):
            yield line
