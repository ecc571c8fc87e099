"""May a new encoder join the old one's gallery? Four cells, gain, tax, flips and a gate: exit 0 passes, 4 does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from facenet.commands.launch import launch
from facenet.console import table


def run(config: dict[str, Any], out: Path) -> dict[str, Any]:
    from facenet.compat.assessment import assess_upgrade
    from facenet.compat.display import write_plot, write_tables
    from facenet.data.pairs import read_pairs
    from facenet.errors import ConfigError, GateError
    from facenet.types import EmbeddingSet

    if bool(config["fit_old"]) != bool(config["fit_new"]):
        raise ConfigError("compat: fit_old=EMBEDDINGS and fit_new=EMBEDDINGS go together")
    sets: dict[str, Any] = {
        name: EmbeddingSet.load(config[name]) for name in ("old", "new", "reference") if config[name]
    }
    if config["encoder"]:
        checked_encoder(config, sets["new"])
    fit = (EmbeddingSet.load(config["fit_old"]), EmbeddingSet.load(config["fit_new"])) if config["fit_old"] else None
    options = {name: config[name] for name in ("allow_missing", "gallery_faces", "steps", "draws", "seed")}
    pairs = read_pairs(config["pairs"]) if config["pairs"] else None
    metrics = assess_upgrade(**sets, pairs=pairs, fit=fit, gate_options=config["gate"], **options)
    write_plot(metrics, out / "roc.svg")
    write_tables(metrics, out)
    show(metrics)
    metrics["compatible_with"] = None
    if not metrics["gate"]["passed"]:
        raise GateError(f"compat: the gate did not pass: {'; '.join(metrics['gate']['failed'])}", metrics)
    if config["encoder"]:
        metrics |= record(config, sets["old"].fingerprint, sets["new"], out)
    return metrics


def checked_encoder(config: dict[str, Any], new: Any) -> Any:
    from facenet.encoders import lookup as encoders
    from facenet.errors import DataError

    encoder = encoders.load(config["encoder"], device="cpu")
    if encoder.fingerprint != new.fingerprint:
        raise DataError(
            f"{config['new']}: embedded by encoder {new.fingerprint[:12]}, but {config['encoder']} is "
            f"{encoder.fingerprint[:12]}; embed the images again with scripts/embed.py encoder={config['encoder']}"
        )
    return encoder


def record(config: dict[str, Any], old: str, new: Any, out: Path) -> dict[str, Any]:
    """Let the encoder's record, read anew, list the old one."""
    from facenet.encoders import lookup as encoders

    encoder, folder = checked_encoder(config, new), Path(config["encoder"])
    if old not in (encoder.fingerprint, *encoder.compatible_with):
        encoder.compatible_with.append(old)
        folder = encoders.write_calibration(encoder, config["encoder"], out)
    named = ", ".join(name[:12] for name in encoder.compatible_with) or "its own"
    print(f"encoder: {folder} may join galleries of {named}")
    return {"encoder": str(folder), "compatible_with": encoder.compatible_with}


def show(metrics: dict[str, Any]) -> None:
    from facenet.compat.display import baseline_rows, flip_rows, table_rows

    header, rows = table_rows(metrics)
    table(rows, header=header, title="compat: query-gallery")
    table(flip_rows(metrics), header=("flips", "negative", "positive"))
    if metrics["baselines"]:
        header, rows = baseline_rows(metrics)
        table(rows, header=header, title=f"new-old by a map fitted on {metrics['baselines']['fitted_on']} faces")
    print(metrics["verdict"])


def main() -> None:
    launch("compat", run)
