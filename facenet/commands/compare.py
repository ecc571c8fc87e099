"""Are two photos one person? pairs= answers a table of pairs, gallery= judges as a search in that gallery does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facenet.commands.galleries import GALLERY, open_gallery
from facenet.commands.launch import launch
from facenet.commands.options import CommandOptions, EncoderUse, warn_of_drawn_faces
from facenet.console import progress, table
from facenet.data.options import PairColumns
from facenet.options import INSIDE, RATE, option

SHOWN = 20  # pairs of a table that are printed


@dataclass(frozen=True, kw_only=True)
class CompareOptions(EncoderUse, CommandOptions):
    """Options of ``compare``."""

    encoder: str = option(help="encoder folder, ONNX file or pretrained name")
    a: str | None = option(None, help="a photo")
    b: str | None = option(None, help="another photo")
    pairs: str | None = option(None, help="instead of a and b: CSV table first,second; its paths are relative to it")
    pair_columns: PairColumns = PairColumns()
    gallery: str | None = option(None, help=f"{GALLERY}, whose search threshold judges the pair")
    fpir: float | None = option(None, **INSIDE, help="with gallery: share of strangers with any match; null: 0.05")
    far: float | None = option(
        None, **RATE, help="share of pairs of different people that match; null: 0.001 without gallery"
    )
    threshold: float | None = option(None, least=0, most=4, help="instead of a rate: match up to this sq_dist")


def run(options: CompareOptions, out: Path) -> dict[str, Any]:
    from facenet.encoders import lookup as encoders
    from facenet.errors import ConfigError

    if (options.a is None or options.b is None) if options.pairs is None else (options.a or options.b):
        raise ConfigError("compare: pass two photos, a=PHOTO b=PHOTO, or a table of them, pairs=FILE")
    encoder = encoders.load(options.encoder, device=options.device, detector=options.detector)
    warn_of_drawn_faces(encoder, [options.a, options.b])
    threshold = find_threshold(encoder, options)
    judged = compare_two if options.pairs is None else compare_many
    told = threshold.plain() if options.gallery else {"threshold": threshold.sq_dist, "far": threshold.rate}
    return {**told, **judged(encoder, options, threshold, out)}


def find_threshold(encoder: Any, options: CompareOptions) -> Any:
    """Return the threshold of a search in the gallery or, without one, that of pairs of different people."""
    from facenet.errors import ConfigError
    from facenet.evaluation.thresholds import pair_threshold

    if options.gallery:
        with open_gallery(options.gallery) as gallery:
            return gallery.threshold(encoder, fpir=options.fpir, far=options.far, threshold=options.threshold)
    if options.fpir is not None:
        raise ConfigError("fpir: it is a rate of searches in a gallery; pass gallery=DIR too, or far= in its place")
    return pair_threshold(encoder.threshold, far=options.far, threshold=options.threshold)


def costs(threshold: Any) -> list[tuple[str, Any]]:
    """Return rows that say what the threshold of a gallery was derived from and what it costs; [] without a gallery."""
    told = [("derived from", threshold.source), ("strangers let in, expected", threshold.strangers)]
    return [*told, ("right people kept, expected", threshold.right)] if threshold.faces else []


def compare_two(encoder: Any, options: CompareOptions, threshold: Any, out: Path) -> dict[str, Any]:
    from facenet.evaluation.photos import compare_photos

    found = compare_photos(encoder, options.a or "", options.b or "", threshold=threshold.sq_dist)
    found.draw(out / "compare.png")
    table(
        [
            *((name, photo.others or photo.summary()) for name, photo in (("a", found.a), ("b", found.b))),
            ("sq_dist", found.sq_dist),
            (threshold.named(), threshold.sq_dist),
            *costs(threshold),
            ("verdict", found.verdict),
            ("picture", out / "compare.png"),
        ],
        title=f"{options.a}  against  {options.b}",
    )
    return {"sq_dist": found.sq_dist, "same": found.same, "a": found.a.plain(), "b": found.b.plain()}


def compare_many(encoder: Any, options: CompareOptions, threshold: Any, out: Path) -> dict[str, Any]:
    from facenet.errors import DataError
    from facenet.evaluation.photos import Verdict, compare_table
    from facenet.files import read_csv, write_csv

    file = Path(options.pairs or "")
    one, two = options.pair_columns.first, options.pair_columns.second
    remedy = f"give a CSV file with the columns {one}, {two}, or name them: pair_columns.first=NAME (second)"
    rows = read_csv(file, (one, two), remedy=remedy, whole=True)
    pairs = [(row[one].strip(), row[two].strip()) for row in rows]
    if not pairs:
        raise DataError(f"{file}: no pair below its header; {remedy}")
    warn_of_drawn_faces(encoder, [name for pair in pairs for name in pair])
    with progress("comparing") as report:
        found = compare_table(encoder, pairs, root=file.parent, threshold=threshold.sq_dist, progress=report)
    write_csv(out / "compare.csv", Verdict._fields, found)
    counts = {kind: sum(one.verdict == kind for one in found) for kind in ("one person", "two people", "not compared")}
    shown = [(one.first, one.second, one.sq_dist, one.verdict, one.note) for one in found[:SHOWN]]
    table(shown, header=Verdict._fields, title=f"the first {len(shown)} of {len(found)} pairs")
    told = [(threshold.named(), threshold.sq_dist), *costs(threshold), ("all pairs", out / "compare.csv")]
    table([*counts.items(), *told], title="compare")
    if counts["not compared"] == len(found):
        raise DataError(f"{file}: no pair could be compared ({found[0].note}); see {out / 'compare.csv'}")
    return {"pairs": len(found), **{kind.replace(" ", "_"): count for kind, count in counts.items()}}


def main() -> None:
    launch("compare", run)
