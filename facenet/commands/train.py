"""Train an embedding network: data in; encoder/, checkpoints/, logs/ and metrics.json out."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facenet.commands.launch import given_options, launch
from facenet.commands.options import CommandOptions
from facenet.console import is_first_rank, table
from facenet.errors import GateError
from facenet.evaluation.tables import evaluation_rows
from facenet.interrupts import WARNINGS, Interrupted
from facenet.training.options import TrainOptions


@dataclass(frozen=True, kw_only=True)
class TrainCommandOptions(TrainOptions, CommandOptions):
    """Options of ``train``."""


def run(options: TrainCommandOptions, out: Path) -> dict[str, Any]:
    from facenet.training.run import train
    from facenet.training.verdict import REFUSED

    try:
        metrics = train(options, out, given=given_options())
    except Interrupted as stop:
        if stop.signum in WARNINGS and is_first_rank():
            stop.text += requeue(options)
        raise
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
    start = metrics.get("start", {})
    rows += start_rows(start) if start else []
    refused = options.gate and not start["helped"]
    rows += [("seconds", round(metrics["seconds"])), ("encoder", str(out / (REFUSED if refused else "encoder")))]
    table(rows, title="train")
    if refused:
        where = " under the changes, or it is surely worse on the pairs as they are" if "degraded" in start else ""
        raise GateError(
            f"train: it is not surely better than its start{where}; the encoder lies in {out / REFUSED}", metrics
        )
    return metrics


def start_rows(start: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Lay out the AUC of what a run started from and what it gained, on the pairs as they are and made worse."""
    found = {"AUC of the start, and gained": start}
    if degraded := start.get("degraded"):
        found["AUC under changes, mean"] = degraded
        for kind, levels in degraded["levels"].items():
            found |= {f"{kind} {float(level):.10g}": row for level, row in levels.items()}
    return [
        (name, f"{row['auc']:.4f}, {row['difference']:+.4f} (95 %: {row['low']:+.4f} to {row['high']:+.4f})")
        for name, row in found.items()
    ]


def requeue(options: TrainCommandOptions) -> str:
    """Requeue this SLURM job, which SLURM has warned of its end, as Lightning does; return what to tell.

    The job is requeued only if its command resumes in a run folder of its own. Else it would start again for ever.
    """
    from hydra.core.hydra_config import HydraConfig

    given = os.environ
    job = "_".join(given[key] for key in ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID") if key in given)
    job = job or given.get("SLURM_JOB_ID", "")
    if not job or given.get("SLURM_JOB_NAME") in ("bash", "interactive"):
        return ""
    named = [
        each for each in HydraConfig.get().overrides.hydra if each.startswith(("hydra.run.dir=", "hydra.sweep.dir="))
    ]
    if options.resume is None or not named or "${now" in named[-1]:
        return f"; job {job} is not requeued, which needs resume=auto and hydra.run.dir=DIR"
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
    except OSError as error:
        return f"; job {job} is not requeued (scontrol: {error.strerror})"
    said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
    return f"; job {job} is requeued" if not done.returncode else f"; job {job} is not requeued (scontrol: {said})"


def main() -> None:
    launch("train", run)
