"""Non-finite steps (loss or gradient is NaN or infinite): they are skipped, their images named, or the run ends.

The module keeps weights, optimiser and running statistics as they were before such a step, on all ranks. The step
counts, so that schedule, batches and random numbers of the other steps do not change.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch

from facenet.errors import FacenetError
from facenet.files import atomic_write, csv_text

FILE = "not_finite.csv"
SHOWN = 3


class NotFinite(FacenetError):
    """A loss or gradient was not finite, and the options end the run for that."""

    exit_code = 1


class NonFiniteBatch(NamedTuple):
    """A batch whose loss, or the gradient of whose step, is not finite."""

    what: str  # "loss" or "gradient"
    batch: int
    alone: Sequence[int] = ()  # places of images whose embedding is not finite without the others


class NotFiniteSteps(pl.Callback):
    """Name the images of a non-finite step, list them in ``not_finite.csv``, and end the run if the options ask for it.

    Args:
        folder: The run folder.
        fatal: Whether the first non-finite step ends the run.
        limit: Number in a row that ends the run otherwise.
    """

    def __init__(self, folder: Path, *, fatal: bool = True, limit: int = 10) -> None:
        self.folder, self.limit = folder, 1 if fatal else limit
        self.steps, self.in_a_row, self._step = 0, 0, 0

    def state_dict(self) -> dict[str, Any]:
        """Return the counts that a resumed run continues."""
        return {"steps": self.steps, "in_a_row": self.in_a_row}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the counts."""
        self.steps, self.in_a_row = state_dict["steps"], state_dict["in_a_row"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remember the first step."""
        self._step = trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Read the `non_finite_batches` of the step that has ended from the module."""
        if trainer.global_step == self._step:  # more batches of this step follow
            return
        self._step = trainer.global_step
        batches: list[NonFiniteBatch] = pl_module.non_finite_batches  # type: ignore[assignment]
        self.in_a_row = self.in_a_row + 1 if batches else 0
        if not batches:
            return
        self.steps += 1
        text = self._report(trainer, batches) if trainer.is_global_zero else ""
        if self.in_a_row >= self.limit:
            row = f", {self.in_a_row} such steps in a row" if self.in_a_row > 1 else ""
            raise NotFinite(f"{text}{row}; lower optim.lr or set optim.clip_norm, look at these images, or set"
                            " optim.not_finite=skip")  # fmt: skip
        if text:
            print(f"{text}; the step is skipped", file=sys.stderr, flush=True)

    def _report(self, trainer: pl.Trainer, batches: Sequence[NonFiniteBatch]) -> str:
        """List the images in the file; return a line that names the first ones."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        step, total = trainer.global_step, 0
        rows: list[tuple[Any, ...]] = []
        named: list[str] = []
        for what, batch, alone in batches:
            paths = data.paths(batch)
            total += len(paths)
            named += [paths[place] for place in alone] or paths
            rows += [(step, batch, what, path, int(place in alone)) for place, path in enumerate(paths)]
        self._write(rows)
        which = f"{len(named)} of its {total} images" if len(named) < total else f"its {total} images"
        more = f" and {len(named) - SHOWN} more" if len(named) > SHOWN else ""
        return (
            f"step {step}: the {batches[0].what} is not finite, with {which}: {', '.join(named[:SHOWN])}{more}"
            f" (all in {self.folder / FILE})"
        )

    def _write(self, rows: Sequence[tuple[Any, ...]]) -> None:
        path = self.folder / FILE
        before = (
            path.read_bytes() if path.is_file() else csv_text([("step", "batch", "what", "path", "alone")]).encode()
        )
        with atomic_write(path) as file:
            file.write(before + csv_text(rows).encode())


def finite(tensors: Sequence[torch.Tensor]) -> bool:
    """Whether no number in the tensors is infinite or not a number; True for none."""
    if not tensors:
        return True
    norms = torch.stack(list(torch._foreach_norm(list(tensors), math.inf)))
    return bool(torch.isfinite(norms).all())
