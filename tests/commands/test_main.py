"""``facenet COMMAND``: the same commands under one name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from facenet.commands import completion
from facenet.commands import main as front
from facenet.commands.launch import RUN_FOLDER
from tests.helpers import ROOT
from tests.helpers.commands import play


def typed(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["/venv/bin/facenet", *arguments])
    monkeypatch.setenv(front.COMMAND, "")  # taken back after the test
    front.main()


def test_every_command_is_listed_once() -> None:
    assert set(front.COMMANDS) == {path.stem for path in (ROOT / "conf").glob("*.yaml")} - {"base"}
    assert set(front.COMMANDS) == {path.stem for path in (ROOT / "scripts").glob("*.py")}
    assert sum(len(commands) for commands in front.TASKS.values()) == len(front.COMMANDS)


def test_a_command_is_the_script_of_its_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    typed(monkeypatch, "summary", "model=small", f"hydra.run.dir={tmp_path}/a")
    shown = capsys.readouterr().out
    assert play("summary", "model=small", out=tmp_path / "b").text == shown.replace(f"{tmp_path}/a", f"{tmp_path}/b")
    assert (tmp_path / "a/metrics.json").read_bytes() == (tmp_path / "b/metrics.json").read_bytes()


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_help_lists_the_commands_by_task(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed(monkeypatch, *arguments)
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines if line.startswith("  ")} == set(front.COMMANDS)
    assert {line[:-1] for line in lines if line.endswith(":")} == set(front.TASKS)
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(("name", "said"), [("serch", "did you mean 'search'?"), ("-x", "facenet --help")])
def test_an_unknown_command_names_the_nearest(
    name: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        typed(monkeypatch, name)
    error = capsys.readouterr().err
    assert (stopped.value.code, error.count("\n")) == (2, 1)
    assert said in error


def test_a_rank_that_lightning_starts_without_the_command_runs_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(RUN_FOLDER, "run")
    monkeypatch.setenv(front.COMMAND, "search")
    monkeypatch.setattr(sys, "argv", ["/venv/bin/facenet", "gallery=x", "--help"])
    front.main()
    assert "gallery=..." in capsys.readouterr().out


def test_a_shell_completes_what_is_typed(tmp_path: Path) -> None:
    cases = {
        "facenet tra": "train tracks",
        "facenet train model=nn": "nn1 nn2 nn3 nn4 nns1 nns2",  # bash splits at "="
        "facenet train optim=adamw optim.weight_d": "optim.weight_decay=",
        "facenet train model.nor": "model.norm=batch model.norm=lrn",
        "facenet search gallery=gal": "gallery",
        "facenet search enco": "encoder=",
    }
    (tmp_path / "gallery").mkdir()
    ask = 'for COMP_LINE in "$@"; do COMP_POINT=${#COMP_LINE}; _facenet; echo "${COMPREPLY[@]}"; done'
    shell = ["bash", "-c", completion.script() + ask, "bash", *cases]
    told = subprocess.run(shell, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert told.stderr == ""
    assert dict(zip(cases, told.stdout.splitlines(), strict=True)) == cases


@pytest.mark.parametrize(("given", "shown"), [(["embed", "--help"], "facenet embed"), (["--help"], "usage: facenet")])
def test_a_command_that_a_job_starts_is_no_rank_of_it(
    given: list[str], shown: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(RUN_FOLDER, "run")
    monkeypatch.setenv(front.COMMAND, "search")
    monkeypatch.setattr(sys, "argv", ["/venv/bin/facenet", *given])
    front.main()
    assert capsys.readouterr().out.startswith(shown)
