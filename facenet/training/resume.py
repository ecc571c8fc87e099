"""Resuming a run in its folder: a finished run is kept, an unfinished one continues, and other options are refused.

The run folder holds the options of the run in ``config.json``. It holds ``metrics.json`` once the run is finished. A
run resumes from ``checkpoints/last.ckpt``. With ``resume: auto`` the same command can be given again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from facenet.data.sampler import DRAWS
from facenet.errors import ConfigError, DataError
from facenet.files import read_json, remove_abandoned, write_json
from facenet.interrupts import Interrupted
from facenet.models.options import edition_of
from facenet.options import build, fixed
from facenet.training.checkpoints import Saved, read_checkpoint
from facenet.training.options import OptimOptions, TrainOptions


def finished_metrics(options: TrainOptions, out: Path, say: Callable[[str], None] = print) -> dict[str, Any] | None:
    """Return the metrics of a run that is finished in this folder; None without one, and without ``resume: auto``.

    Raises:
        ConfigError: the folder holds a run with other options; the message names those that differ.
    """
    if options.resume is None or not (out / "config.json").is_file():
        return None
    _compare(out, stored_options(read_json(out / "config.json"), out / "config.json"), fixed(options))
    if not (out / "metrics.json").is_file():
        return None
    say(f"finished before, with these options: {out / 'metrics.json'} is kept")
    return read_json(out / "metrics.json")


def write_start(options: TrainOptions, out: Path) -> None:
    """Write the options of the run that starts or resumes in this folder, and remove the metrics of an earlier one.

    Temporary files of killed writers are removed too.
    """
    remove_abandoned(out, *(path for path in out.glob("*") if path.is_dir()))
    (out / "metrics.json").unlink(missing_ok=True)
    write_json(out / "config.json", fixed(options))


def last_checkpoint(options: TrainOptions, out: Path, say: Callable[[str], None] = print) -> Saved | None:
    """Read the last checkpoint of the run folder; None without ``resume: auto``, and if there is no checkpoint.

    If the last one is lost or damaged, the best one is read. The run then repeats more steps, with the same result.

    Raises:
        DataError: no checkpoint that is there can be used.
    """
    if options.resume is None:
        return None
    reasons: list[str] = []
    for path in (out / "checkpoints" / name for name in ("last.ckpt", "best.ckpt")):
        if not path.exists():
            continue
        try:
            found = read_checkpoint(path)
        except DataError as error:
            reasons.append(str(error))
            continue
        if reasons:
            say(f"{reasons[0]}; {path} is intact and used instead")
        return found
    if reasons:
        raise DataError(
            f"resume=auto: {reasons[0]}; there is no other checkpoint to resume from: remove {out / 'checkpoints'} to"
            " start again"
        )
    return None


def check_checkpoint(
    options: TrainOptions, parameters: Mapping[str, Any], saved: Saved, *, validation: str | None = None
) -> None:
    """Refuse a checkpoint of another run, also if ``config.json`` is missing or belongs to a later run.

    Options are compared, and hyper-parameters of the module. The latter also differ if the data has other people.
    `validation` is the SHA-256 of the file ``data.validation``: scores on other pairs can not be compared.

    Raises:
        ConfigError: options, hyper-parameters or pairs differ, or an earlier version drew other batches from the seed.
    """
    path, content = saved
    if content.get("draws") != DRAWS:
        raise ConfigError(
            f"resume=auto: {path} is of another version, whose sampler drew other batches from the same seed; finish"
            " the run with that version, or use another run folder"
        )
    now, before = (_fixed_parameters(each, path) for each in (parameters, content["hyper_parameters"]))
    _compare(path, {key: before.get(key) for key in now}, now)
    if isinstance(content.get("options"), Mapping):
        _compare(path, stored_options(content["options"], path), fixed(options))
    digests = ({"SHA-256 of data.validation": digest} for digest in (content.get("validation"), validation))
    _compare(path, *digests)


def stored_options(values: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return the options that a resumed run may not change, as an older run stored them; missing ones get defaults.

    Raises:
        ConfigError: an option that is unknown now, or has other values.
    """
    known = {key: dict(value) if isinstance(value, Mapping) else value for key, value in values.items()}
    model = known.get("model")
    if isinstance(model, dict):
        model.setdefault("edition", edition_of(model))  # earlier versions had no editions
    data = known.get("data")
    if isinstance(data, dict) and data.get("synthetic") is None:
        data.pop("synthetic", None)  # earlier versions wrote null for faces that are not drawn
    try:
        return fixed(build(TrainOptions, known))
    except ConfigError as error:
        raise ConfigError(f"{path}: of another version ({error}); use another run folder") from error


def _fixed_parameters(parameters: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return a module's hyper-parameters without those that a resumed run may change."""
    optim, model = parameters.get("optim"), parameters.get("model")
    if isinstance(model, Mapping):
        parameters = {**parameters, "model": {**model, "edition": edition_of(model)}}
    try:
        return {**parameters, "optim": fixed(build(OptimOptions, optim if isinstance(optim, Mapping) else {}))}
    except ConfigError as error:
        raise ConfigError(f"{path}: of another version (optim.{error}); use another run folder") from error


def _compare(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    other = differences(before, now)
    if other:
        raise ConfigError(
            f"resume=auto: {path} was made with other options ({'; '.join(other)[:400]});"
            " use the options of that run, or another run folder"
        )


@contextlib.contextmanager
def add_resume_hint(out: Path) -> Iterator[None]:
    """Add to the message of a run that a signal stopped how to resume the run."""
    try:
        yield
    except Interrupted as stop:
        last = out / "checkpoints" / "last.ckpt"
        if last.exists():
            stop.text += f"; the same command with resume=auto hydra.run.dir={out} resumes from {last}"
        else:
            stop.text += "; no step was saved yet, so the same command starts from the beginning"
        raise


def differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return a line for each leaf that differs between two nested dicts; an absent one counts as null.

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
