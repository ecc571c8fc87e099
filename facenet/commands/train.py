"""Train an embedding network: data in; encoder/, checkpoints/, logs/ and metrics.json out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facenet.commands.launch import given_options, launch
from facenet.commands.options import CommandOptions
from facenet.console import table
from facenet.evaluation.tables import evaluation_rows
from facenet.training.options import TrainOptions


@dataclass(frozen=True, kw_only=True)
class TrainCommandOptions(TrainOptions, CommandOptions):
    """Options of ``train``."""


def run(options: TrainCommandOptions, out: Path) -> dict[str, Any]:
    from facenet.training.run import train

    metrics = train(options, out, given=given_options())
    if not metrics:  # another rank than 0
        return metrics
    trained, best = metrics["train"], metrics["held_out"]
    rows: list[tuple[str, Any]] = [
        ("training faces, people", f"{trained['images']}, {trained['identities']}"),
        ("faces seen, per second", f"{trained['faces_seen']}, {trained['images_per_second']:.0f}"),
        ("loss, first and last batch", f"{trained['first_loss']:.4f}, {trained['last_loss']:.4f}"),
        ("held-out accuracy, at step", f"{best['accuracy']:.4f}, {best['step']}"),
    ]
    if "verification" in metrics:
        rows += [(f"reported: {name}", value) for name, value in evaluation_rows(metrics)]
    rows += [("seconds", round(metrics["seconds"])), ("encoder", str(out / "encoder"))]
    table(rows, title="train")
    return metrics


def main() -> None:
    launch("train", run)
