"""Faults of training: processes killed, commands stopped. A resumed run must end where an uninterrupted run does.

Small runs are cut at each of their boundaries, see :mod:`.boundaries`, and at random moments. Others are the command,
stopped at any time. Weights, optimiser, schedule, encoder, logs and all metrics except times
are compared to the bit. With a folder, the outcome of each finished cut is kept there until the sources of the package
change, and the same campaign plays only the others.
"""

from __future__ import annotations

import csv
import hashlib
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import torch

import facenet
from benchmarks.faults.boundaries import VARIANTS, place_of, small_options, train_until
from benchmarks.faults.checkpoints import Child
from benchmarks.faults.commands import arguments, stopped, undisturbed
from benchmarks.faults.options import ResumeFaults
from benchmarks.faults.tiny import tiny_net
from benchmarks.resources import environment
from facenet.errors import DataError
from facenet.files import read_json, sha256_file
from facenet.training.checkpoints import AtomicCheckpointIO
from facenet.training.options import TrainOptions
from facenet.training.run import train

COMMAND_STEPS = 30
SIGNALS = [(signal.SIGTERM,), (signal.SIGINT,), (signal.SIGKILL,), (signal.SIGTERM, signal.SIGINT)]
TIMES = ("seconds", "images_per_second", "faces_per_second")
REPEATED = ("grad_norm", "lr")  # Lightning writes those of the last step again between the batches of a step
CHILD = (
    "import json, sys; from benchmarks.faults.resume import play_small;"
    " print(json.dumps(play_small(*json.loads(sys.argv[1]))))"
)


def run(
    counts: ResumeFaults,
    *,
    folder: str = "",
    temporary: str = "",
    seed: int = 0,
    variants: Sequence[str] = tuple(VARIANTS),
    command_steps: int = COMMAND_STEPS,
) -> dict[str, dict[str, int]]:
    """Cut runs at boundaries and at random moments, stop the command; returns counts of what went wrong, by fault."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="facenet-resume-", dir=folder or None) as name:
        place = Path(name)
        outcomes = Path(folder) / f"resume-{_sources()}.jsonl" if folder else place / "outcomes.jsonl"
        play = _play_apart if counts.cuts != 0 or counts.signals else play_small
        small = play(name, str(outcomes), temporary, counts.cuts, counts.signals, seed, list(variants))
        return {**small, "resume_sigterm": _stop(place, counts.terms, temporary, rng, command_steps)}


def _play_apart(*arguments: Any) -> dict[str, dict[str, int]]:
    """Call :func:`play_small` in a process of its own, which has no threads: torch trains in no fork of threads."""
    found = {}
    command = [sys.executable, "-c", CHILD, json.dumps(arguments)]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            if line.startswith("{"):
                found = json.loads(line)
            else:
                print(line, end="", flush=True)
    if process.returncode or not found:
        raise DataError(f"the campaign of small runs ended with {process.returncode}")
    return found


def play_small(
    place: str, outcomes: str, temporary: str, cuts: int | None, signals: int, seed: int, variants: Sequence[str]
) -> dict[str, dict[str, int]]:
    """Cut small runs at boundaries and at random moments."""
    torch.set_num_threads(1)
    with tiny_net():
        runs, known = Runs(Path(place), temporary, variants), Outcomes(Path(outcomes))
        return {
            "resume_boundaries": _cut(runs, cuts, known),
            "resume_signals": _disturb(runs, signals, known, seed),
        }


class Runs:
    """The uninterrupted run of each variant, and runs to compare with it."""

    def __init__(self, place: Path, temporary: str, variants: Sequence[str]) -> None:
        self.place, self.temporary, self.variants = place, temporary, variants
        self._whole: dict[str, tuple[list[str], float]] = {}

    def options(self, variant: str) -> TrainOptions:
        """Return the options of a variant; the old encoder of harmonic training is that of the plain run."""
        if "harmonic" in VARIANTS[variant]:
            self.whole("plain")
        return small_options(self.place / "cache", variant, self.place / "plain" / "encoder")

    def whole(self, variant: str) -> tuple[list[str], float]:
        """Return the boundaries of the uninterrupted run, and its seconds."""
        if not self._whole and not (self.place / "imports").exists():  # of this process, which children fork
            train(small_options(self.place / "cache"), self.place / "imports", say=lambda line: None)
        if variant not in self._whole:
            options, start = self.options(variant), time.perf_counter()
            child = self.child(options, self.place / variant)
            code, reports = child.end()
            if code:
                raise DataError(f"{self.place / variant}: the uninterrupted run ended with {code}: {child.errors}")
            self._whole[variant] = reports[0], time.perf_counter() - start
        return self._whole[variant]

    def child(self, options: TrainOptions, out: Path, at: int = -1, signals: Sequence[int] = ()) -> Child:
        """Start a run that sends itself signals at a boundary."""
        return Child(train_until, options, out, at, signals, temporary=self.temporary)

    def outcome(self, variant: str, cut: Callable[[TrainOptions, Path], str]) -> str:
        """Cut a run, resume it to its end, and say what differs from the whole run, or what failed, as `cut` says."""
        self.whole(variant)
        options = self.options(variant)
        with tempfile.TemporaryDirectory(dir=self.place) as name:
            out = Path(name)
            failed = cut(options, out) or unexpected(self.child(options, out), {0})
            return failed or ", ".join(differences(self.place / variant, out)[:9]) or "equal"


def unexpected(child: Child, good: Collection[int]) -> str:
    """Wait for the end of a run; return "" for one of the exit codes, else what was the matter."""
    code = child.end()[0]
    return "" if code in good else f"failed with exit code {code}: {child.errors}"


class Outcomes:
    """Outcomes by the name of a cut, kept in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = path.read_text().splitlines() if path.is_file() else []
        self.known: dict[str, str] = dict(json.loads(line) for line in lines)

    def of(self, name: str, play: Callable[[], str]) -> str:
        """Return the outcome of a cut; play it if it is not known."""
        if name not in self.known:
            self.known[name] = play()
            with self.path.open("a") as file:
                file.write(json.dumps([name, self.known[name]]) + "\n")
            print(f"{name}: {self.known[name]}", flush=True)
        return self.known[name]


