"""Hostile and damaged files: thousands of mutations of everything that is read back, pickles, paths and addresses.

Half of the mutated files keep the sum they had, which must be noticed wherever the change has an effect; the other half
get sums that fit again, as somebody who changes files on purpose would make them: these load or are refused in one
line. Each kind is played in a process of its own, whose death or silence is counted too.
"""

from __future__ import annotations

import json
import os
import random
import resource
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from benchmarks.faults.hostile import addressed, pickled, traversed
from benchmarks.faults.kinds import KINDS
from benchmarks.faults.mutate import mutated
from benchmarks.faults.outcomes import Kind, fresh_copy, outcome_of, value_digest
from benchmarks.faults.restored import CHECKPOINTS
from benchmarks.faults.tiny import tiny_net

MEMORY = 1 << 34  # bytes that a child may reserve
SILENCE = 60.0  # seconds after which a process that says nothing counts as hanging
CHILD = (
    "import faulthandler, sys; faulthandler.enable();from benchmarks.faults.files import speak; speak(*sys.argv[1:])"
)
ALL: dict[str, Kind] = {"encoders": KINDS["encoders"], "checkpoints": CHECKPOINTS, **KINDS}
OUTCOMES = ("refused", "same", "resealed", "as_written", "silently_accepted", "crashes", "hangs", "executions")


def run(
    *,
    encoders: int = 2000,
    checkpoints: int = 1000,
    embeddings: int = 1000,
    others: int = 100,
    pickles: int = 50,
    traversals: int = 20,
    folder: str = "",
    temporary: str = "",
    seed: int = 0,
    apart: bool = True,
) -> dict[str, dict[str, int]]:
    """Mutate so many files of each kind, then try payloads and paths: {fault: {what: count}}.

    Of what happens, `refused` is one line of ours, `same` had no effect, `resealed` loaded with sums made to fit,
    `as_written` is another table of a kind that people write and that has no sum. `silently_accepted`, `crashes`,
    `hangs` and `executions` are the failures. With `apart` each kind has a process of its own.
    """
    counts = {"encoders": encoders, "checkpoints": checkpoints, "embeddings": embeddings}
    told: dict[str, dict[str, int]] = {}
    with tempfile.TemporaryDirectory(prefix="facenet-files-", dir=folder or None) as name:
        for kind in ALL:
            count, started = counts.get(kind, others), time.perf_counter()
            (Path(name) / kind).mkdir()
            play = _apart if apart else _here
            told[kind] = play(Path(name) / kind, kind, count, seed, temporary)
            print(f"{kind}: {count} files, {time.perf_counter() - started:.0f} s", flush=True)
        with tiny_net():
            told["pickles"] = pickled(Path(name), ALL, pickles)
            told["traversals"] = traversed(Path(name), traversals)
            told["addresses"] = addressed()
    return told


def _here(place: Path, kind: str, count: int, seed: int, temporary: str) -> dict[str, int]:
    return _summed(count, Counter(outcome for outcome, _ in played(place, kind, 0, count, seed)))


def _summed(count: int, found: Counter[str]) -> dict[str, int]:
    return {"files": count, **{name: found[name] for name in OUTCOMES}}


def played(place: Path, name: str, first: int, count: int, seed: int) -> Iterator[tuple[str, str]]:
    """Play the mutations `first` to `count` of a kind in a folder: what came of each, and what was said."""
    kind, sound = ALL[name], place / "sound"
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
            (tried / chosen).write_bytes(mutated(chosen.name, (sound / chosen).read_bytes(), rng))
            if sealed and kind.reseal:
                kind.reseal(tried, chosen.as_posix())
            outcome, said = outcome_of(kind, tried, expected, sealed)
            yield outcome, f"{number} {chosen}{' resealed' if sealed else ''}: {said}"


def speak(place: str, name: str, first: str, count: str, seed: str) -> None:
    """The child: a line of JSON for every mutation."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    for outcome, said in played(Path(place), name, int(first), int(count), int(seed)):
        print(json.dumps([outcome, said[:300]]), flush=True)


def _apart(place: Path, kind: str, count: int, seed: int, temporary: str) -> dict[str, int]:
    """Play a kind in a child process, and in another one from the next mutation on where that dies or falls silent."""
    found: Counter[str] = Counter()
    paths = os.pathsep.join(path for path in sys.path if path)
    environment = {**os.environ, "PYTHONPATH": paths} | ({"TMPDIR": temporary} if temporary else {})
    while found.total() < count:
        command = [sys.executable, "-c", CHILD, str(place), kind, str(found.total()), str(count), str(seed)]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for line in _lines(child):
                if line.startswith('["'):
                    outcome, said = json.loads(line)
                    found[outcome] += 1
                    if outcome in ("silently_accepted", "crashes", "hangs"):
                        print(f"{kind}: {outcome}: {said}", flush=True)
            child.kill()
        if found.total() < count:
            what = "hangs" if child.returncode == -signal.SIGKILL else "crashes"
            print(f"{kind}: {what}: mutation {found.total()} ended the process ({child.returncode})", flush=True)
            found[what] += 1
    return _summed(count, found)


def _lines(child: subprocess.Popen[str]) -> Iterator[str]:
    """The lines of a child until it ends, or says nothing for too long."""
    assert child.stdout is not None
    with selectors.DefaultSelector() as ready:
        ready.register(child.stdout, selectors.EVENT_READ)
        while ready.select(SILENCE) and (line := child.stdout.readline()):
            yield line
