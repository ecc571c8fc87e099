"""Ten-fold verification of an encoder on LFW-style pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from launch import launch

from facenet.console import table, verification_rows


def run(config: dict[str, Any], out: Path) -> dict[str, Any]:
    from facenet import bundle
    from facenet.data.pairs import write_pairs
    from facenet.data.splits import reported_faces, split_faces, split_options
    from facenet.evaluate import calibrate, compare_baselines, evaluate

    encoder = bundle.load(config["encoder"], device=config["device"])
    data = split_options(config["data"])
    data["pairs"] = config["pairs"] or data["pairs"]
    faces, pairs = reported_faces(**data, seed=config["seed"])
    if not data["pairs"]:
        write_pairs(out / "pairs.csv", pairs)  # what was drawn, to be used again with pairs=FILE
    metrics: dict[str, Any] = {"verification": evaluate(encoder, faces, pairs, allow_missing=config["allow_missing"])}
    if config["baselines"]:
        train_faces = split_faces(**data, seed=config["seed"]).train
        metrics |= compare_baselines(encoder, faces, pairs, train_faces, config["seed"])
    if config["calibrate"]:
        encoder.thresholds = calibrate(encoder, faces)
        bundle.save_record(encoder, config["encoder"])
        metrics["thresholds"] = {f"{far:g}": value for far, value in encoder.thresholds.items()}
    rows = verification_rows(metrics["verification"])
    baselines = {
        name: value for name, value in metrics.items() if isinstance(value, dict) and set(value) == {"accuracy", "auc"}
    }
    rows += [(f"{name.replace('_', ' ')}: accuracy", value["accuracy"]) for name, value in baselines.items()]
    rows += [(f"threshold at FAR {far}", value) for far, value in metrics.get("thresholds", {}).items()]
    table(rows, title="verify")
    return metrics


if __name__ == "__main__":
    launch("verify", run)
