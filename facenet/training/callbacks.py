"""Callbacks of a training run: seeds, verification of held-out people, detection of collapse, progress."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging
from torch import Tensor

from facenet.console import ProgressReport, progress
from facenet.errors import FacenetError
from facenet.evaluation.verification import verify_pairs
from facenet.types import Pairs
from facenet.vectors import sq_dist

QUIET = 45.0  # seconds after which the next step is told, so that a log has a line a minute


class StepSeeds(pl.Callback):
    """Seed torch's generators from (seed, batch, rank) before every batch.

    Dropout then depends on the batch's number alone: a resumed run draws the same numbers. Ranks draw different ones.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed; `batch_idx` counts all batches of the run."""
        entropy = np.random.SeedSequence([self.seed, batch_idx, trainer.global_rank])
        torch.manual_seed(int(entropy.generate_state(1, np.uint64)[0] >> np.uint64(1)))


class HeldOutVerification(pl.Callback):
    """Score pairs of held-out people at every validation; logs ``val_accuracy``, ``val_auc``, ``val_spread``.

    Checkpoints keep the `scores` of the last validation: accuracy and auc.
    """

    def __init__(self, pairs: Pairs, rows: tuple[np.ndarray, np.ndarray]) -> None:
        self.pairs, self.rows = pairs, rows
        self.scores = {"accuracy": 0.0, "auc": 0.0}
        self._parts: list[Tensor] = []

    def state_dict(self) -> dict[str, Any]:
        """Return the scores."""
        return dict(self.scores)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the scores."""
        self.scores = dict(state_dict)

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Collect embeddings (B, D)."""
        self._parts.append(outputs.float().cpu())

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Verify the pairs."""
        vectors, self._parts = torch.cat(self._parts).numpy(), []
        if trainer.sanity_checking:
            return
        distances = sq_dist(vectors[self.rows[0]], vectors[self.rows[1]])
        result = verify_pairs(distances, self.pairs.same, self.pairs.fold)
        spread = float(2 - 2 * (vectors.mean(0) ** 2).sum())  # mean squared distance of two random faces
        self.scores = {"accuracy": result.accuracy, "auc": result.auc}
        pl_module.log("val_accuracy", result.accuracy, sync_dist=True)
        pl_module.log_dict({"val_auc": result.auc, "val_spread": spread}, sync_dist=True)


class AveragedWeights(EMAWeightAveraging):
    """The exponential moving average of the weights: validations and encoders have it, the optimiser does not.

    w' = decay w' + (1 - decay) w after every step, from the first step's weights on; also of batch norm's statistics.
    """

    def __init__(self, decay: float) -> None:
        super().__init__(decay=decay)
        self._swapped = False

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the average into the module."""
        super().on_validation_epoch_start(trainer, pl_module)
        self._swapped = True

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the weights back."""
        super().on_validation_epoch_end(trainer, pl_module)
        self._swapped = False

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Store both; a signal may stop the run within a validation, when they are exchanged."""
        if self._swapped:
            self.on_validation_epoch_end(trainer, pl_module)
        super().on_save_checkpoint(trainer, pl_module, checkpoint)


class TrainingCollapsed(FacenetError):
    """All embeddings became one point."""

    exit_code = 1


