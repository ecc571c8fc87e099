"""Help texts, and ``docs/commands.md``, from the fields of the options and the files of ``conf/``."""

from __future__ import annotations

import dataclasses
import re
import shutil
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import MISSING
from pathlib import Path
from typing import Any

from facenet.commands.options import CommandOptions, EncoderUse, command_module
from facenet.errors import ConfigError, nearest
from facenet.options import Described, describe, group_of

LONG = 30  # options that still stand on one screen
HYDRA = "Hydra's own: -m for sweeps, --cfg job to print the options, hydra.run.dir=PATH for the run folder."


def help_text(name: str, options: type[Any], doc: str, conf: Path, group: str | None = None) -> str:
    """Return one screen on a command: what it does, examples, choices, and options with default and help.

    Groups of a command with many options are named only; `group` lists one of them. Examples and notes are the first
    comment of ``conf/<name>.yaml``, the line of a choice is the first comment of its file.

    Raises:
        ConfigError: the command has no such group; the nearest is named.
    """
    rows, groups = list(describe(options)), groups_of(options)
    if group is not None:
        if group not in groups:
            raise ConfigError(f"{name} --help {group}: no such group of options{nearest(group, groups)}")
        lines = [f"facenet {name}: options of {group}. {groups[group]}", "", *choice_lines(conf / group, group)]
        return "\n".join([*lines, *option_lines(row for row in rows if row.name.startswith(f"{group}."))])
    folded = groups if len(rows) > LONG else {}
    lines = [f"facenet {name}: {first_paragraph(doc)}", "", *usage(name, conf)]
    if chosen := choices_of(name, conf):
        lines += ["", "choices, GROUP=NAME:", *columns([(each, ", ".join(known)) for each, known in chosen.items()])]
    shared = {item.name for base in (CommandOptions, EncoderUse) for item in dataclasses.fields(base)}
    shown = [row for row in rows if row.name.partition(".")[0] not in folded]
    shown.sort(key=lambda row: (row.name in shared, row.default is not MISSING))
    lines += ["", "options, KEY=VALUE:", *option_lines(shown)]
    if folded:
        lines += ["", f"groups of options, GROUP.KEY=VALUE; facenet {name} --help GROUP lists them:"]
        lines += columns([*folded.items()])
    return "\n".join([*lines, "", HYDRA])


def usage(name: str, conf: Path) -> list[str]:
    """Return the examples and notes of a command, which are the first comment of its file."""
    text = (conf / f"{name}.yaml").read_text().split("defaults:")[0]
    lines = [line.removeprefix("#").removeprefix(" ") for line in text.splitlines() if line.startswith("#")]
    examples = [line for line in lines if line.startswith("facenet ")]
    notes = [line for line in lines if line not in examples]
    return [*examples, *([""] if notes else []), *notes]


def choices_of(name: str, conf: Path) -> dict[str, list[str]]:
    """Return the groups of ``conf/`` that a command takes, each with its choices."""
    lines = (conf / f"{name}.yaml").read_text().splitlines()
    named = [line.strip(" -").split(":")[0] for line in lines if line.startswith("  - ")]
    groups = [group for group in named if "/" not in group and (conf / group).is_dir()]
    return {group: sorted(path.stem for path in (conf / group).glob("*.yaml")) for group in groups}


def choice_lines(folder: Path, group: str) -> list[str]:
    """Return a line for each choice of a group of ``conf/``; none without such a folder."""
    files = sorted(folder.glob("*.yaml"))
    return [*columns([(f"{group}={path.stem}", choice_line(path)) for path in files]), ""] if files else []


def choice_line(path: Path) -> str:
    """Return what a file of ``conf/`` says of itself: the first sentence of its comments, examples left out."""
    lines = path.read_text().splitlines()
    comments = [line.removeprefix("#").strip() for line in lines if line.startswith("#")]
    comments = comments or [line.partition("#")[2].strip() for line in lines[:1]]
    text = " ".join(line for line in comments if not line.startswith(("@package", "facenet ")))
    return re.split(r"(?<=[.?]) |: facenet ", text)[0].rstrip(":")


def groups_of(options: type[Any]) -> dict[str, str]:
    """Return the groups of a command's options, each with the first sentence of its class."""
    found = {item.name: group_of(options, item.name) for item in dataclasses.fields(options)}
    texts = {name: first_paragraph(kind.__doc__ or "") for name, kind in found.items() if kind is not None}
    return {name: re.sub(r":\w+:`([^`]*)`", r"\1", text) for name, text in texts.items()}


def first_paragraph(doc: str) -> str:
    return " ".join(doc.split("\n\n")[0].split())


def option_lines(rows: Iterable[Described]) -> list[str]:
    """Return options with their defaults and what they are."""
    return columns([(f"{row.name}={shown(row.default)}", explained(row)) for row in rows])


def explained(row: Described) -> str:
    """Return the help of an option, and its choices unless the help names them all."""
    told = set(re.findall(r"[\w-]+", row.help)).issuperset(row.choices)
    return row.help if told else f"{row.help} ({', '.join(row.choices)})"


def shown(value: Any) -> str:
    """Return a default as a user would type it; nothing for an option that must be given."""
    if value is MISSING or value is None or isinstance(value, bool):
        return "..." if value is MISSING else "null" if value is None else str(value).lower()
    return f"[{','.join(map(str, value))}]" if isinstance(value, list) else str(value)


def columns(rows: list[tuple[str, str]]) -> list[str]:
    """Lay out names and texts in two columns, as wide as the terminal."""
    total = min(120, shutil.get_terminal_size((100, 24)).columns)
    left = min(36, max((len(name) for name, _ in rows), default=0)) + 4
    return [line for name, text in rows for line in _row(name, text, left, total)]


def _row(name: str, text: str, left: int, total: int) -> Iterator[str]:
    parts = textwrap.wrap(text, max(30, total - left)) or [""]
    start = f"  {name}"
    if len(start) > left - 2:
        yield start
        start = ""
    for part in parts:
        yield f"{start:<{left}}{part}".rstrip()
        start = ""


def page(commands: Iterable[tuple[str, type[Any], str]], conf: Path) -> str:
    """Return ``docs/commands.md``: every command with its examples, choices and options.

    Args:
        commands: Name, class of the options and docstring of each.
        conf: The folder of option files.
    """
    parts = [
        "# Commands",
        "",
        "Every command, its examples and its options. `facenet COMMAND --help` prints the same.",
        "",
    ]
    for name, options, doc in commands:
        parts += [
            f"## facenet {name}",
            "",
            first_paragraph(doc),
            "",
            "```text",
            *usage(name, conf),
            "```",
            "",
        ]
        if chosen := choices_of(name, conf):
            parts += ["| choice | what it is |", "|---|---|"]
            parts += [
                f"| `{group}={each}` | {cell(choice_line(conf / group / f'{each}.yaml'))} |"
                for group, known in chosen.items()
                for each in known
            ]
            parts.append("")
        parts += ["| option | default | what it is |", "|---|---|---|"]
        parts += [
            f"| `{row.name}` | `{cell(shown(row.default))}` | {cell(explained(row))} |" for row in describe(options)
        ]
        parts.append("")
    return "\n".join(parts)


def cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def main() -> None:
    """Print ``docs/commands.md``: python -m facenet.commands.help > docs/commands.md."""
    from facenet.commands.launch import CONF, options_of
    from facenet.commands.main import COMMANDS

    modules = {name: command_module(name) for name in COMMANDS}
    print(page([(name, options_of(each.run), each.__doc__ or "") for name, each in modules.items()], CONF), end="")


if __name__ == "__main__":
    main()
