"""Arguments in the words of Hydra, and Hydra's errors in the words of the command line."""

from __future__ import annotations

import dataclasses
import re

from facenet.commands.options import CommandOptions
from facenet.errors import ConfigError, nearest


def quoted(argument: str) -> str:
    r"""Return an argument as Hydra reads it: a value that its grammar does not take (accents, parentheses) in quotes.

    >>> quoted("a=photo (1).jpg"), quoted("images=José"), quoted("seed=0,1"), quoted("query='José'")
    ("a='photo (1).jpg'", "images='José'", 'seed=0,1', "query='José'")

    Raises:
        ConfigError: bytes that are no UTF-8, which no configuration can hold.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    if not argument.isprintable() and argument != argument.encode("utf-8", "replace").decode():
        shown = argument.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        raise ConfigError(f"{shown}: the argument is not UTF-8; rename what it names, or pass a link to it")
    key, _, value = argument.partition("=")
    if argument.startswith("-") or not value or value[0] in "'\"[{":
        return argument
    try:
        OverridesParser.create().parse_override(argument)
    except HydraException:
        escaped = value.replace("'", "\\'")
        return f"{key}='{escaped}'"
    return argument


def explain(error: Exception, options: type[CommandOptions]) -> str:
    """Put a composition error into one line that names the key or choice and the nearest known one."""
    from hydra.errors import OverrideParseException

    chain = [error]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)  # type: ignore[arg-type]
    text = " ".join(" ".join(str(item) for item in chain).split())
    if isinstance(error, OverrideParseException):
        given = error.override.removeprefix("++")
        return f"argument {given!r}: not understood as KEY=VALUE; put the value in quotes: KEY=\"'VALUE'\""
    wrong = re.search(r"override (\S+?)=.* Value '(.*)' of type '\w+' could not be converted to (\w+)", text)
    if wrong:
        kinds = {"Integer": "a whole number", "Float": "a number", "Boolean": "true or false"}
        return f"{wrong[1].lstrip('+')}: expected {kinds.get(wrong[3], wrong[3])}, got {wrong[2]!r}"
    choice = re.search(
        r"Could not find '([^']+)/([^']+)' Available options in '[^']+': (.*?)(?: Config search|$)", text
    )
    if choice:
        group, name, known = choice.group(1), choice.group(2), choice.group(3).split()
        return f"{group}: unknown choice {name!r}{nearest(name, known)}; known: {', '.join(known)}"
    key = re.search(r"Could not override '([^']+)'", text)
    if key:
        known = [item.name for item in dataclasses.fields(options)]
        return f"unknown option {key.group(1)!r}{nearest(key.group(1), known)}; known: {', '.join(known)}"
    return re.sub(r"\s*(reference_type|object_type|Set the environment variable).*", "", text)
