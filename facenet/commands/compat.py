"""May a new encoder join the old one's gallery? Four cells, gain, tax, flips and a gate: exit 0 passes, 4 does not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facenet.commands.launch import launch
from facenet.commands.options import CommandOptions
from facenet.compat.options import GateOptions
from facenet.console import table
from facenet.data.options import PairColumns
from facenet.options import SEED, option


@dataclass(frozen=True, kw_only=True)
class CompatOptions(CommandOptions):
    """Options of ``compat``."""

    old: str = option(help="embeddings by the old encoder")
    new: str = option(help="embeddings of the same images by the new encoder")
    encoder: str | None = option(
        None, help="the new encoder, whose record is written; without one only the check is made"
    )
    pairs: str | None = option(None, help="LFW pairs file or CSV; without one pairs are drawn from the images")
    pair_columns: PairColumns = PairColumns()
    reference: str | None = option(
        None, help="embeddings by the same recipe without a compatibility term: gain and tax"
    )
    fit_old: str | None = option(None, help="with fit_new: embeddings of training faces by the old encoder")
    fit_new: str | None = option(None, help="and by the reference, to fit maps between the spaces as baselines")
    allow_missing: bool = option(False, help="leave out pairs with an image that is not in all embeddings")
    gallery_faces: int = option(1, least=1, help="faces of each person that are enrolled; all others are queries")
    steps: int = option(11, least=2, help="steps of the mixed gallery, from 0 to 100 % backfilled")
    draws: int = option(1000, least=2, help="draws of the paired bootstrap")
    gate: GateOptions = GateOptions()
    seed: int = option(0, **SEED, help="seed of drawn pairs, enrolment, backfill order and bootstrap")


def run(options: CompatOptions, out: Path) -> dict[str, Any]:
    from facenet.compat.assessment import assess_upgrade
    from facenet.compat.display import write_plot, write_tables
    from facenet.data.pairs import read_pairs
    from facenet.errors import ConfigError, DataError, GateError
    from facenet.types import EmbeddingSet

    if bool(options.fit_old) != bool(options.fit_new):
        raise ConfigError("compat: fit_old=EMBEDDINGS and fit_new=EMBEDDINGS go together")
    sets: dict[str, Any] = {
        name: EmbeddingSet.load(folder)
        for name, folder in (("old", options.old), ("new", options.new), ("reference", options.reference))
        if folder
    }
    if options.encoder:
        checked_encoder(options.encoder, options.new, sets["new"])
        if len({*sets["old"].identities, *sets["new"].identities} - {""}) < 2:
            raise DataError("compat: encoder= needs images of two named people, who tell the thresholds between both")
    fit = None
    if options.fit_old and options.fit_new:
        fit = (EmbeddingSet.load(options.fit_old), EmbeddingSet.load(options.fit_new))
    pairs = read_pairs(options.pairs, options.pair_columns, named="pair_columns") if options.pairs else None
    metrics = assess_upgrade(
        **sets,
        pairs=pairs,
        fit=fit,
        gate=options.gate,
        allow_missing=options.allow_missing,
        gallery_faces=options.gallery_faces,
        steps=options.steps,
        draws=options.draws,
        seed=options.seed,
    )
    write_plot(metrics, out / "roc.svg")
    write_tables(metrics, out)
    show(metrics)
    metrics["compatible_with"] = None
    if not metrics["gate"]["passed"]:
        raise GateError(f"compat: the gate did not pass: {'; '.join(metrics['gate']['failed'])}", metrics)
    if options.encoder:
        metrics |= record(options.encoder, options.new, sets["old"], sets["new"], out)
    return metrics


def checked_encoder(name: str, folder: str, new: Any) -> Any:
    from facenet.encoders import lookup as encoders
    from facenet.errors import DataError

    encoders.check_calibration(name)
    encoder = encoders.load(name, device="cpu")
    if encoder.fingerprint != new.fingerprint:
        raise DataError(
            f"{folder}: embedded by encoder {new.fingerprint[:12]}, but {name} is "
            f"{encoder.fingerprint[:12]}; embed the images again with facenet embed encoder={name}"
        )
    return encoder


def record(name: str, embeddings: str, old: Any, new: Any, out: Path) -> dict[str, Any]:
    """Let the encoder's record, read anew, list the old one, with the thresholds of distances between the two."""
    from facenet.compat.matching import share_images
    from facenet.encoders import lookup as encoders
    from facenet.evaluation.calibration import calibrate_with_older

    encoder, folder = checked_encoder(name, embeddings, new), Path(name)
    thresholds: dict[float, float] = {}
    if old.fingerprint != encoder.fingerprint:
        shared = share_images({"old": old, "new": new})
        named = [row for row, identity in enumerate(shared.identities) if identity]
        vectors = {which: found[named] for which, found in shared.vectors.items()}
        thresholds = calibrate_with_older(vectors["new"], vectors["old"], [shared.identities[row] for row in named])
        encoder.with_older[old.fingerprint] = thresholds
        if old.fingerprint not in encoder.compatible_with:
            encoder.compatible_with.append(old.fingerprint)
        folder = encoders.write_calibration(encoder, name, out)
    listed = ", ".join(name[:12] for name in encoder.compatible_with) or "its own"
    print(f"encoder: {folder} may join galleries of {listed}")
    between = {f"{far:g}": value for far, value in thresholds.items()}
    if between:
        table([(f"new-old at FAR {far}", value) for far, value in between.items()], title="compat: thresholds")
    return {"encoder": str(folder), "compatible_with": encoder.compatible_with, "thresholds_new_old": between}


def show(metrics: dict[str, Any]) -> None:
    from facenet.compat.display import baseline_rows, flip_rows, table_rows

    header, rows = table_rows(metrics)
    table(rows, header=header, title="compat: query-gallery")
    table(flip_rows(metrics), header=("flips", "negative", "positive"))
    if metrics["baselines"]:
        header, rows = baseline_rows(metrics)
        table(rows, header=header, title=f"new-old by a map fitted on {metrics['baselines']['fitted_on']} faces")
    print(metrics["verdict"])


def main() -> None:
    launch("compat", run)
