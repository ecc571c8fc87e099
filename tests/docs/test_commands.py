"""Every ``facenet COMMAND ...`` line of README and docs/ names options and choices that the command has."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator

import pytest

from facenet.commands.launch import CONF, check_argument, is_group, options_of
from facenet.commands.main import COMMANDS
from facenet.commands.options import CommandOptions, command_module
from facenet.errors import ConfigError, nearest
from facenet.options import describe
from tests.helpers import ROOT
from tests.helpers.pages import NAMES, blocks

COMMAND = re.compile(r"\s*(?:\w+=\S+ )*(?:torchrun (?:-\S+ )+)?(?:facenet|(?:python )?(?:scripts/)?(\w+)\.py)\s+(\S.*)")
PLACEHOLDER = re.compile(r"[A-Z][A-Z_]*|\.\.\.|")  # ENCODER, ..., nothing
FREE = re.compile(rf"{PLACEHOLDER.pattern}|null|[\d.]+")  # values that choices stand beside


def lines_of(page: str) -> Iterator[str]:
    """Yield the lines of a page that call a command: of its blocks, and inline code."""
    text = (ROOT / page).read_text()
    for block in blocks(page):
        if block.language in ("", "bash", "text", "console"):
            yield from re.sub(r"\\\n\s*", "", block.text).splitlines()
    outside = re.sub(r"^ *```.*?^ *```", "", text, flags=re.M | re.S)
    yield from (" ".join(code.split()) for code in re.findall(r"`([^`]+)`", outside))


def calls(line: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the commands that a line calls, each with its arguments."""
    for part in re.split(r"&&| \| |;|\s#|: (?=[a-z])", line):
        found = COMMAND.match(part)
        if found and (found[1] in COMMANDS or not found[1]):
            arguments = [word.strip("[]") if word[0] == "[" else word.removesuffix("]") for word in found[2].split()]
            name = found[1] or arguments.pop(0)
            yield name, tuple(word for word in arguments if "=" in word)


@functools.cache
def known_of(name: str) -> tuple[type[CommandOptions], dict[str, tuple[str, ...]]]:
    """Return the class of a command's options, and their names with their choices."""
    options = options_of(command_module(name).run)
    return options, {row.name: row.choices for row in describe(options)}


@functools.cache
def check(name: str, arguments: tuple[str, ...]) -> None:
    """Refuse an unknown command, option or choice.

    Raises:
        ConfigError: naming it.
    """
    if PLACEHOLDER.fullmatch(name) or name.startswith("-"):
        return
    if name not in COMMANDS:
        raise ConfigError(f"unknown command {name!r}{nearest(name, COMMANDS)}")
    options, choices = known_of(name)
    for argument in arguments:
        key, _, value = argument.partition("=")
        if PLACEHOLDER.fullmatch(key.rpartition(".")[2]):
            continue
        if key not in choices:  # a group, a name of a mapping, or a mistake
            check_argument(options, argument)
        values = [each for each in value.strip("[]'\"").split(",") if not FREE.fullmatch(each)]
        if is_group(key) and not key.startswith("hydra"):
            known = [path.stem for path in (CONF / key).glob("*.yaml")]
        else:
            known = list(choices.get(key) or values)
        for each in values:
            if each not in known:
                raise ConfigError(f"{key}: unknown choice {each!r}{nearest(each, known)}")
        if key.startswith("benchmark."):
            check_benchmark(arguments, key)


def check_benchmark(arguments: tuple[str, ...], key: str) -> None:
    """Refuse an option that no field of the benchmark's module has."""
    names = [argument.partition("=")[2] for argument in arguments if argument.startswith("benchmark=")]
    for name in names or ["*"]:
        sources = [*(ROOT / "benchmarks").glob(f"{name}.py"), *(ROOT / "benchmarks" / name).glob("*.py")]
        text = "".join(source.read_text() for source in sources)
        for part in key.split(".")[1:]:
            if not re.search(rf"^    {part}: ", text, re.M):
                raise ConfigError(f"unknown option {key!r} of benchmark={name}")


@pytest.mark.parametrize("page", NAMES)
def test_every_command_line_names_what_exists(page: str) -> None:
    wrong = []
    for line in lines_of(page):
        for name, arguments in calls(line):
            try:
                check(name, arguments)
            except ConfigError as error:
                wrong.append(f"{page}: {line}: {error}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("facenet trian data=folder", "did you mean 'train'"),
        ("facenet train mode=nn1", "unknown option 'mode'"),
        ("facenet train model=nn5", "unknown choice 'nn5'"),
        ("a.py && facenet train data.align.detector=yolo  # no", "unknown choice 'yolo'"),
        ("ls | facenet search galery=G [k=5]", "unknown option 'galery'"),
        ("python scripts/benchmark.py benchmark=mining benchmark.size=1", "unknown option 'benchmark.size'"),
        ("facenet compare [encodr=DIR]", "unknown option 'encodr'"),
        ("torchrun --no-python --nproc-per-node=8 facenet train modle=nn1", "unknown option 'modle'"),
    ],
)
def test_a_wrong_line_is_found(line: str, said: str) -> None:
    (call,) = calls(line)
    with pytest.raises(ConfigError, match=said):
        check(*call)
