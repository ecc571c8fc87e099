"""Verification of an encoder on LFW-style pairs in ten folds, or of an embeddings folder on all of its pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from facenet.commands.launch import launch
from facenet.console import progress, table
from facenet.evaluation.tables import evaluation_rows


def asked(config: dict[str, Any]) -> dict[str, Any]:
    from facenet.evaluation.verification import common_grid
    from facenet.types import EmbeddingSet

    trained = config["train_embeddings"]
    return {
        **{name: config[name] for name in ("allow_missing", "fars", "quantise", "seed")},
        "grid": common_grid(config["grid"]),
        "identification": config["protocol"] if config["identification"] else None,
        "train_embeddings": EmbeddingSet.load(trained) if trained else None,
    }


def of_encoder(config: dict[str, Any], out: Path) -> dict[str, Any]:
    from facenet.data.cache import readable
    from facenet.data.pairs import write_pairs
    from facenet.data.splits import other_faces, reported_faces, split_options
    from facenet.encoders import lookup as encoders
    from facenet.evaluation.evaluate import calibrate, compare_baselines, evaluate_all
    from facenet.evaluation.leakage import world_of

    if config["calibrate"]:
        encoders.check_calibration(config["encoder"])
    options = asked(config)
    encoder = encoders.load(config["encoder"], device=config["device"], detector=config["detector"])
    data = split_options(config["data"])
    data["readable"] = lambda faces: readable(faces, encoder.preprocess)  # pairs are drawn among these, as in training
    data["pairs"] = config["pairs"] or data["pairs"]
    faces, pairs = reported_faces(**data)
    if not data["pairs"]:
        write_pairs(out / "pairs.csv", pairs)  # what was drawn, to be used again with pairs=FILE
    baselines, world = config["baselines"], world_of(data["kind"], data["seed"])
    others = other_faces(**data, needed=baselines) if baselines or config["quantise"] in ("pq", "all") else None
    options |= {"save": out / "evaluation", "train_faces": others, "world": world}
    metrics = evaluate_all(encoder, faces, pairs, **options)
    if baselines and others is not None:
        metrics |= compare_baselines(encoder, faces, pairs, others, config["seed"])
    if config["calibrate"]:
        encoder.thresholds = calibrate(encoder, faces)
        metrics["encoder"] = str(encoders.write_calibration(encoder, config["encoder"], out))
        metrics["thresholds"] = {f"{far:g}": value for far, value in encoder.thresholds.items()}
    return metrics


def of_embeddings(config: dict[str, Any]) -> dict[str, Any]:
    from facenet.data.pairs import read_pairs
    from facenet.evaluation.evaluate import evaluate_embeddings
    from facenet.types import EmbeddingSet

    embeddings = EmbeddingSet.load(config["embeddings"], mmap=True)
    pairs = read_pairs(config["pairs"]) if config["pairs"] else None
    options = {**asked(config), "memory_gb": config["memory_gb"]}
    with progress("comparing all pairs") as shown:
        return evaluate_embeddings(embeddings, pairs, **options, progress=shown)


def run(config: dict[str, Any], out: Path) -> dict[str, Any]:
    from facenet.errors import ConfigError

    if bool(config["encoder"]) == bool(config["embeddings"]):
        raise ConfigError("verify: pass encoder=DIR, or embeddings=DIR for a folder that is embedded already")
    metrics = of_encoder(config, out) if config["encoder"] else of_embeddings(config)
    rows = evaluation_rows(metrics)
    baselines = {k: v for k, v in metrics.items() if isinstance(v, dict) and set(v) == {"accuracy", "auc"}}
    rows += [(f"{name.replace('_', ' ')}: accuracy", value["accuracy"]) for name, value in baselines.items()]
    rows += [(f"threshold at FAR {far}", value) for far, value in metrics.get("thresholds", {}).items()]
    table(rows, title="verify")
    return metrics


def main() -> None:
    launch("verify", run)
