"""Checkpoints on disk: written atomically, read with their checksum, and compared with the run that resumes from one.

Lightning restores counters, paths and optimiser states without a check, so a wrong one shows some steps later. Here the
shapes and types in a checkpoint are compared with those that the resumed run would save itself.
"""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins import CheckpointIO
from torch import Tensor, nn

from facenet.errors import DataError, FacenetError, one_line
from facenet.files import atomic_write, read_bytes, sha256_file
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


class Saved(NamedTuple):
    """A checkpoint that was read."""

    path: Path
    content: dict[str, Any]


class AtomicCheckpointIO(CheckpointIO):
    """Checkpoints written to a temporary file in their own folder, synced, then moved; the SHA-256 lies beside them.

    Args:
        read: A checkpoint that was read already. The first load of its path returns that content and releases it.
    """

    def __init__(self, read: Saved | None = None) -> None:
        super().__init__()
        self._read, self._saved_in = read, set[Path]()

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write `checkpoint`; a full disk or missing rights raise DataError and leave the old file alone."""
        sums = Path(f"{path}.sha256")
        self._saved_in.add(Path(path).resolve().parent)
        known = ""
        with contextlib.suppress(OSError):
            known = sums.read_text().split("\n")[0]
        with atomic_write(path) as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:  # torch raises its own error; the context is that of the file
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from None
                raise
            file.flush()
            digest = sha256_file(file.name)
            with atomic_write(sums) as beside:  # old and new sum, so that either file matches until the move
                beside.write(f"{digest}\n{known}\n".encode())

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Compare a checkpoint's SHA-256, then read it; only plain data and tensors are unpickled."""
        path = Path(path)
        if self._read is not None and path.resolve() == self._read.path.resolve():
            content, self._read = self._read.content, None
            return content
        try:
            expected = read_bytes(f"{path}.sha256", most=1 << 10).split()
            actual = sha256_file(path).encode()
        except DataError as error:
            raise DataError(f"{path}: the checkpoint's .sha256 can not be read ({error})") from error
        except OSError as error:
            raise DataError(f"{path}: the checkpoint can not be read ({error.strerror})") from error
        if actual not in expected:
            raise DataError(f"{path}: the checkpoint does not match its .sha256 (damaged); use an older one")
        try:
            with zipfile.ZipFile(path) as parts:  # torch does not compress: a compressed file could unpack to any size
                if any(part.compress_type != zipfile.ZIP_STORED for part in parts.infolist()):
                    raise DataError(f"{path}: not a checkpoint of ours (it is compressed); use an older one")
            content = torch.load(path, map_location=map_location or "cpu", weights_only=True)
        except DataError:
            raise
        except Exception as error:  # torch raises many kinds
            raise DataError(f"{path}: not a readable checkpoint ({one_line(error)}); use an older one") from error
        if not isinstance(content, dict):
            raise DataError(f"{path}: not a checkpoint (it holds {type(content).__name__}); use an older one")
        return content

    def remove_checkpoint(self, path: Any) -> None:
        """Delete a checkpoint and its checksum, but only in a folder this object saved to.

        A checkpoint that was read may name files elsewhere.
        """
        if Path(path).resolve().parent not in self._saved_in:
            return
        for name in (Path(path), Path(f"{path}.sha256")):
            name.unlink(missing_ok=True)


def read_checkpoint(path: Path) -> Saved:
    """Read and check a checkpoint of a training run.

    Raises:
        DataError: missing, damaged, or without a part that every run saves.
    """
    content = AtomicCheckpointIO().load_checkpoint(path)
    wrong = [name for name, kind in PARTS.items() if not isinstance(content.get(name), kind)]
    chunk = {} if wrong else content["hyper_parameters"].get("chunk_size")
    if wrong or not (chunk is None or (type(chunk) is int and chunk > 0)):
        raise DataError(f"{path}: not the checkpoint of a training run ({wrong or 'chunk_size'}); use an older one")
    return Saved(path, content)


def check_states(module: pl.LightningModule, trainer: pl.Trainer, saved: Saved) -> None:
    """Compare a checkpoint with the run that resumes from it.

    Raises:
        DataError: weights, optimiser states, counters or callbacks differ from those of this run.
    """
    path, content = saved
    fresh: Any = module.configure_optimizers()
    schedule = fresh["lr_scheduler"]["scheduler"].state_dict()
    counts = {callback.state_key: callback.state_dict() for callback in trainer.callbacks}  # type: ignore[attr-defined]
    counts = {name: state for name, state in counts.items() if state and name in content["callbacks"]}
    for what, found, wanted in (
        ("weights", _shapes(content["state_dict"]), _shapes(module.state_dict())),
        ("lr_schedulers", content["lr_schedulers"], [schedule]),
        ("loops", content["loops"], {name: getattr(trainer, name).state_dict() for name in LOOPS}),
        ("callbacks", content["callbacks"], counts),
    ):
        if found != wanted if what == "weights" else not _alike(found, wanted):
            raise DataError(f"{path}: its {what} are not those of this run (damaged?); use an older one")
    if not _fits(content["optimizer_states"], fresh["optimizer"], module):
        raise DataError(f"{path}: its optimiser states are not those of this run (damaged?); use an older one")


class Restoring(pl.Callback):
    """Report an error between the start of ``fit`` and the first step as one of the checkpoint, if there is one."""

    def __init__(self) -> None:
        self.started = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remember that Lightning has restored the checkpoint."""
        self.started = True

    @contextlib.contextmanager
    def blame(self, path: Path | None) -> Iterator[None]:
        """Run ``fit`` of a trainer that has this callback within this block.

        Raises:
            DataError: Lightning could not restore the checkpoint.
        """
        try:
            yield
        except FacenetError:
            raise
        except Exception as error:
            if path is None or self.started:
                raise
            raise DataError(
                f"{path}: the run can not be resumed from it ({one_line(error)}); use an older one"
            ) from error


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
    """Whether `states` holds the state of one optimiser, with the groups and shapes of `fresh`."""
    wanted = fresh.state_dict()["param_groups"]
    if len(states) != 1 or not isinstance(states[0], dict) or set(states[0]) != {"state", "param_groups"}:
        return False
    groups, state = states[0]["param_groups"], states[0]["state"]
    if not _alike(groups, wanted) or not isinstance(state, dict):
        return False
    if [group["params"] for group in groups] != [group["params"] for group in wanted]:
        return False
    parameters = [parameter for group in fresh.param_groups for parameter in group["params"]]
    known = _kept(module.hparams["optim"])
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


def _kept(options: Mapping[str, Any]) -> set[str]:
    """Return the names of the values that an optimiser of these options keeps for each parameter."""
    layer = nn.Linear(1, 1)
    options = {name: options[name] for name in ("name", "lr", "weight_decay", "momentum") if name in options}
    optimizer = build_optimizer([layer], **options)
    layer(torch.zeros(1, 1)).sum().backward()
    optimizer.step()
    return set(optimizer.state[layer.weight])
