"""Help texts and ``docs/commands.md``, which have one source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from facenet.commands.help import choice_line, choices_of, explained, groups_of, help_text, page
from facenet.commands.launch import CONF, options_of
from facenet.commands.main import COMMANDS
from facenet.commands.options import command_module
from facenet.errors import ConfigError
from facenet.options import describe
from tests.helpers import ROOT
from tests.helpers.commands import play


def command(name: str) -> tuple[str, type[Any], str]:
    module = command_module(name)
    return name, options_of(module.run), module.__doc__ or ""


EVERY = [command(name) for name in COMMANDS]


@pytest.mark.parametrize(("name", "options", "doc"), EVERY, ids=[*COMMANDS])
def test_every_option_and_choice_has_its_line(name: str, options: type[Any], doc: str) -> None:
    texts = [
        help_text(name, options, doc, CONF),
        *(help_text(name, options, doc, CONF, group) for group in groups_of(options)),
    ]
    assert texts[0].count(f"\nfacenet {name}") >= 2, "two examples"
    for row in describe(options):
        assert row.help, row.name
        assert all(choice in explained(row) for choice in row.choices), row.name
        assert any(f"  {row.name}=" in text for text in texts), row.name
    for group, known in choices_of(name, CONF).items():
        assert f"\n  {group} " in texts[0]
        for choice in known:
            assert choice_line(CONF / group / f"{choice}.yaml"), f"conf/{group}/{choice}.yaml needs a first comment"


@pytest.mark.parametrize(("name", "options", "doc"), EVERY, ids=[*COMMANDS])
def test_help_stands_on_one_screen(name: str, options: type[Any], doc: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = help_text(name, options, doc, CONF).splitlines()
    assert len(lines) <= 60
    assert "scripts/" not in "\n".join(lines)


def test_a_group_is_asked_for_by_name(tmp_path: Path) -> None:
    shown = play("train", "model", "--help").text
    assert "model=nn4" in shown
    assert "model.attention.heads=4" in shown
    assert "optim.lr" not in shown
    missed = play("train", "modle", "--help")
    assert (missed.code, missed.errors.count("\n")) == (2, 1)
    assert "did you mean 'model'?" in missed.errors


def test_a_group_that_no_command_has_is_refused() -> None:
    with pytest.raises(ConfigError, match="summary --help data: no such group"):
        help_text(*command("summary"), CONF, "data")


def test_the_page_of_commands_is_what_help_says() -> None:
    """Write it anew by ``python -m facenet.commands.help > docs/commands.md``."""
    assert (ROOT / "docs" / "commands.md").read_text() == page(EVERY, CONF)
