"""Robustness of an encoder: verification with images made worse by known amounts, as a table and a plot."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from facenet.commands.launch import launch
from facenet.commands.options import CommandOptions
from facenet.console import progress, table
from facenet.data.options import CHANGES_HELP, DataOptions, LevelOptions
from facenet.options import RATE, SEED, option, to_dict


@dataclass(frozen=True, kw_only=True)
class DegradeOptions(CommandOptions):
    """Options of ``degrade``."""

    encoder: str = option(help="encoder folder, ONNX file or pretrained name")
    pairs: str | None = option(None, help="LFW pairs file, CSV or .bin set; without one pairs are drawn")
    kinds: tuple[str, ...] | None = option(None, help=CHANGES_HELP)
    levels: LevelOptions = LevelOptions()
    sides: str = option("both", choices=("both", "first"), help="images of a pair that are changed")
    far: float = option(0.001, **RATE, help="VAL is shown at this rate, or at the smallest resolvable one above it")
    allow_missing: bool = option(False, help="leave out pairs without an image")
    batch_size: int = option(256, least=1, help="images embedded at a time")
    device: str = option("auto", help="auto, cpu, cuda")
    seed: int = option(0, **SEED, help="seed of noise, covers and drawn pairs")
    data: DataOptions = DataOptions(kind="folder")


def run(options: DegradeOptions, out: Path) -> dict[str, Any]:
    from facenet.data.cache import readable
    from facenet.data.degradations import plan
    from facenet.data.pair_files import refuse_missing, source_of_pairs, unpack_pairs
    from facenet.data.reported import reported_faces
    from facenet.encoders import lookup as encoders
    from facenet.evaluation.degradation import degrade
    from facenet.evaluation.degradation_plot import write_plot

    changes = plan(options.kinds, to_dict(options.levels), options.seed)
    encoder = encoders.load(options.encoder, device=options.device)
    with progress("unpacking images") as report:
        data = unpack_pairs(replace(options.data, pairs=options.pairs or options.data.pairs), progress=report)
    source = source_of_pairs(data)
    faces, pairs = reported_faces(data, readable=lambda faces: readable(faces, encoder.preprocess))
    if data.pairs:
        refuse_missing(faces, pairs, data.pairs, data.root, allow_missing=options.allow_missing)
    with progress(f"{len(changes)} changes of {len(faces)} images") as report:
        metrics = degrade(
            encoder,
            faces,
            pairs,
            changes,
            sides=options.sides,
            far=options.far,
            allow_missing=options.allow_missing,
            batch_size=options.batch_size,
            progress=report,
        )
    if source is not None:
        metrics["source"] = source._asdict()
    show(metrics, options.far)
    write_plot(metrics, out / "degrade.svg", options.far)
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
