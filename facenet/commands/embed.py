"""Embed a folder (or table) of images: vectors.npy, items.csv, meta.json."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from facenet.commands.launch import launch
from facenet.console import progress, table


def run(config: dict[str, Any], out: Path) -> dict[str, Any]:
    from facenet.data.records import write_skipped
    from facenet.data.sources.kinds import scan
    from facenet.encoders import lookup as encoders
    from facenet.encoders.embedding import embed_records

    encoder = encoders.load(config["encoder"], device=config["device"], detector=config["detector"])
    records = scan(config["images"])
    started = time.perf_counter()
    with progress("embedding") as report:
        embeddings, kept = embed_records(encoder, records, batch_size=config["batch_size"], progress=report)
    seconds = time.perf_counter() - started
    embeddings.save(config["out"])
    write_skipped(out / "skipped.csv", kept.skipped)
    metrics = {
        "images": len(embeddings),
        "identities": len({name for name in embeddings.identities if name}),
        "skipped": len(kept.skipped),
        "dim": embeddings.dim,
        "images_per_second": len(embeddings) / seconds,
    }
    table([*metrics.items(), ("embeddings", config["out"])], title="embed")
    return metrics


def main() -> None:
    launch("embed", run)
