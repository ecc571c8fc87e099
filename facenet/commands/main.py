"""``facenet COMMAND KEY=VALUE ...``: every command under one name, the same as ``python scripts/COMMAND.py``."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

from facenet import __version__
from facenet.commands.launch import RUN_FOLDER
from facenet.commands.options import command_module
from facenet.console import one_line_errors
from facenet.errors import ConfigError, nearest

COMMAND = "FACENET_COMMAND"  # names the command to the other ranks: Lightning starts them without the first argument
ABOUT = ("help", "--help", "-h", "--version", "--completion")

TASKS = {
    "Try it": {"quickstart": "train, verify and ask on drawn faces, in minutes and without data"},
    "Photos": {
        "compare": "are two photos one person?",
        "align": "cut the faces out of photographs",
    },
    "Train": {
        "scan": "read a large face set once, and index it",
        "train": "train an encoder on drawn faces or your own",
        "summary": "layers, weights and operations of a net",
        "tracks": "train one template for the frames of a video's track",
    },
    "Measure": {
        "verify": "accuracy, ROC and rates on pairs of faces",
        "pairs": "pairs drawn among your own faces, or unpacked from a .bin set",
        "ijb": "IJB-B and IJB-C: templates, verification and search",
        "calibrate": "thresholds from your own faces",
        "degrade": "accuracy on faces that are compressed, blurred, covered",
        "report": "one HTML page from run folders",
        "benchmark": "time and memory against peers; needs a clone of the repository",
    },
    "Galleries": {
        "embed": "faces of a folder to vectors",
        "index": "make a gallery, add to it, remove, export, check",
        "search": "who is this? the nearest faces, accepted or rejected",
        "cluster": "group faces without names by person",
        "serve": "who is this, over HTTP, with a page",
    },
    "Ship and upgrade": {
        "ensemble": "several encoders as one, with several views of a face",
        "import": "weights that others trained, as an encoder",
        "push": "an encoder to the Hugging Face Hub",
        "export": "an encoder as one ONNX file, also in 8 bits",
        "compat": "may a new encoder join the old one's gallery?",
    },
}
COMMANDS = {name: line for task in TASKS.values() for name, line in task.items()}


def overview() -> str:
    """Return the commands by task, a line each."""
    width = max(map(len, COMMANDS))
    lines = ["usage: facenet COMMAND [KEY=VALUE ...]", ""]
    for task, commands in TASKS.items():
        lines += [f"{task}:", *(f"  {name:<{width}}  {line}" for name, line in commands.items()), ""]
    lines += [
        "facenet COMMAND --help lists its options. facenet --version prints the version.",
        'eval "$(facenet --completion)" completes commands, options and choices in bash.',
    ]
    return "\n".join(lines)


def names_command(arguments: Sequence[str]) -> bool:
    """Whether arguments were typed, perhaps by a program within a job; those of a rank leave the command out."""
    return bool(arguments) and arguments[0] in (*COMMANDS, *ABOUT)


def main() -> None:
    """Run the command that the first argument names, or print the commands."""
    if RUN_FOLDER in os.environ and COMMAND in os.environ and not names_command(sys.argv[1:]):  # another rank of a job
        sys.argv.insert(1, os.environ[COMMAND])
    if sys.argv[1:2] == ["help"]:  # facenet help COMMAND, as of git
        sys.argv[1:] = [*sys.argv[2:], "--help"]
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    with one_line_errors():
        if name in ("--help", "-h", "--version"):
            print(f"facenet {__version__}" if name == "--version" else overview())
            return
        if name == "--completion":
            print(importlib.import_module("facenet.commands.completion").script(), end="")
            return
        if name not in COMMANDS:
            raise ConfigError(f"unknown command {name!r}{nearest(name, COMMANDS)}; facenet --help lists the commands")
    os.environ[COMMAND] = name
    del sys.argv[1]
    command_module(name).main()
