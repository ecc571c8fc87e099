"""Commands as a user types them: in this process, or in one of their own."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra.core.global_hydra import GlobalHydra

from tests.helpers import ROOT


def command(name: str, *arguments: object, out: Path) -> subprocess.CompletedProcess[str]:
    """Run scripts/NAME.py in a process of its own."""
    line = [sys.executable, str(ROOT / "scripts" / f"{name}.py"), *map(str, arguments), f"hydra.run.dir={out}"]
    return subprocess.run(line, capture_output=True, text=True, check=False, cwd=out.parent)


def mistaken(
    name: str, *arguments: object, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str]:
    """Run a command in this process, for the sake of CPU time; return its exit code and what it wrote as an error."""
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments), f"hydra.run.dir={out}"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    try:
        with pytest.raises(SystemExit) as stopped:
            importlib.import_module(f"facenet.commands.{name}").main()
    finally:
        GlobalHydra.instance().clear()
    return int(stopped.value.code or 0), capsys.readouterr().err


def succeed(name: str, *arguments: object, out: Path) -> dict[str, Any]:
    """Run a command in this process, which saves the seconds that its imports take; return its metrics."""
    printed, said, before = io.StringIO(), io.StringIO(), (sys.argv, sys.path[:], Path.cwd())
    code: Any = 0
    sys.argv = [f"{name}.py", *map(str, arguments), f"hydra.run.dir={out}"]
    os.chdir(out.parent)
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(said):
            importlib.import_module(f"facenet.commands.{name}").main()
    except SystemExit as stopped:
        code = stopped.code
    finally:
        sys.argv, sys.path[:] = before[:2]
        os.chdir(before[2])
        GlobalHydra.instance().clear()
    assert not code, said.getvalue()
    assert said.getvalue() == "", "no warning is printed"
    assert "metrics.json" in printed.getvalue()
    return json.loads((out / "metrics.json").read_text())


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