def _sources() -> str:
    """Return a digest of the package."""
    files = sorted(Path(facenet.__file__).parent.rglob("*.py"))
    return hashlib.sha256("".join(sha256_file(path) for path in files).encode()).hexdigest()[:12]


def _cut(runs: Runs, most: int | None, outcomes: Outcomes) -> dict[str, int]:
    """Cut each variant at its boundaries, each once; the signals follow by turns."""
    places = ("start", "step", "validation", "save", "exit")
    counted = dict.fromkeys(["cuts", *(f"in_{place}" for place in places), "bitwise_equal", "different", "failed"], 0)
    for variant in runs.variants if most != 0 else ():
        names = runs.whole(variant)[0]
        for at in range(0, len(names), 1 if most is None else -(-len(names) // most)):
            signals = SIGNALS[(at + list(VARIANTS).index(variant)) % len(SIGNALS)]

            def cut(options: TrainOptions, out: Path, at: int = at, signals: Sequence[int] = signals) -> str:
                good = [number for each in signals for number in (128 + each, -each)]
                return unexpected(runs.child(options, out, at, signals), good)

            sent = " ".join(signal.Signals(each).name for each in signals)
            name = f"{variant}, boundary {at} ({names[at]}), {sent}"
            found = outcomes.of(name, lambda variant=variant, cut=cut: runs.outcome(variant, cut))  # type: ignore[misc]
            counted["cuts"] += 1
            counted[f"in_{place_of(names, at)}"] += 1
            counted[_column(found)] += 1
    return counted


def _disturb(runs: Runs, count: int, outcomes: Outcomes, seed: int) -> dict[str, int]:
    """Send one to three random signals at random moments, each to the run or to the one that resumes it."""
    counted = dict.fromkeys(["signals", "bitwise_equal", "different", "failed"], 0)
    number = 0
    while counted["signals"] < count:
        variant, rng = runs.variants[number % len(runs.variants)], random.Random(f"{seed} {number}")
        sent = [rng.choice(SIGNALS) for _ in range(rng.randint(1, min(3, count - counted["signals"])))]

        def cut(options: TrainOptions, out: Path, sent: Any = sent, variant: str = variant, rng: Any = rng) -> str:
            failed = []
            for signals in sent:
                child = runs.child(options, out)
                time.sleep(rng.random() * runs.whole(variant)[1])
                for signum in signals:
                    child.send(signum)
                failed.append(unexpected(child, {0, *(code for each in signals for code in (128 + each, -each))}))
            return "; ".join(filter(None, failed))

        names = ", then ".join(" ".join(signal.Signals(each).name for each in signals) for signals in sent)
        name = f"{variant}, seed {seed}, number {number}, {names}"
        found = outcomes.of(name, lambda variant=variant, cut=cut: runs.outcome(variant, cut))  # type: ignore[misc]
        counted["signals"] += len(sent)
        counted[_column(found)] += 1
        number += 1
    return counted


def _column(found: str) -> str:
    return "bitwise_equal" if found == "equal" else "failed" if found.startswith("failed") else "different"


def differences(first: Path, second: Path) -> list[str]:
    """Return the names of what is not equal to the bit in two finished runs, except times."""
    states = [AtomicCheckpointIO().load_checkpoint(run / "checkpoints" / "last.ckpt") for run in (first, second)]
    parts = ("global_step", "state_dict", "optimizer_states", "lr_schedulers")
    before, after = ({part: state[part] for part in parts} for state in states)
    found = _unequal(before, after)
    if sha256_file(first / "encoder" / "encoder.safetensors") != sha256_file(
        second / "encoder" / "encoder.safetensors"
    ):
        found.append("encoder")
    found += _unequal(_logged(first), _logged(second), "logs")
    return found + _unequal(read_json(first / "metrics.json"), read_json(second / "metrics.json"))


def _logged(run: Path) -> list[dict[str, str]]:
    with (run / "logs" / "metrics.csv").open() as file:
        return [{key: row[key] for key in row if key not in REPEATED} for row in csv.DictReader(file)]


def _unequal(first: Any, second: Any, name: str = "") -> list[str]:
    if type(first) is not type(second):
        return [name]
    if isinstance(first, dict):
        names = [key for key in {**first, **second} if key not in TIMES]
        return [one for key in names for one in _unequal(first.get(key), second.get(key), f"{name}.{key}")]
    if isinstance(first, list) and len(first) == len(second):
        return [one for i, pair in enumerate(zip(first, second, strict=True)) for one in _unequal(*pair, f"{name}.{i}")]
    return [] if (torch.equal(first, second) if isinstance(first, torch.Tensor) else first == second) else [name]


def _stop(place: Path, terms: int, temporary: str, rng: random.Random, steps: int) -> dict[str, int]:
    names = [
        "exit_143",
        "one_line",
        "usable_checkpoints",
        "orphans",
        "bitwise_equal",
        "different",
        "failed",
        "too_late",
    ]
    counted = dict.fromkeys(["sigterms", "with_workers", *names], 0)
    wholes: dict[int, Path] = {}
    while counted["sigterms"] < terms:
        number, workers = counted["sigterms"], 2 * (counted["sigterms"] % 2)
        if workers not in wholes:
            wholes[workers] = place / f"command{workers}"
            undisturbed(arguments(place, wholes[workers], workers, steps), temporary)
        trained = read_json(wholes[workers] / "metrics.json")["train"]
        out = place / f"term{number}_{counted['too_late']}"
        given = arguments(place, out, workers, steps)
        code, errors, orphans = stopped(
            given, rng.random() * trained["faces_seen"] / trained["images_per_second"], temporary
        )
        if (out / "metrics.json").is_file():  # the run had ended; Python needs a while to go
            counted["too_late"] += 1
            continue
        counted["sigterms"] += 1
        counted["with_workers"] += workers > 0
        counted["exit_143"] += code == 143
        counted["one_line"] += len(errors.splitlines()) == 1 and "resume=auto" in errors
        counted["orphans"] += orphans
        counted["usable_checkpoints"] += _loads(out / "checkpoints" / "last.ckpt")
        try:
            undisturbed(given, temporary)
            other = differences(wholes[workers], out)
            counted["bitwise_equal" if not other else "different"] += 1
        except DataError as error:
            other = [str(error)]
            counted["failed"] += 1
        print(f"SIGTERM {number + 1} of {terms}: {' '.join(errors.split())[:40]}: {other or 'equal'}", flush=True)
    return counted


def _loads(path: Path) -> bool:
    try:
        return bool(AtomicCheckpointIO().load_checkpoint(path)["state_dict"])
    except DataError:
        return False
