"""Completion of commands, options and choices: ``eval "$(facenet --completion)"`` in ``~/.bashrc``.

The script is for bash. It holds every word, so that a key press starts no Python.
"""

from __future__ import annotations

from facenet.commands.help import choices_of
from facenet.commands.launch import CONF, options_of
from facenet.commands.main import ABOUT, COMMANDS
from facenet.commands.options import command_module
from facenet.options import describe

SCRIPT = """\
_facenet() {{
  local line=${{COMP_LINE:0:$COMP_POINT}} word known
  word=${{line##* }}
  case "$line" in
{cases}
    *) known="{commands}" ;;
  esac
  COMPREPLY=($(compgen -W "$known" -- "$word"))
  case "$word" in
    *=*)  # bash takes what follows "=" for a word of its own; it is a path if the option has no choices
      COMPREPLY=("${{COMPREPLY[@]#"${{word%%=*}}="}}")
      [ -n "$COMPREPLY" ] || COMPREPLY=($(compgen -f -- "${{word#*=}}")) ;;
  esac
}}
complete -o nospace -F _facenet facenet
"""


def script() -> str:
    """Return the shell script that completes every command."""
    cases = "\n".join(f'    "facenet {name} "*) known="{" ".join(words(name))}" ;;' for name in COMMANDS)
    return SCRIPT.format(cases=cases, commands=" ".join((*COMMANDS, *ABOUT)))


def words(name: str) -> list[str]:
    """Return what can be typed after a command: ``group=choice``, ``option=choice``, ``option=``."""
    found = ["--help"]
    groups = choices_of(name, CONF)
    for group, known in groups.items():
        found += [f"{group}={choice}" for choice in known]
    for row in describe(options_of(command_module(name).run)):
        found += [f"{row.name}={choice}" for choice in row.choices or ("",)]
    return found
