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
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

import facenet
from benchmarks.faults.boundaries import VARIANTS, place_of, small_options, train_until
from benchmarks.faults.checkpoints import Child
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
COMMAND = Path(__file__).resolve().parents[2] / "scripts" / "train.py"
MARK = "FACENET_FAULTS"  # environment variable that marks the processes of a command


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
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="facenet-resume-", dir=folder or None) as name, tiny_net():
        place = Path(name)
        runs = Runs(place, temporary, variants)
        outcomes = Outcomes(Path(folder) / f"resume-{_sources()}.jsonl" if folder else place / "outcomes.jsonl")
        return {
            "resume_boundaries": _cut(runs, counts.cuts, outcomes),
            "resume_signals": _disturb(runs, counts.signals, outcomes, seed),
            "resume_sigterm": _stop(place, counts.terms, temporary, rng, command_steps),
        }


class Runs:
    """The uninterrupted run of each variant, and runs to compare with it."""

    def __init__(self, place: Path, temporary: str, variants: Sequence[str]) -> None:
        self.place, self.temporary, self.variants = place, temporary, variants
        train(self.options("plain"), place / "imports", say=lambda line: None)  # of this process, which children fork
        self._whole: dict[str, tuple[list[str], float]] = {}

    def options(self, variant: str) -> TrainOptions:
        """Return the options of a variant; the old encoder of harmonic training is that of the plain run."""
        if "harmonic" in VARIANTS[variant]:
            self.whole("plain")
        return small_options(self.place / "cache", variant, self.place / "plain" / "encoder")

    def whole(self, variant: str) -> tuple[list[str], float]:
        """Return the boundaries of the uninterrupted run, and its seconds."""
        if variant not in self._whole:
            options, start = self.options(variant), time.perf_counter()
            code, reports = self.child(options, self.place / variant).end()
            if code:
                raise DataError(f"{self.place / variant}: the uninterrupted run ended with {code}")
            self._whole[variant] = reports[0], time.perf_counter() - start
        return self._whole[variant]

    def child(self, options: TrainOptions, out: Path, at: int = -1, signals: Sequence[int] = ()) -> Child:
        """Start a run that sends itself signals at a boundary."""
        return Child(train_until, options, out, at, signals, temporary=self.temporary)

    def outcome(self, variant: str, cut: Callable[[TrainOptions, Path], bool]) -> str:
        """Cut a run, resume it to its end, and say what differs from the whole run; `cut` returns whether it failed."""
        self.whole(variant)
        options = self.options(variant)
        with tempfile.TemporaryDirectory(dir=self.place) as name:
            out = Path(name)
            failed = cut(options, out) or self.child(options, out).end()[0] != 0
            return "failed" if failed else ", ".join(differences(self.place / variant, out)[:9]) or "equal"


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

            def cut(options: TrainOptions, out: Path, at: int = at, signals: Sequence[int] = signals) -> bool:
                code = runs.child(options, out, at, signals).end()[0]
                return code not in [number for each in signals for number in (128 + each, -each)]

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

        def cut(options: TrainOptions, out: Path, sent: Any = sent, variant: str = variant, rng: Any = rng) -> bool:
            good = {0, *(code for each in sent for signum in each for code in (128 + signum, -signum))}
            codes = []
            for signals in sent:
                child = runs.child(options, out)
                time.sleep(rng.random() * runs.whole(variant)[1])
                for signum in signals:
                    child.send(signum)
                codes.append(child.end()[0])
            return not set(codes) <= good

        names = ", then ".join(" ".join(signal.Signals(each).name for each in signals) for signals in sent)
        name = f"{variant}, seed {seed}, number {number}, {names}"
        found = outcomes.of(name, lambda variant=variant, cut=cut: runs.outcome(variant, cut))  # type: ignore[misc]
        counted["signals"] += len(sent)
        counted[_column(found)] += 1
        number += 1
    return counted


def _column(found: str) -> str:
    return {"equal": "bitwise_equal", "failed": "failed"}.get(found, "different")


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


def arguments(place: Path, out: Path, workers: int, steps: int) -> list[str]:
    """Return the command line of a small run."""
    drawn = [f"{part}_identities={count}" for part, count in (("train", 20), ("held_out", 6), ("evaluation", 6))]
    drawn += [f"{part}_images=[4,4]" for part in ("train", "held_out", "evaluation")] + ["size=40"]
    return [
        f"hydra.run.dir={out}",
        "resume=auto",
        *(f"data.synthetic.{option}" for option in drawn),
        f"data.cache_dir={place / 'cache'}",
        "model.input_size=[32,32]",
        "model.dropout=0.1",
        "sampler.batch_size=24",
        "sampler.faces_per_identity=4",
        f"trainer.max_steps={steps}",
        f"trainer.val_check_interval={steps // 3}",
        "trainer.log_every_n_steps=1",
        "trainer.accelerator=cpu",
        f"loader.workers={workers}",
        f"loader.cache={'none' if workers else 'auto'}",
    ]


def command(given: list[str], temporary: str = "", mark: str = "") -> subprocess.Popen[str]:
    """Start the command; :func:`alive` finds its processes by the `mark`."""
    own = {**environment(temporary), "OMP_NUM_THREADS": "1", MARK: mark}
    line = [sys.executable, str(COMMAND), *given]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=own)


def undisturbed(given: list[str], temporary: str = "") -> None:
    """Run the command to its end; raises DataError if it fails."""
    process = command(given, temporary)
    errors = process.communicate(timeout=300)[1]
    if process.returncode:
        raise DataError(f"{COMMAND} ended with {process.returncode}: {' '.join(errors.split())}")


def stopped(given: list[str], after: float, temporary: str = "") -> tuple[int, str, int]:
    """Send SIGTERM some seconds after the third step; return exit code, errors and the number of processes left."""
    mark = uuid.uuid4().hex
    process = command(given, temporary, mark)
    assert process.stdout is not None
    any("training: 3 of" in line for line in process.stdout)  # there is something to save by then
    time.sleep(after)
    process.send_signal(signal.SIGTERM)
    errors = process.communicate(timeout=120)[1]
    return process.returncode, errors, len(alive(mark))


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
        if code == 0:  # it had ended
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


def alive(mark: str) -> list[int]:
    """Return the processes with this mark in their environment, after half a second at most."""
    found: list[int] = []
    for _ in range(10):
        found = [int(folder.name) for folder in Path("/proc").glob("[0-9]*") if _marked(folder, mark)]
        if not found:
            break
        time.sleep(0.05)
    return found


def _marked(folder: Path, mark: str) -> bool:
    try:
        return f"{MARK}={mark}".encode() in (folder / "environ").read_bytes()
    except OSError:
        return False
