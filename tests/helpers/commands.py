"""Commands as a user types them, run in this process; and what a process of a distributed job is given."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hydra._internal.hydra import Hydra
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode

from facenet.commands.options import command_module
from tests.helpers import ROOT

PROGRESS = re.compile(r"^[\w ,]+: \d+ of \d+.*\n", re.MULTILINE)  # lines of work that takes long on a busy machine


class Played(NamedTuple):
    """What came of a command."""

    code: int  # its exit code
    text: str  # standard output
    errors: str  # standard error
    metrics: dict[str, Any]  # metrics.json of its run folder; empty if there is none


@contextlib.contextmanager
def shared_store() -> Iterator[None]:
    """Spare Hydra its copies of the schemas of all commands: a third of a composition, after many commands."""
    ConfigStore.__deepcopy__ = lambda store, memo: store  # type: ignore[attr-defined]
    try:
        yield
    finally:
        del ConfigStore.__deepcopy__  # type: ignore[attr-defined]


@contextlib.contextmanager
def composed_once(arguments: Sequence[object]) -> Iterator[None]:
    """Spare Hydra the composition by which it learns that a command is one run: a third of a refused command's time.

    A sweep, which an experiment may ask for, is left to Hydra.
    """
    kept = Hydra.get_mode
    if not any(str(argument).startswith(("-", "experiment=", "hydra.mode=")) for argument in arguments):
        Hydra.get_mode = lambda *args, **kwargs: RunMode.RUN  # type: ignore[method-assign]
    try:
        with shared_store():
            yield
    finally:
        Hydra.get_mode = kept  # type: ignore[method-assign]


def play(name: str, *arguments: object, out: Path | None = None, given: str = "") -> Played:
    """Run a command in this process, which saves the CPU time of its imports, from the folder that `out` lies in.

    `given` is its standard input. Without `out` the arguments name the run folder, or the folder of a sweep.
    """
    text, errors = io.StringIO(), io.StringIO()
    before = sys.argv, sys.path[:], sys.stdin, Path.cwd(), dict(os.environ)
    sys.argv = [f"{name}.py", *map(str, arguments), *([f"hydra.run.dir={out}"] if out else [])]
    sys.stdin = io.StringIO(given)
    code: Any = 0
    try:
        if out:
            os.chdir(out.parent)
        with composed_once(arguments), contextlib.redirect_stdout(text), contextlib.redirect_stderr(errors):
            command_module(name).main()
    except SystemExit as stopped:
        code = stopped.code or 0
    finally:
        sys.argv, sys.path[:], sys.stdin = before[:3]
        os.chdir(before[3])
        os.environ.clear()
        os.environ.update(before[4])
        GlobalHydra.instance().clear()
    file = out / "metrics.json" if out else None
    metrics = json.loads(file.read_text()) if file and file.is_file() else {}
    return Played(code, text.getvalue(), errors.getvalue(), metrics)


def mistaken(name: str, *arguments: object, out: Path) -> tuple[int, str]:
    """Run a command that must not succeed; return its exit code and what it wrote as an error."""
    played = play(name, *arguments, out=out)
    assert played.code, played.text
    return played.code, played.errors


def every_fourth(rows: Sequence[Any]) -> list[Any]:
    """Rows of mistakes for ``parametrize``: each costs half a second of composing, so most are played with -m slow."""
    given = [row if isinstance(row, tuple) else (row,) for row in rows]
    return [pytest.param(*row, marks=[pytest.mark.slow] if i % 4 else []) for i, row in enumerate(given)]


def succeed(name: str, *arguments: object, out: Path) -> dict[str, Any]:
    """Run a command that must succeed without a warning; return its metrics."""
    played = play(name, *arguments, out=out)
    assert (played.code, re.sub(PROGRESS, "", played.errors)) == (0, ""), repr(played.errors)
    assert "metrics.json" in played.text
    return played.metrics


TINY = [
    "data.synthetic.train_identities=24",
    "data.synthetic.held_out_identities=6",
    "data.synthetic.evaluation_identities=6",
    "data.synthetic.train_images=[1,6]",
    "data.synthetic.held_out_images=[4,4]",
    "data.synthetic.evaluation_images=[4,4]",
    "data.synthetic.size=40",
    "model.input_size=[32,32]",
    "model.dropout=0.1",
    "sampler.batch_size=24",
    "sampler.faces_per_identity=4",
    "trainer.val_check_interval=2",
    "trainer.accelerator=cpu",
    "trainer.devices=2",
]


TRAIN = [sys.executable, str(ROOT / "scripts" / "train.py")]


def environment() -> dict[str, str]:
    own = {key: value for key, value in os.environ.items() if key not in ("RANK", "LOCAL_RANK", "WORLD_SIZE")}
    return {**own, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
