from __future__ import annotations

import csv
from pathlib import Path

from facenet.training.logs import loggers


def rows(out: Path) -> list[tuple[str, str, str]]:
    with (out / "logs" / "metrics.csv").open() as file:
        return [(row["step"], row["loss"], row.get("val", "")) for row in csv.DictReader(file)]


def log(out: Path, batches: int, steps: range) -> None:
    table, board = loggers(out, batches)
    for step in steps:
        table.log_metrics({"loss": step / 8}, step)
        board.log_metrics({"loss": step / 8}, step)
        if step % 2:
            table.log_metrics({"val": 1.0}, step)
    table.finalize("success")
    board.finalize("success")


def test_a_resumed_run_goes_on_with_its_table(tmp_path: Path) -> None:
    """The same rows as without the cut: what was logged behind the checkpoint is logged again."""
    log(tmp_path / "whole", 0, range(8))
    log(tmp_path / "cut", 0, range(6))
    log(tmp_path / "cut", 4, range(4, 8))
    assert len(rows(tmp_path / "whole")) == 12
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")
    assert len(list((tmp_path / "cut" / "logs").glob("events.out.tfevents.*"))) == 2


def test_a_run_from_the_beginning_starts_a_new_table(tmp_path: Path) -> None:
    log(tmp_path, 0, range(6))
    log(tmp_path, 0, range(2))
    assert [row[0] for row in rows(tmp_path)] == ["0", "1", "1"]


def test_a_resumed_run_without_logs_begins_them(tmp_path: Path) -> None:
    log(tmp_path, 4, range(4, 6))
    assert [row[0] for row in rows(tmp_path)] == ["4", "5", "5"]
