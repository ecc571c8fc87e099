"""Verification pairs as a file: drawn among one's own faces, or unpacked from a .bin set."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facenet.commands.launch import launch
from facenet.commands.options import CommandOptions
from facenet.console import progress, table
from facenet.data.options import DataOptions
from facenet.options import SEED, option


@dataclass(frozen=True, kw_only=True)
class PairsOptions(CommandOptions):
    """Options of ``pairs``."""

    out: str = option(help="folder to write pairs.csv into; of a .bin set a new folder, also of its images")
    bin: str | None = option(None, help="a .bin set (lfw.bin, cfp_fp.bin, ...) to unpack instead of drawing")
    folds: int = option(10, least=2, help="folds; a person is in one fold only")
    pairs_per_fold: int = option(600, least=2, help="pairs of a fold: half of one person, half of two")
    seed: int = option(0, **SEED, help="seed of the drawing")
    data: DataOptions = DataOptions(kind="folder")


def drawn(options: PairsOptions, file: Path, out: Path) -> dict[str, Any]:
    from facenet.data.cache import readable
    from facenet.data.pair_folds import draw_pairs
    from facenet.data.pairs import write_pairs
    from facenet.data.preprocess import Preprocess
    from facenet.data.records import write_skipped
    from facenet.data.sources.bin_pairs import source_of
    from facenet.data.sources.kinds import scan_usable
    from facenet.data.splits import listed_people
    from facenet.errors import ConfigError

    data = options.data
    if source_of(file):
        raise ConfigError(f"out={options.out}: it holds the pairs of a .bin set; give another folder")
    with progress("listing people") as shown:
        _, faces = scan_usable(data.kind, data.root, max_bad_share=data.max_bad_share, progress=shown)
    if data.people:
        faces = listed_people(faces, data.people)
    pairs, named = draw_pairs(
        faces,
        pairs_per_fold=options.pairs_per_fold,
        folds=options.folds,
        seed=options.seed,
        readable=lambda some: readable(some, Preprocess()),
    )
    write_pairs(file, pairs)
    write_skipped(out / "skipped.csv", faces.skipped)
    people = Counter(named.identities)
    return {
        "pairs": len(pairs),
        "same": int(pairs.same.sum()),
        "folds": options.folds,
        "people": len(people),
        "images": len(named),
        "most_images_of_a_person": max(people.values()),
        "people_without_a_pair": len(faces.names) - len(people),
        "skipped": len(faces.skipped),
    }


def unpacked(file: str, out: str) -> dict[str, Any]:
    from facenet.data.pairs import read_pairs
    from facenet.data.sources.bin_pairs import IMAGES, TABLE, convert_bin, source_of

    with progress("unpacking images") as shown:
        folder = convert_bin(file, out, progress=shown)
    pairs, source = read_pairs(folder / TABLE), source_of(folder / TABLE)
    assert source is not None
    counts = {"pairs": len(pairs), "same": int(pairs.same.sum()), "folds": len(set(pairs.fold.tolist()))}
    images = len({*pairs.first, *pairs.second})
    return {**counts, "images": images, "root": str(folder / IMAGES), "file": source.file, "sha256": source.sha256}


def run(options: PairsOptions, out: Path) -> dict[str, Any]:
    from facenet.errors import ConfigError

    file = Path(options.out) / "pairs.csv"
    if options.bin:
        if options.data.root:
            raise ConfigError("pairs: bin=FILE brings its own images; leave data.root out, or leave bin out to draw")
        metrics = unpacked(options.bin, options.out)
    elif options.data.kind == "synthetic":
        raise ConfigError("data=synthetic: facenet verify draws these faces and their pairs; give data.root=FACES")
    elif not options.data.root:
        raise ConfigError("pairs: pass data.root=FACES to draw pairs among faces, or bin=FILE to unpack a .bin set")
    else:
        metrics = drawn(options, file, out)
    table([*((name.replace("_", " "), value) for name, value in metrics.items()), ("written", file)], title="pairs")
    return metrics


def main() -> None:
    launch("pairs", run)
