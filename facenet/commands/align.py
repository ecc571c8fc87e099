"""A folder of photos to a folder of aligned faces, a table of boxes and landmarks beside them."""

from __future__ import annotations

import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from facenet.commands.launch import launch
from facenet.commands.options import CommandOptions
from facenet.console import flatten, progress, table
from facenet.faces.options import ALL, PICKS, AlignOptions
from facenet.options import option


@dataclass(frozen=True, kw_only=True)
class AlignFolderOptions(AlignOptions, CommandOptions):
    """Options of ``align``."""

    detector: str = option("yunet", choices=("yunet",), help="finds faces and landmarks")
    pick: str = option("prominent", choices=(*PICKS, ALL), help="which face of several; all: every one")
    images: str = option(help="folder or table of photos")
    out: str = option(help="folder of aligned faces to write")
    format: str = option("jpg", choices=("jpg", "png"), help="png: without loss, three times the size")


def run(options: AlignFolderOptions, out: Path) -> dict[str, Any]:
    from facenet.data.align_folder import TABLE, align_folder, read_table, skipped
    from facenet.data.records import write_skipped
    from facenet.data.sources.kinds import scan
    from facenet.errors import DataError
    from facenet.faces.alignment import Alignment

    alignment = Alignment(**{item.name: getattr(options, item.name) for item in fields(Alignment)})
    records, target = scan(options.images), Path(options.out)
    started = time.perf_counter()
    with progress("aligning") as report:
        metrics = align_folder(records, target, alignment, kind=options.format, progress=report)
    metrics["seconds"] = time.perf_counter() - started
    left_out = [*records.skipped, *skipped(read_table(target / TABLE))]
    write_skipped(target / "skipped.csv", left_out)
    files = [("faces", target), ("boxes", target / TABLE), ("not used, with reasons", target / "skipped.csv")]
    table([*flatten(metrics), *files], title="align")
    if not metrics["faces"]:
        raise DataError(f"{options.images}: no usable face in {metrics['photos']} photos; see {target / 'skipped.csv'}")
    return metrics


def main() -> None:
    launch("align", run)
