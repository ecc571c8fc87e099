"""A folder of photos to a folder of aligned faces, a table of boxes and landmarks beside them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from facenet.commands.launch import launch
from facenet.console import flatten, progress, table


def run(config: dict[str, Any], out: Path) -> dict[str, Any]:
    from facenet.data.align_folder import ALL, TABLE, align_folder, read_table, skipped
    from facenet.data.records import write_skipped
    from facenet.data.sources.kinds import scan
    from facenet.errors import DataError
    from facenet.faces.alignment import Alignment

    options = {name: config[name] for name in ("detector", "template", "margin", "size", "score", "min_face")}
    every = config["pick"] == ALL
    alignment = Alignment(**options, pick="prominent" if every else config["pick"])
    records, target = scan(config["images"]), Path(config["out"])
    started = time.perf_counter()
    with progress("aligning") as report:
        metrics = align_folder(
            records, target, alignment, faces=ALL if every else None, kind=config["format"], progress=report
        )
    metrics["seconds"] = time.perf_counter() - started
    left_out = [*records.skipped, *skipped(read_table(target / TABLE))]
    write_skipped(target / "skipped.csv", left_out)
    table([*flatten(metrics), ("faces", target), ("boxes", target / TABLE)], title="align")
    if not metrics["faces"]:
        raise DataError(
            f"{config['images']}: no usable face in {metrics['photos']} photos; see {target / 'skipped.csv'}"
        )
    return metrics


def main() -> None:
    launch("align", run)
