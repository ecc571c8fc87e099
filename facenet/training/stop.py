"""Stopping a run between two steps, with a checkpoint from which it goes on to the bit.

After a scheduler's SIGTERM, or Ctrl-C, the step that is being taken ends first. A validation is left; the resumed run
makes it at its start. All ranks stop at the same place, whichever of them got the signal.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from facenet.interrupts import Interrupted, StopRequest, reinstall_handlers
from facenet.large_batch.ranks import largest


class StopAtSignal(pl.Callback):
    """Save ``last.ckpt`` and raise Interrupted once a signal asks for it; every checkpoint says where it stands.

    Lightning saves where one of its callbacks happens to run. What its loops count by then does not tell whether the
    validation of the last step was made, and the run folder may not move. Here a checkpoint stands between two batches.

    Args:
        request: Takes the signals.
        last: The file.
        accumulate: Batches of a step.
        options: Plain data that checkpoints keep as "options".
    """

    def __init__(
        self, request: StopRequest, last: Path, *, accumulate: int = 1, options: Mapping[str, Any] | None = None
    ) -> None:
        self.request, self.last, self.accumulate, self.options = request, last, accumulate, dict(options or {})
        self._saved, self._pending = -1, False  # step of the last checkpoint; a validation that was left

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the signals back: Lightning's handler talks to the other ranks in the middle of what they do."""
        reinstall_handlers(self.request)
        self._stop(trainer, save=False)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Stop before a step; all of the last one is done and logged."""
        if batch_idx % self.accumulate == 0:
            self._stop(trainer, save=batch_idx > 0)

    def on_validation_batch_start(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """Stop within a validation, which is pending then."""
        self._pending = True
        self._stop(trainer)
        self._pending = False

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop behind the last step."""
        self._stop(trainer)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Say which run this is and where it stands; what was logged up to here lies on the disk too."""
        checkpoint["options"] = self.options
        set_between_batches(checkpoint["loops"]["fit_loop"], validation_pending=self._pending)
        self._saved = trainer.global_step
        for logger in trainer.loggers:
            logger.save()

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Find the best checkpoint where the run folder is now; make the last validation if it is pending."""
        for state in checkpoint["callbacks"].values():
            if "dirpath" in state:
                set_folder(state, self.last.parent.resolve())
        if validation_pending(checkpoint) and checkpoint["global_step"] >= trainer.max_steps:
            trainer.fit_loop.epoch_loop.max_steps = -1  # or Lightning sees that all steps were taken, and does nothing

    def _stop(self, trainer: pl.Trainer, *, save: bool = True) -> None:
        signum = largest(self.request.signum, trainer.strategy.root_device)
        if not signum:
            return
        if save and (self._pending or self._saved != trainer.global_step):
            trainer.save_checkpoint(self.last)
        raise Interrupted(signum, at=f" at step {trainer.global_step}")


def set_between_batches(loops: dict[str, Any], *, validation_pending: bool) -> None:
    """Set Lightning's counts to stand behind a whole batch; if a validation is pending, before its first batch."""
    batches = loops["epoch_loop.batch_progress"]
    for counts in (batches["total"], batches["current"]):
        if counts["ready"] != counts["completed"]:  # the next batch is in hand
            batches["is_last_batch"] = False
        counts.update(dict.fromkeys(counts, counts["completed"]))
    validation = loops["epoch_loop.val_loop.batch_progress"]
    for counts in (validation["total"], validation["current"]):
        counts.update(ready=int(validation_pending), started=int(validation_pending), processed=0, completed=0)


def validation_pending(checkpoint: Mapping[str, Any]) -> bool:
    """Whether the validation after the last step of a checkpoint is still to be made."""
    return bool(checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]["total"]["started"])


def set_folder(state: dict[str, Any], folder: Path) -> None:
    """Let the paths of a ModelCheckpoint's state lie in `folder`, with the names they have."""

    def here(path: str) -> str:
        return str(folder / Path(path).name) if path else path

    state["dirpath"] = str(folder)
    for key in ("best_model_path", "kth_best_model_path", "last_model_path"):
        state[key] = here(state[key])
    state["best_k_models"] = {here(path): score for path, score in state["best_k_models"].items()}
