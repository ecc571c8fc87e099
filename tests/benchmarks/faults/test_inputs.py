"""Some mistakes of the table, drawn from a seed; and the campaign itself sees an unclear line or a changed file."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.faults import inputs as room
from benchmarks.faults.inputs import BASE, CASES, PLACES, SCRIPTS, Case, Outcome, amiss, make_world, play, run

CLEAN = {"tracebacks": 0, "wrong_exit_codes": 0, "unclear": 0, "changed": 0}


def test_a_few_mistakes_are_one_clear_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    told = run(cases=12, children=1, seed=1)
    printed = capsys.readouterr().out
    assert told["bad input"] == {"cases": 12, "one_clear_line": 12, **CLEAN}, printed
    assert told["bad input, by processes"] == {"cases": 1, "one_clear_line": 1, **CLEAN}, printed


def test_every_command_has_cases_and_every_name_stands_for_something() -> None:
    commands = {path.stem for path in SCRIPTS.glob("*.py")} - {"launch", "schema"}
    assert set(BASE) == commands
    assert min(Counter(case.command for case in CASES).values()) >= 5
    assert set(Counter(CASES).values()) == {1}, "no case twice"
    assert {name for case in CASES for name in re.findall(r"(?<!\{)\{(\w+)\}", case.arguments)} <= set(PLACES)
    assert {case.code for case in CASES} == {2, 3}


@pytest.mark.parametrize(
    ("outcome", "found"),
    [
        (Outcome(2, "error: seed: expected 1"), []),
        (Outcome(3, "error: seed: expected 1"), ["wrong_exit_codes"]),
        (Outcome(2, "error: what"), ["unclear"]),
        (Outcome(2, "a warning\nerror: seed"), ["unclear"]),
        (Outcome(1, "", "ValueError: seed"), ["tracebacks", "wrong_exit_codes", "unclear"]),
        (Outcome(2, "error: seed", "", ("x",)), ["changed"]),
    ],
)
def test_what_is_amiss_is_seen(outcome: Outcome, found: list[str]) -> None:
    assert amiss(Case("train", "", 2, "seed"), outcome) == found


def test_a_file_that_is_written_or_lost_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make_world(tmp_path)
    (tmp_path / "scripts").mkdir()
    for name, does in {
        "write": "write_text('x')",
        "lose": "unlink()",
        "crash": "read_bytes().decode('no such')",
    }.items():
        code = f"import sys; from pathlib import Path; Path(sys.argv[1]).{does}; sys.exit(3)"
        (tmp_path / "scripts" / f"{name}.py").write_text(code)
    monkeypatch.setattr(room, "SCRIPTS", tmp_path / "scripts")
    assert play(world, Case("write", "{new}", 3, "")).changed == (str(tmp_path / "new"),)
    assert play(world, Case("lose", "{broken}", 3, "")).changed == (str(tmp_path / "broken.jpg"),)
    crashed = play(world, Case("crash", "{text}", 3, ""))
    assert (crashed.code, crashed.crash.split(":")[0], crashed.changed) == (1, "LookupError", ())
