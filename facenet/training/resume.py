"""Going on in a run folder: what is finished is kept, what is not goes on, and other options are refused.

``config.json`` in the run folder holds the options the run was started with, ``metrics.json`` is there once it is
finished, ``checkpoints/last.ckpt`` is where it goes on. With ``resume: auto`` the same command can be given again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from facenet.errors import ConfigError, DataError, choose
from facenet.files import read_json, remove_abandoned, write_json
from facenet.interrupts import Interrupted
from facenet.training.callbacks import AtomicCheckpointIO

# What may change between the parts of a run: where it computes, what it shows, where its caches lie, what ends it. The
# rest is what it learns.
FREE = {
    "loader": ("cache", "cache_gb", "cache_dir", "workers"),
    "data": ("cache_dir", "max_bad_share"),
    "large_batch": ("memory_gb",),
    "optim": ("not_finite", "not_finite_limit"),
    "trainer": ("accelerator", "devices", "num_nodes", "strategy", "log_every_n_steps", "progress", "refresh_rate"),
}
CHOICES = {"auto": "keep a finished run, go on from the last checkpoint of another"}


def finished(config: Mapping[str, Any], out: Path, say: Callable[[str], None] = print) -> dict[str, Any] | None:
    """Return the metrics of a run that has been finished in this folder with the same options; None to run.

    None also without ``resume: auto``, and where there is nothing yet.

    Raises:
        ConfigError: an unknown choice of `resume`, or a run with other options lies there: which differ is said.
    """
    if config.get("resume") is None:
        return None
    choose(CHOICES, config["resume"], "resume")
    if not (out / "config.json").is_file():
        return None
    other = differences(read_json(out / "config.json"), fixed(config))
    if other:
        raise ConfigError(
            f"resume=auto: {out} was made with other options ({'; '.join(other)[:400]});"
            " use the options of that run, or another run folder"
        )
    if not (out / "metrics.json").is_file():
        return None
    say(f"finished before, with these options: {out / 'metrics.json'} is kept")
    return read_json(out / "metrics.json")


def start(config: Mapping[str, Any], out: Path) -> None:
    """Note the options of the run that starts or goes on in this folder, which is not finished now.

    What killed writers left in it goes.
    """
    remove_abandoned(out, *(path for path in out.glob("*") if path.is_dir()))
    (out / "metrics.json").unlink(missing_ok=True)
    write_json(out / "config.json", fixed(config))


def last_checkpoint(config: Mapping[str, Any], out: Path, say: Callable[[str], None] = print) -> Path | None:
    """Return where to go on: the run folder's last checkpoint, if that is asked for and there is one.

    Where it is damaged, or lost, that is the best one; the result is the same, since every step is.

    Raises:
        DataError: no checkpoint that is there can be used.
    """
    if config.get("resume") is None:
        return None
    reasons: list[str] = []
    for path in (out / "checkpoints" / name for name in ("last.ckpt", "best.ckpt")):
        if not path.exists():
            continue
        try:
            AtomicCheckpointIO().load_checkpoint(path)
        except DataError as error:
            reasons.append(str(error))
            continue
        if reasons:
            say(f"{reasons[0]}; {path} is intact and taken instead")
        return path
    if reasons:
        raise DataError(
            f"resume=auto: {reasons[0]}; there is no other to go on from: remove {out / 'checkpoints'} to start again"
        )
    return None


def check_checkpoint(
    config: Mapping[str, Any], parameters: Mapping[str, Any], content: Mapping[str, Any], last: Path
) -> None:
    """Refuse the content of a checkpoint of another run, also where there is no ``config.json`` or it is a later run's.

    That is one with other options, or with other hyper-parameters (which also tell other data).

    Raises:
        ConfigError: they differ.
    """
    before = fixed(content["hyper_parameters"])
    now = fixed(parameters)
    other = differences({key: before.get(key) for key in now}, now)
    other += differences(content["options"], fixed(config)) if content.get("options") else []
    if other:
        raise ConfigError(
            f"resume=auto: {last} was made with other options ({'; '.join(dict.fromkeys(other))[:400]});"
            " use the options of that run, or another run folder"
        )


@contextlib.contextmanager
def add_resume_hint(out: Path) -> Iterator[None]:
    """Add to the line of a run that a signal stopped how to resume the run."""
    try:
        yield
    except Interrupted as stop:
        last = out / "checkpoints" / "last.ckpt"
        if last.exists():
            stop.text += f"; the same command with resume=auto hydra.run.dir={out} goes on from {last}"
        else:
            stop.text += "; no step was saved yet, so the same command starts from the beginning"
        raise


def differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Say of each leaf of two nested dicts that differs what it was and is; an absent one counts as null.

    >>> differences({"optim": {"lr": 0.1}, "seed": 0}, {"optim": {"lr": 0.2}, "seed": 0})
    ['optim.lr: 0.1 then, 0.2 now']
    """
    found: list[str] = []
    for key in sorted({*before, *now}):
        old, new = before.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += differences(old, new, f"{prefix}{key}.")
        elif old != new:
            found.append(f"{prefix}{key}: {old} then, {new} now")
    return found


def fixed(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that may not change between the parts of a run."""
    return {
        key: {name: item for name, item in value.items() if name not in FREE.get(key, ())}
        if isinstance(value, Mapping)
        else value
        for key, value in config.items()
        if key != "resume"
    }
