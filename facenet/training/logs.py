"""The logs of a run, CSV and TensorBoard; a resumed run goes on with them where its checkpoint stands."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter
from pytorch_lightning.utilities import rank_zero_only

from facenet.files import atomic_write

FOLDER = "logs"


def loggers(out: Path, batches: int = 0) -> list[Logger]:
    """Return the loggers of a run folder, of which `batches` are behind; what was logged after those is dropped."""
    table = CSVLogger(out, FOLDER, "")
    if getattr(rank_zero_only, "rank", 0) == 0:
        table._experiment = _GoesOn(out / FOLDER, batches)
    return [table, TensorBoardLogger(out, FOLDER, "", purge_step=batches or None)]


class _GoesOn(ExperimentWriter):
    """Writes behind the rows that are there; Lightning's own begins with removing them."""

    def __init__(self, folder: Path, batches: int) -> None:
        super().__init__(str(folder))
        path = Path(self.metrics_file_path)
        if not path.is_file():
            return
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            rows = [row for row in reader if (row.get("step") or "").isdigit() and int(row["step"]) < batches]
        if not rows:
            path.unlink()
            return
        self.metrics_keys = list(reader.fieldnames or [])
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self.metrics_keys, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
        with atomic_write(path) as target:
            target.write(text.getvalue().encode())

    def _check_log_dir_exists(self) -> None:
        """Leave the rows alone."""
