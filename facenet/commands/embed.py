"""Embed a folder (or table) of images: vectors.npy, items.csv, meta.json."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facenet.commands.launch import launch
from facenet.commands.options import CommandOptions, EncoderUse
from facenet.console import progress, table
from facenet.options import option


@dataclass(frozen=True, kw_only=True)
class EmbedOptions(EncoderUse, CommandOptions):
    """Options of ``embed``."""

    encoder: str = option(help="encoder folder, ONNX file or pretrained name")
    images: str = option(help="folder or table of images")
    out: str = option(help="embeddings folder to write")
    batch_size: int = option(256, least=1, help="images embedded at a time")


def run(options: EmbedOptions, out: Path) -> dict[str, Any]:
    from facenet.data.records import write_skipped
    from facenet.encoders import lookup as encoders
    from facenet.encoders.embedding import embed_folder
    from facenet.errors import DataError

    place = Path(options.out)
    if place.is_dir() and any(place.iterdir()) and not (place / "vectors.npy").is_file():
        raise DataError(f"{place}: it holds files and is no embeddings folder; give another folder as out=DIR")
    encoder = encoders.load(options.encoder, device=options.device, detector=options.detector)
    started = time.perf_counter()
    with progress("embedding") as report:
        embeddings, kept = embed_folder(encoder, options.images, batch_size=options.batch_size, progress=report)
    seconds = time.perf_counter() - started
    embeddings.save(options.out)
    reasons = out / "skipped.csv"
    write_skipped(reasons, kept.skipped)
    metrics = {
        "images": len(embeddings),
        "identities": len({name for name in embeddings.identities if name}),
        "skipped": len(kept.skipped),
        "dim": embeddings.dim,
        "images_per_second": len(embeddings) / seconds,
    }
    rows: list[tuple[str, Any]] = [*metrics.items(), ("embeddings", options.out)]
    if kept.skipped:
        rows.append(("skipped, with reasons", reasons))
    if kept.alignment is not None:
        rows.append(("what the encoder reads", encoder.preprocess.view(kept.alignment)))
    table(rows, title="embed")
    return metrics


def main() -> None:
    launch("embed", run)
