"""What a checkpoint must hold before a run goes on from it: the very shapes that the run itself would save.

Lightning believes a checkpoint: it takes over counters, paths and optimiser states as they are, and what does not fit
shows some steps later. Here its content is held beside the states of the run that is to take it over.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import LambdaCallback
from torch import Tensor, nn

from facenet.errors import DataError, FacenetError, one_line
from facenet.training.callbacks import AtomicCheckpointIO
from facenet.training.optim import build_optimizer

PARTS: dict[str, type] = {
    "epoch": int,
    "global_step": int,
    "state_dict": dict,
    "loops": dict,
    "callbacks": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
    "hyper_parameters": dict,
}
LOOPS = ("fit_loop", "validate_loop", "test_loop", "predict_loop")


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of a training run.

    Raises:
        DataError: missing, damaged, or without a part that every run saves.
    """
    content = AtomicCheckpointIO().load_checkpoint(path)
    wrong = [name for name, kind in PARTS.items() if not isinstance(content.get(name), kind)]
    chunk = {} if wrong else content["hyper_parameters"].get("chunk_size")
    if wrong or not (chunk is None or (type(chunk) is int and chunk > 0)):
        raise DataError(f"{path}: not the checkpoint of a training run ({wrong or 'chunk_size'}); use an older one")
    return content


def check_states(module: pl.LightningModule, trainer: pl.Trainer, content: Mapping[str, Any], path: Path) -> None:
    """Compare what :func:`read_checkpoint` read with the run that is to go on from it.

    Raises:
        DataError: other weights, optimiser states, counters or callbacks than this run has.
    """
    fresh: Any = module.configure_optimizers()
    schedule = fresh["lr_scheduler"]["scheduler"].state_dict()
    saved = {callback.state_key: callback.state_dict() for callback in trainer.callbacks}  # type: ignore[attr-defined]
    saved = {name: state for name, state in saved.items() if state and name in content["callbacks"]}
    for what, found, wanted in (
        ("weights", _shapes(content["state_dict"]), _shapes(module.state_dict())),
        ("lr_schedulers", content["lr_schedulers"], [schedule]),
        ("loops", content["loops"], {name: getattr(trainer, name).state_dict() for name in LOOPS}),
        ("callbacks", content["callbacks"], saved),
    ):
        if found != wanted if what == "weights" else not _alike(found, wanted):
            raise DataError(f"{path}: its {what} are not those of this run (damaged?); use an older one")
    if not _fits(content["optimizer_states"], fresh["optimizer"], module):
        raise DataError(f"{path}: its optimiser states are not those of this run (damaged?); use an older one")


@contextlib.contextmanager
def restoring(trainer: pl.Trainer, path: Path | None) -> Iterator[None]:
    """Blame what goes wrong between the start of ``trainer.fit`` and the first step on the checkpoint, if there is one.

    Raises:
        DataError: Lightning could not take it over.
    """
    started: list[bool] = []
    trainer.callbacks.append(LambdaCallback(on_train_start=lambda *_: started.append(True)))  # type: ignore[attr-defined]
    try:
        yield
    except FacenetError:
        raise
    except Exception as error:
        if path is None or started:
            raise
        raise DataError(f"{path}: can not be gone on from ({one_line(error)}); use an older one") from error


def _shapes(state: Mapping[Any, Any]) -> dict[Any, Any]:
    return {key: (value.dtype, value.shape, value.layout) for key, value in state.items() if isinstance(value, Tensor)}


def _alike(found: Any, wanted: Any) -> bool:
    """Whether a value has the keys, lengths and kinds of another; numbers, 0-d tensors and None are of one kind."""
    if isinstance(wanted, Mapping) and not wanted:  # {path: score}
        return isinstance(found, dict) and all(isinstance(key, str) and _number(found[key]) for key in found)
    if isinstance(wanted, Mapping):
        return isinstance(found, dict) and set(found) == set(wanted) and all(_alike(found[k], wanted[k]) for k in found)
    if isinstance(wanted, list | tuple):
        same = type(found) is type(wanted) and len(found) == len(wanted)
        return same and all(_alike(*pair) for pair in zip(found, wanted, strict=True))
    return isinstance(found, str) if isinstance(wanted, str) else _number(found)


def _number(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.ndim == 0
    return value is None or isinstance(value, float) or (isinstance(value, int) and abs(value) < 1 << 62)


def _fits(states: list[Any], fresh: torch.optim.Optimizer, module: pl.LightningModule) -> bool:
    """Whether these are the states of one optimiser like `fresh` over its parameters."""
    wanted = fresh.state_dict()["param_groups"]
    if len(states) != 1 or not isinstance(states[0], dict) or set(states[0]) != {"state", "param_groups"}:
        return False
    groups, state = states[0]["param_groups"], states[0]["state"]
    if not _alike(groups, wanted) or not isinstance(state, dict):
        return False
    if [group["params"] for group in groups] != [group["params"] for group in wanted]:
        return False
    parameters = [parameter for group in fresh.param_groups for parameter in group["params"]]
    known = _kept(dict(module.hparams["optim"]))
    for number, values in state.items():
        if type(number) is not int or not 0 <= number < len(parameters) or not isinstance(values, dict):
            return False
        shape = parameters[number].shape
        if set(values) != known or not all(isinstance(value, Tensor) for value in values.values()):
            return False
        if not all(value.shape == (() if name == "step" else shape) for name, value in values.items()):
            return False
        if not all(value.is_floating_point() and value.layout == torch.strided for value in values.values()):
            return False
    return True


def _kept(options: dict[str, Any]) -> set[str]:
    """Return the names of what an optimiser of these options keeps for each parameter."""
    layer = nn.Linear(1, 1)
    options = {name: options[name] for name in ("name", "lr", "weight_decay", "momentum") if name in options}
    optimizer = build_optimizer([layer], **options)
    layer(torch.zeros(1, 1)).sum().backward()
    optimizer.step()
    return set(optimizer.state[layer.weight])
