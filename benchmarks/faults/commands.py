"""The training command of a small run: started, stopped by SIGTERM, and its processes found."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

from benchmarks.resources import environment
from facenet.errors import DataError

COMMAND = Path(__file__).resolve().parents[2] / "scripts" / "train.py"
MARK = "FACENET_FAULTS"  # environment variable that marks the processes of a command


def arguments(place: Path, out: Path, workers: int, steps: int) -> list[str]:
    """Return the command line of a small run."""
    drawn = [f"{part}_identities={count}" for part, count in (("train", 20), ("held_out", 6), ("evaluation", 6))]
    drawn += [f"{part}_images=[4,4]" for part in ("train", "held_out", "evaluation")] + ["size=40"]
    return [
        f"hydra.run.dir={out}",
        "resume=auto",
        *(f"data.synthetic.{option}" for option in drawn),
        f"data.cache_dir={place / 'cache'}",
        "model.input_size=[32,32]",
        "model.dropout=0.1",
        "sampler.batch_size=24",
        "sampler.faces_per_identity=4",
        f"trainer.max_steps={steps}",
        f"trainer.val_check_interval={steps // 3}",
        "trainer.log_every_n_steps=1",
        "trainer.accelerator=cpu",
        f"loader.workers={workers}",
        f"loader.cache={'none' if workers else 'auto'}",
    ]


def command(given: list[str], temporary: str = "", mark: str = "") -> subprocess.Popen[str]:
    """Start the command; :func:`alive` finds its processes by the `mark`."""
    own = {**environment(temporary), "OMP_NUM_THREADS": "1", MARK: mark}
    line = [sys.executable, str(COMMAND), *given]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=own)


def undisturbed(given: list[str], temporary: str = "") -> None:
    """Run the command to its end; raises DataError if it fails."""
    process = command(given, temporary)
    errors = process.communicate(timeout=300)[1]
    if process.returncode:
        raise DataError(f"{COMMAND} ended with {process.returncode}: {' '.join(errors.split())}")


def stopped(given: list[str], after: float, temporary: str = "") -> tuple[int, str, int]:
    """Send SIGTERM some seconds after the third step; return exit code, errors and the number of processes left."""
    mark = uuid.uuid4().hex
    process = command(given, temporary, mark)
    assert process.stdout is not None
    any("training: 3 of" in line for line in process.stdout)  # there is something to save by then
    time.sleep(after)
    process.send_signal(signal.SIGTERM)
    errors = process.communicate(timeout=120)[1]
    return process.returncode, errors, len(alive(mark))


def alive(mark: str) -> list[int]:
    """Return the processes with this mark in their environment, after half a second at most."""
    found: list[int] = []
    for _ in range(10):
        found = [int(folder.name) for folder in Path("/proc").glob("[0-9]*") if _marked(folder, mark)]
        if not found:
            break
        time.sleep(0.05)
    return found


def _marked(folder: Path, mark: str) -> bool:
    try:
        return f"{MARK}={mark}".encode() in (folder / "environ").read_bytes()
    except OSError:
        return False
