"""Mistakes of a new user at every command: one clear line, the right exit code, and no file changed.

The table is :mod:`tests.commands.mistakes`. By default a sample of it is played, with ``-m slow`` all of it.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import re
import runpy
import signal
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import pytest
from hydra.core.global_hydra import GlobalHydra

from benchmarks.faults.rights import without_root_power
from tests.commands.mistakes.shared import CASES, RANGES, SHARED
from tests.commands.mistakes.single import BASE, SINGLE, Case
from tests.commands.mistakes.world import PLACES, World, make_world
from tests.helpers import ROOT
from tests.helpers.commands import composed_once

SCRIPTS = ROOT / "scripts"
PATIENCE = 120  # seconds after which a case hangs


class Outcome(NamedTuple):
    """What came of a case."""

    code: int
    errors: str  # standard error
    crash: str = ""  # the exception that nobody turned into an exit code
    changed: tuple[str, ...] = ()  # files written, changed or gone, except the run folder
    left: bool = False  # a run folder with Hydra's own files alone


def sample() -> set[Case]:
    """One case of each command that is refused before it works, from the three parts of the table by turns."""
    rng, chosen = random.Random(0), set()
    for number, command in enumerate(BASE):
        parts = [[case for case in part if case[::2] == (command, 2)] for part in (SINGLE, SHARED, RANGES)]
        chosen.add(rng.choice(parts[number % 3] or parts[1] or parts[0]))
    return chosen


SAMPLE = sample()
TABLE = [
    pytest.param(case, id=f"{case.command} {number}", marks=[] if case in SAMPLE else pytest.mark.slow)
    for number, case in enumerate(CASES)
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = make_world(tmp_path_factory.mktemp("world"))
    with without_root_power():
        yield made
    (made.root / "closed").chmod(0o755)


def play(world: World, case: Case, scripts: Path = SCRIPTS) -> Outcome:
    """Run a case in this process, which saves the seconds of its imports."""
    before, said = world.state(), io.StringIO()
    kept = sys.argv, sys.path[:], Path.cwd(), dict(os.environ)
    code, crash = 0, ""
    sys.argv = [f"{case.command}.py", *world.line(case)]
    os.chdir(world.root)
    try:
        with (
            limited(),
            composed_once(sys.argv[1:]),
            warnings.catch_warnings(),
            contextlib.redirect_stderr(said),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            runpy.run_path(str(scripts / f"{case.command}.py"), run_name="__main__")
    except SystemExit as stopped:
        code = stopped.code if isinstance(stopped.code, int) else 1
    except Exception as error:
        code, crash = 1, f"{type(error).__name__}: {error}"
    finally:
        sys.argv, sys.path[:] = kept[:2]
        os.chdir(kept[2])
        os.environ.clear()
        os.environ.update(kept[3])
        GlobalHydra.instance().clear()
    left = world.empty_run()
    return Outcome(code, said.getvalue(), crash, world.changes(before), left)


def play_apart(world: World, case: Case) -> Outcome:
    """Run a case as a user does: the command in a process of its own."""
    before = world.state()
    line = [sys.executable, str(SCRIPTS / f"{case.command}.py"), *world.line(case)]
    done = subprocess.run(line, capture_output=True, text=True, check=False, cwd=world.root, timeout=PATIENCE)
    return Outcome(done.returncode, done.stderr, "", world.changes(before))


@contextlib.contextmanager
def limited() -> Iterator[None]:
    """Raise TimeoutError if a case hangs."""

    def late(number: int, frame: FrameType | None) -> None:
        raise TimeoutError("it hangs")

    earlier = signal.signal(signal.SIGALRM, late)
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, earlier)


def problems(case: Case, outcome: Outcome) -> list[str]:
    """What is wrong with the outcome of a case."""
    lines = outcome.errors.strip().splitlines()
    found = []
    if outcome.crash or "Traceback" in outcome.errors:
        found.append("traceback")
    if outcome.code != case.code:
        found.append("exit code")
    if len(lines) != 1 or not lines[0].startswith("error: "):
        found.append("not one line")
    elif not any(word in lines[0] for word in case.says.split("|")):
        found.append("unclear")
    if outcome.changed:
        found.append("changed")
    if outcome.left:
        found.append("run folder")
    return found


@pytest.mark.parametrize("case", TABLE)
def test_a_mistake_is_one_clear_line(case: Case, world: World) -> None:
    outcome = play(world, case)
    assert problems(case, outcome) == [], f"{case.command} {case.arguments}: {outcome}"


@pytest.mark.slow  # sixteen processes import torch
@pytest.mark.parametrize("command", BASE)
def test_a_mistake_is_one_clear_line_in_a_process_of_its_own(command: str, world: World) -> None:
    cases = [case for case in CASES if case.command == command and "{closed}" not in case.arguments]  # open to root
    case = random.Random(command).choice(cases)
    outcome = play_apart(world, case)
    assert problems(case, outcome) == [], f"{case.command} {case.arguments}: {outcome}"


def test_every_command_has_cases_and_every_name_stands_for_something() -> None:
    assert set(BASE) == {path.stem for path in SCRIPTS.glob("*.py")}
    assert min(Counter(case.command for case in CASES).values()) >= 5
    assert set(Counter(CASES).values()) == {1}, "no case twice"
    assert {name for case in CASES for name in re.findall(r"(?<!\{)\{(\w+)\}", case.arguments)} <= set(PLACES)
    assert {case.code for case in CASES} == {2, 3}


@pytest.mark.parametrize(
    ("outcome", "found"),
    [
        (Outcome(2, "error: seed: expected 1"), []),
        (Outcome(3, "error: seed: expected 1"), ["exit code"]),
        (Outcome(2, "error: what"), ["unclear"]),
        (Outcome(2, "a warning\nerror: seed"), ["not one line"]),
        (Outcome(1, "", "ValueError: seed"), ["traceback", "exit code", "not one line"]),
        (Outcome(2, "error: seed", "", ("x",)), ["changed"]),
        (Outcome(2, "error: seed", left=True), ["run folder"]),
    ],
)
def test_a_bad_outcome_is_seen(outcome: Outcome, found: list[str]) -> None:
    assert problems(Case("train", "", 2, "seed"), outcome) == found


def test_a_file_that_is_written_or_lost_is_seen(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir()
    (tmp_path / "scripts").mkdir()
    for name in ("broken.jpg", "text.txt"):
        (tmp_path / name).write_text("text")
    for name, does in {
        "write": "write_text('x')",
        "lose": "unlink()",
        "crash": "read_bytes().decode('no such')",
    }.items():
        code = f"import sys; from pathlib import Path; Path(sys.argv[1]).{does}; sys.exit(3)"
        (tmp_path / "scripts" / f"{name}.py").write_text(code)
    small = World(tmp_path)
    written, lost, crashed = (
        play(small, Case(name, f"{{{place}}}", 3, ""), tmp_path / "scripts")
        for name, place in (("write", "new"), ("lose", "broken"), ("crash", "text"))
    )
    assert written.changed == (str(tmp_path / "new"),)
    assert lost.changed == (str(tmp_path / "broken.jpg"),)
    assert (crashed.code, crashed.crash.split(":")[0], crashed.changed) == (1, "LookupError", ())
