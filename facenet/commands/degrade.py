"""Robustness of an encoder: verification with images made worse by known amounts, as a table and a plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from facenet.commands.launch import launch
from facenet.console import progress, table


def run(config: dict[str, Any], out: Path) -> dict[str, Any]:
    from facenet.data.cache import readable
    from facenet.data.splits import reported_faces, split_options
    from facenet.encoders import lookup as encoders
    from facenet.evaluation.degradation import check, degrade, plan
    from facenet.evaluation.degradation_plot import write_plot

    seed = config["seed"]
    options = {name: config[name] for name in ("sides", "far")}
    check(**options)
    changes = plan(config["kinds"], config["levels"], seed)
    encoder = encoders.load(config["encoder"], device=config["device"])
    data = split_options(config["data"])
    data["pairs"] = config["pairs"] or data["pairs"]
    faces, pairs = reported_faces(**data, readable=lambda faces: readable(faces, encoder.preprocess))
    options |= {"allow_missing": config["allow_missing"], "batch_size": config["batch_size"]}
    with progress(f"{len(changes)} changes of {len(faces)} images") as report:
        metrics = degrade(encoder, faces, pairs, changes, **options, progress=report)
    show(metrics, config["far"])
    write_plot(metrics, out / "degrade.svg", config["far"])
    print(f"plot: {out / 'degrade.svg'}")
    return metrics


def show(metrics: dict[str, Any], far: float) -> None:
    """Print a line for each level of each kind, the untouched images first, and what the columns mean."""
    from facenet.evaluation.degradation import table_rows

    header, rows, notes = table_rows(metrics, far)
    table(rows, header=header, title=f"degrade: {metrics['pairs']} pairs, {metrics['skipped']} skipped")
    print("\n".join(notes))


def main() -> None:
    launch("degrade", run)