class CollapseGuard(pl.Callback):
    """Stop when the network maps every face to nearly the same point.

    Collapse is f(x) = const: distances vanish and the loss stays at the margin. Hard negatives early in training cause
    it (section 3.2 of the paper). The guard raises after `patience` consecutive steps in which the mean squared
    distance of different people is below `least`.
    """

    def __init__(self, patience: int = 20, least: float = 0.01) -> None:
        self.patience, self.least, self._steps, self._step = patience, least, 0, -1

    def state_dict(self) -> dict[str, Any]:
        """Return the counts that a resumed run continues."""
        return {"steps": self._steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the counts."""
        self._steps = state_dict["steps"]

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Compare the logged distance of different people with the least one, once a step."""
        if trainer.global_step == self._step:  # more batches of this step follow
            return
        self._step = trainer.global_step
        spread = trainer.callback_metrics.get("dist/negative")
        collapsed = spread is not None and float(spread) < self.least
        self._steps = self._steps + 1 if collapsed else 0
        if self._steps >= self.patience:
            raise TrainingCollapsed(
                f"step {trainer.global_step}: the embedding collapsed: for {self.patience} steps faces of different"
                f" people lay {float(spread or 0):.4f} apart on average (squared distance) and the loss stays above"
                " the margin; lower optim.lr, use mining.miner=semi_hard, or start with loss=softmax_then_triplet"
            )


class TrainingProgress(pl.Callback):
    """Progress over all steps (loss, active share, faces per second, held-out accuracy); logs speed, norm and rate.

    Args:
        enabled: Whether progress is shown.
        refresh_rate: Steps between two changes of the bar, which slow steps change every second. Without a terminal a
            line is printed every tenth of the run, and every minute.
        say: Prints these lines.
    """

    SHOWN = {"loss": "loss", "active": "active", "faces_per_second": "faces/s", "val_accuracy": "held-out"}
    KEPT = ("faces", "seconds", "first_loss", "last_loss")  # attributes that checkpoints keep

    def __init__(self, *, enabled: bool = True, refresh_rate: int = 10, say: Callable[[str], None] = print) -> None:
        self.enabled, self.refresh_rate, self.say = enabled, refresh_rate, say
        self.faces, self.seconds, self._since = 0, 0.0, 0.0
        self._shown, self._told = -1, 0.0  # the last step that was looked at; when one was reported
        self.first_loss: float | None = None
        self.last_loss: float | None = None
        self._report: ProgressReport | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return the counts that a resumed run continues."""
        return {key: getattr(self, key) for key in self.KEPT}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the counts."""
        for key in self.KEPT:
            setattr(self, key, state_dict[key])

    @property
    def faces_per_second(self) -> float:
        """Faces per second over all training steps so far, validation not counted."""
        return self.faces / self.seconds if self.seconds else 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the progress bar."""
        shown = self.enabled and trainer.is_global_zero
        self._report = progress("training", enabled=shown, seconds=(0.0, QUIET), say=self.say)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Start the clock."""
        self._since = self._since or time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count faces, log the speed, and show the progress."""
        now = time.perf_counter()
        self.faces += len(batch[1]) * trainer.world_size
        self.seconds += now - self._since
        self._since = now
        loss = float(trainer.callback_metrics["loss"])
        if math.isfinite(loss):
            self.last_loss = loss
            self.first_loss = loss if self.first_loss is None else self.first_loss
        pl_module.log("faces_per_second", self.faces_per_second)
        self._show(trainer)

    def _show(self, trainer: pl.Trainer) -> None:
        step, total = trainer.global_step, max(1, trainer.max_steps)
        if self._report is None or step == self._shown:  # more batches of this step follow
            return
        self._shown = step
        now = time.perf_counter()
        if step % self.refresh_rate and step * 10 // total == (step - 1) * 10 // total and now - self._told < 1:
            return
        self._told = now
        values = {name: float(trainer.callback_metrics.get(key, math.nan)) for key, name in self.SHOWN.items()}
        shown = {name: f"{value:.0f}" if name == "faces/s" else f"{value:.3f}" for name, value in values.items()}
        self._report(step, total, **{name: text for name, text in shown.items() if text != "nan"})

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the clock."""
        self._since = 0.0

    def on_validation_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **_: Any) -> None:
        """Show how far a long validation is."""
        if self._report is not None:
            done = args[2] + 1
            text = f"{done} of {sum(map(int, trainer.num_val_batches))} batches"
            self._report(trainer.global_step, max(1, trainer.max_steps), **{"held-out people": text})

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any) -> None:
        """Log the gradient's norm and the learning rate."""
        grads = [p.grad for p in pl_module.parameters() if p.grad is not None]
        if grads:
            norms = torch._foreach_norm(grads)
            pl_module.log("grad_norm", torch.linalg.vector_norm(torch.stack(list(norms))))
        pl_module.log("lr", optimizer.param_groups[0]["lr"])

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Close the progress bar."""
        if self._report is not None:
            self._report.close()
            self._report = None
