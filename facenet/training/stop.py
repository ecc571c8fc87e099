"""Stopping a run between two steps, with a checkpoint from which a resumed run gives the same bits.

After a scheduler's SIGTERM, or Ctrl-C, the current step ends first. A validation is interrupted, and the resumed run
repeats it at its start. All ranks stop at the same step, also if only one of them got the signal.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from facenet.data.sampler import DRAWS
from facenet.interrupts import Interrupted, StopRequest, reinstall_handlers
from facenet.large_batch.ranks import largest


class StopAtSignal(pl.Callback):
    """Save ``last.ckpt`` at the end and after a signal, which raises Interrupted; correct what checkpoints hold.

    Lightning's own counts depend on the callback that saves. They do not show whether the validation of the last step
    was made. Its paths do not allow that the run folder moves. Here every checkpoint lies between two batches.

    Args:
        request: Holds the signal.
        last: Path of ``last.ckpt``.
        accumulate: Batches of a step.
        kept: Plain data that checkpoints keep, by name.
    """

    def __init__(
        self, request: StopRequest, last: Path, *, accumulate: int = 1, kept: Mapping[str, Any] | None = None
    ) -> None:
        self.request, self.last, self.accumulate, self.kept = request, last, accumulate, dict(kept or {})
        self._saved, self._pending = -1, False  # step of the last checkpoint; whether a validation was interrupted

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Install our handlers again: Lightning's handler starts communication while other ranks compute."""
        reinstall_handlers(self.request)
        self._stop(trainer, save=False)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Stop before a step; the last one is complete and logged."""
        if batch_idx % self.accumulate == 0:
            self._stop(trainer, save=batch_idx > 0)

    def on_validation_batch_start(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """Stop within a validation, which then is pending."""
        self._pending = True
        self._stop(trainer)
        self._pending = False

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the last step, which may have no validation; stop after it."""
        if self._saved != trainer.global_step:
            trainer.save_checkpoint(self.last)
        self._stop(trainer, save=False)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Store what is kept, set the counts to a place between two batches, and write the logs to disk."""
        checkpoint.update(self.kept, draws=DRAWS)
        set_between_batches(checkpoint["loops"]["fit_loop"], validation_pending=self._pending)
        self._saved = trainer.global_step
        for logger in trainer.loggers:
            logger.save()

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Set the paths to the present run folder; run the last validation if it is pending."""
        for state in checkpoint["callbacks"].values():
            if "dirpath" in state:
                set_folder(state, self.last.parent.resolve())
        if validation_pending(checkpoint) and checkpoint["global_step"] >= trainer.max_steps:
            trainer.fit_loop.epoch_loop.max_steps = -1  # else Lightning finds all steps done and does nothing

    def _stop(self, trainer: pl.Trainer, *, save: bool = True) -> None:
        signum = largest(self.request.signum, trainer.strategy.root_device)
        if not signum:
            return
        if save and (self._pending or self._saved != trainer.global_step):
            trainer.save_checkpoint(self.last)
        raise Interrupted(signum, at=f" at step {trainer.global_step}")


def set_between_batches(loops: dict[str, Any], *, validation_pending: bool) -> None:
    """Set Lightning's counts to the end of a whole batch; if a validation is pending, to the start of it."""
    batches = loops["epoch_loop.batch_progress"]
    for counts in (batches["total"], batches["current"]):
        if counts["ready"] != counts["completed"]:  # the next batch has been loaded
            batches["is_last_batch"] = False
        counts.update(dict.fromkeys(counts, counts["completed"]))
    validation = loops["epoch_loop.val_loop.batch_progress"]
    for counts in (validation["total"], validation["current"]):
        counts.update(ready=int(validation_pending), started=int(validation_pending), processed=0, completed=0)


def validation_pending(checkpoint: Mapping[str, Any]) -> bool:
    """Whether the validation after the last step of a checkpoint has still to run."""
    return bool(checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]["total"]["started"])


def set_folder(state: dict[str, Any], folder: Path) -> None:
    """Move the paths of a ModelCheckpoint's state to `folder`; file names stay."""

    def here(path: str) -> str:
        return str(folder / Path(path).name) if path else path

    state["dirpath"] = str(folder)
    for key in ("best_model_path", "kth_best_model_path", "last_model_path"):
        state[key] = here(state[key])
    state["best_k_models"] = {here(path): score for path, score in state["best_k_models"].items()}
