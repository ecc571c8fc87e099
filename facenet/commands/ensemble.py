"""Several encoders as one: their vectors side by side, averaged over several views of a face, and reduced if asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facenet.commands.launch import launch
from facenet.commands.options import CommandOptions
from facenet.console import progress, table
from facenet.data.options import DataOptions
from facenet.options import option


@dataclass(frozen=True, kw_only=True)
class EnsembleOptions(CommandOptions):
    """Options of ``ensemble``."""

    encoders: str | tuple[str, ...] = option(help="encoder folders; one is enough with views")
    out: str = option(help="encoder folder to write; it holds copies of the weights")
    views: int = option(1, least=1, most=7, help="views of a face that each net averages: the crop, sizes, shifts")
    reduce: str | None = option(
        None, choices=("pca", "whiten", "lda"), help="map the joined vectors to dim numbers, fitted on training people"
    )
    dim: int | None = option(None, least=1, help="width with reduce; null: that of the first encoder")
    data: DataOptions = DataOptions(kind="folder")


def refuse_trained(encoder: Any, splits: Any, options: EnsembleOptions) -> None:
    """Refuse thresholds from people who trained a member; keep whom the reduction and the thresholds are of."""
    from facenet.errors import ConfigError
    from facenet.evaluation.leakage import people_record, trained_people, world_of

    world = world_of(options.data.kind, options.data.seed)
    held_out = splits.held_out.names if splits.validation is None else sorted(splits.validation.people)
    known = encoder.training["people"]
    if trained := trained_people(held_out, known, world=world):
        raise ConfigError(
            f"data: {len(trained)} of the held-out people trained a member ({trained[0]}, ...), which makes thresholds"
            " too tight; give the options of data that the members had"
        )
    people = {"train": splits.train.names if options.reduce else [], "held_out": held_out}
    encoder.training["people"] = [*known, *people_record(people, encoder.fingerprint, world=world)]


def run(options: EnsembleOptions, out: Path) -> dict[str, Any]:
    from facenet.data.splits import split_faces
    from facenet.encoders import model_card
    from facenet.encoders.bundle import save_bundle
    from facenet.encoders.embedding import embed_records
    from facenet.encoders.ensemble import join, reduce
    from facenet.encoders.lookup import load
    from facenet.encoders.reduction import fit_reduction
    from facenet.errors import ConfigError
    from facenet.evaluation.calibration import held_out_calibration

    given = bool(options.data.root) or options.data.kind == "synthetic"
    if not given and options.data != DataOptions(kind="folder"):
        raise ConfigError("data: it says whose faces tell the thresholds; pass data.root=DIR too, or leave it out")
    if options.reduce and not given:
        raise ConfigError("reduce: it is fitted on the training people; pass data.root=DIR, as the encoders had it")
    if options.dim is not None and not options.reduce:
        raise ConfigError("dim: the width of a reduction; add reduce=pca, whiten or lda")
    if Path(options.out).exists():
        raise ConfigError(f"out={options.out}: it exists; give a folder that does not")
    names = [options.encoders] if isinstance(options.encoders, str) else options.encoders
    found = [load(name, device="cpu") for name in names]
    encoder, width = join(found, views=options.views), None
    splits = None
    if given:
        with progress("reading faces") as shown:
            splits = split_faces(options.data, progress=shown)
    if options.reduce and splits is not None:
        width = options.dim or found[0].dim
        with progress("embedding training faces") as shown:
            vectors, kept = embed_records(encoder, splits.train, progress=shown)
        encoder = reduce(encoder, *fit_reduction(vectors.vectors, kept.labels, options.reduce, width))
    if splits is not None:
        refuse_trained(encoder, splits, options)
        with progress("calibrating on held-out faces") as shown:
            found_on = held_out_calibration(encoder, splits.held_out, splits.validation, progress=shown)
            encoder.thresholds, encoder.calibration = found_on
    save_bundle(encoder, options.out)
    model_card.write(options.out, encoder, {}, {})
    passes = sum(len(member["views"]) * (2 if member["mirror"] else 1) for member in encoder.options["members"])
    thresholds = {f"{far:g}": value for far, value in encoder.thresholds.items()}
    metrics = {
        "members": [one.fingerprint for one in found],
        "embedding_dim": encoder.dim,
        "passes": passes,
        "reduced_from": None if width is None else sum(one.dim for one in found),
        "thresholds": thresholds,
        "fingerprint": encoder.fingerprint,
        "encoder": options.out,
    }
    rows: list[tuple[str, Any]] = [
        ("members", ", ".join(f"{one.name} {one.fingerprint[:12]}" for one in found)),
        ("numbers of a vector", encoder.dim),
        ("passes of a net for a face", passes),
        *((f"threshold at FAR {far}", value) for far, value in thresholds.items()),
        ("encoder", options.out),
    ]
    table(rows, title="ensemble")
    return metrics


def main() -> None:
    launch("ensemble", run)
