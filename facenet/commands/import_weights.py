"""Weights that others trained, as an encoder: facenet-pytorch's, InsightFace's, SFace's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facenet.commands.launch import launch
from facenet.commands.options import CommandOptions
from facenet.console import table
from facenet.options import option


@dataclass(frozen=True, kw_only=True)
class ImportOptions(CommandOptions):
    """Options of ``import``."""

    file: str = option(help="weights: .pt, .pth, .safetensors, .onnx, or a pretrained net by its name (sface)")
    out: str = option(help="encoder folder to write")
    net: str | None = option(None, help="net that the weights are of; null: the one that they fit")


def run(options: ImportOptions, out: Path) -> dict[str, Any]:
    from facenet.encoders import model_card
    from facenet.encoders.bundle import save_bundle
    from facenet.encoders.weights_file import import_weights
    from facenet.errors import ConfigError

    if Path(options.out).exists():
        raise ConfigError(f"out={options.out}: it exists; give a folder that does not")
    encoder, found = import_weights(options.file, options.net)
    save_bundle(encoder, options.out)
    model_card.write(options.out, encoder, {}, {})
    metrics = {
        "family": found.family,
        "net": found.net,
        "embedding_dim": encoder.dim,
        "fitted": len(found.weights),
        "left_out": found.unused,
        "fingerprint": encoder.fingerprint,
        "encoder": options.out,
    }
    left_out = f"{len(found.unused)} ({', '.join(found.unused[:3])})" if found.unused else "0"
    table(
        [
            ("weights of", f"{found.net} ({found.family})"),
            ("numbers of a vector", encoder.dim),
            ("weights and statistics that fit", len(found.weights)),
            ("left out, a classifier's", left_out),
            ("reads faces of", "x".join(map(str, encoder.preprocess.size))),
            ("thresholds", f"none yet: facenet calibrate encoder={options.out} data.root=FACES"),
            ("encoder", options.out),
        ],
        title="import",
    )
    return metrics


def main() -> None:
    launch("import", run)
