"""A face set read once from end to end: what it holds, what can not be used, and the index that training opens."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facenet.commands.launch import launch
from facenet.commands.options import CommandOptions
from facenet.console import flatten, progress, table
from facenet.data.options import DataOptions
from facenet.options import option

CHECKS = {"pixels": "decode every image", "bytes": "read and hash every image, which takes a tenth of the time"}


@dataclass(frozen=True, kw_only=True)
class ScanOptions(CommandOptions):
    """Options of ``scan``."""

    data: DataOptions = DataOptions(kind="folder")
    check: str = option("pixels", choices=CHECKS, help="how well images are looked at")


def run(options: ScanOptions, out: Path) -> dict[str, Any]:
    from facenet.data.index import index_folder
    from facenet.data.records import NothingUsable, write_skipped
    from facenet.data.scan import scan_set, summary
    from facenet.errors import ConfigError

    data = options.data
    if not data.root or data.kind in ("csv", "synthetic"):
        raise ConfigError("scan: pass data.root=FOLDER or FILE; a table and drawn faces need no index")
    started, place = time.perf_counter(), index_folder(data.root)
    try:
        with progress("listing images") as listing, progress("reading images") as report:
            found = scan_set(
                data.kind, data.root, place, decoded=options.check == "pixels", listing=listing, progress=report
            )
    except NothingUsable as error:
        write_skipped(out / "skipped.csv", error.skipped)
        raise
    write_skipped(out / "skipped.csv", found.index.skipped)
    metrics = {**summary(found), "seconds": time.perf_counter() - started}
    rows = flatten({key: value for key, value in metrics.items() if key != "images_a_person"})
    table([*rows, ("index", place), ("not used, with reasons", out / "skipped.csv")], title=f"scan of {data.root}")
    table([*metrics["images_a_person"].items()], header=("images a person, at least", "people"))
    return metrics


def main() -> None:
    launch("scan", run)
