"""Verification of an encoder on LFW-style pairs in ten folds, or of an embeddings folder on all of its pairs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from facenet.commands.calibrate import calibrate_encoder
from facenet.commands.launch import launch
from facenet.commands.options import CommandOptions, EncoderUse
from facenet.console import progress, table
from facenet.data.options import DataOptions
from facenet.evaluation.options import EvaluationOptions
from facenet.evaluation.tables import evaluation_rows
from facenet.options import option
from facenet.types import EmbeddingSet

WHOLE = ("baselines", "identification", "calibrate", "quantise", "train_embeddings", "allow_missing", "grid")


@dataclass(frozen=True, kw_only=True)
class VerifyOptions(EvaluationOptions, EncoderUse, CommandOptions):
    """Options of ``verify``."""

    encoder: str | None = option(None, help="encoder folder, ONNX file or pretrained name")
    embeddings: str | None = option(None, help="embeddings folder instead: all of its pairs, or those of pairs=")
    pairs: str | None = option(
        None, help="LFW pairs file, CSV (first,second,same[,fold]) or .bin set; without one pairs are drawn"
    )
    calibrate: bool = option(False, help="calibrate the encoder's thresholds on the reported faces")
    baselines: bool = option(False, help="score pixels, colours, PCA and the untrained net on the same pairs")
    train_embeddings: str | None = option(None, help="embeddings of the training faces, to find near-duplicates")
    data: DataOptions = DataOptions(kind="folder")


def _given(options: VerifyOptions, *names: str) -> str:
    """Return which of these options are given, "" for none."""
    return ", ".join(name for name in names if getattr(options, name))


def training_faces(options: VerifyOptions) -> EmbeddingSet | None:
    return EmbeddingSet.load(options.train_embeddings, mmap=True) if options.train_embeddings else None


def of_encoder(name: str, options: VerifyOptions, out: Path) -> dict[str, Any]:
    from facenet.data.cache import readable
    from facenet.data.pair_files import refuse_missing, source_of_pairs, unpack_pairs
    from facenet.data.pairs import write_pairs
    from facenet.data.records import Records
    from facenet.data.reported import other_faces, reported_faces
    from facenet.encoders import lookup as encoders
    from facenet.errors import ConfigError
    from facenet.evaluation.baselines import compare_baselines
    from facenet.evaluation.evaluate import evaluate_all
    from facenet.evaluation.leakage import world_of

    if options.calibrate:
        encoders.check_calibration(name)
    encoder = encoders.load(name, device=options.device, detector=options.detector)
    with progress("unpacking images") as shown:
        data = unpack_pairs(replace(options.data, pairs=options.pairs or options.data.pairs), progress=shown)
    source = source_of_pairs(data)
    if source is not None and (found := _given(options, "backend", "baselines", "calibrate", "identification")):
        raise ConfigError(f"{found}: a .bin set has neither training faces nor names of people; leave it out")

    def decodable(records: Records) -> Records:  # pairs are drawn among these, as in training
        return readable(records, encoder.preprocess)

    if data.fold:
        return of_fold(encoder, data, options, out)
    faces, pairs = reported_faces(data, readable=decodable)
    if data.pairs:
        refuse_missing(faces, pairs, data.pairs, data.root, allow_missing=options.allow_missing)
    else:
        write_pairs(out / "pairs.csv", pairs)  # what was drawn, to be used again with pairs=FILE
    baselines, world = options.baselines, world_of(data.kind, data.seed)
    others = None
    if baselines or options.backend or options.quantise in ("pq", "all"):
        others = other_faces(data, needed=baselines or bool(options.backend), readable=decodable)
    known: dict[str, Any] = {"train_faces": others, "train_embeddings": training_faces(options), "world": world}
    with progress("embedding") as shown:
        metrics = evaluate_all(encoder, faces, pairs, options, save=out / "evaluation", progress=shown, **known)
    if source is not None:
        metrics["verification"]["source"] = source._asdict()  # copies of a set differ, and so do their scores
    if baselines and others is not None:
        metrics |= compare_baselines(encoder, faces, pairs, others, options)
    if options.calibrate:
        metrics |= calibrate_encoder(encoder, name, faces, out, world) | {"calibrated_on_reported": True}
    return metrics


def of_fold(encoder: Any, data: DataOptions, options: VerifyOptions, out: Path) -> dict[str, Any]:
    """Score one fold of View 2 at the threshold of held-out people; nobody opens the fold's faces before."""
    from facenet.data.cache import readable
    from facenet.data.pair_folds import held_out_pairs
    from facenet.data.splits import split_faces
    from facenet.errors import ConfigError
    from facenet.evaluation.evaluate import evaluate_fold
    from facenet.evaluation.leakage import world_of

    if found := _given(options, *WHOLE):
        raise ConfigError(
            f"data.fold={data.fold}: one fold is scored at one threshold, and nothing else is reported; leave out"
            f" {found}"
        )
    splits = split_faces(data)
    assert splits.pairs is not None, "a fold has pairs"
    held_out = readable(splits.held_out, encoder.preprocess)
    given = held_out_pairs(held_out, data.seed) if splits.validation is None else splits.validation.pairs
    known: dict[str, Any] = {"save": out / "evaluation", "world": world_of(data.kind, data.seed)}
    if options.backend:
        known["backend"] = options.backend, splits.train
    with progress("embedding") as known["progress"]:
        return evaluate_fold(encoder, splits.evaluation, splits.pairs, held_out, given, **known)


def of_embeddings(folder: str, options: VerifyOptions) -> dict[str, Any]:
    from facenet.data.pairs import read_pairs
    from facenet.errors import ConfigError
    from facenet.evaluation.evaluate import evaluate_embeddings

    file = options.pairs or options.data.pairs
    if found := _given(options, "backend", "baselines", "calibrate"):
        raise ConfigError(f"{found}: it is made of faces, not of vectors; pass encoder=DIR and data.root=DIR")
    if not file and (found := _given(options, "grid", "allow_missing")):
        raise ConfigError(f"{found}: it is for given pairs; pass pairs=FILE")
    embeddings = EmbeddingSet.load(folder, mmap=True)
    pairs = read_pairs(file, options.data.pair_columns) if file else None
    with progress("comparing all pairs") as shown:
        known: dict[str, Any] = {"train_embeddings": training_faces(options), "progress": shown}
        return evaluate_embeddings(embeddings, pairs, options, **known)


def run(options: VerifyOptions, out: Path) -> dict[str, Any]:
    from facenet.errors import ConfigError

    if bool(options.encoder) == bool(options.embeddings):
        raise ConfigError("verify: pass encoder=DIR, or embeddings=DIR for a folder that is embedded already")
    if options.encoder:
        metrics = of_encoder(options.encoder, options, out)
    else:
        metrics = of_embeddings(str(options.embeddings), options)
    rows = evaluation_rows(metrics)
    if source := metrics.get("verification", {}).get("source"):
        rows.append((f"SHA-256 of {source['file']}", source["sha256"]))
    baselines = {k: v for k, v in metrics.items() if isinstance(v, dict) and set(v) == {"accuracy", "auc"}}
    rows += [(f"{name.replace('_', ' ')}: accuracy", value["accuracy"]) for name, value in baselines.items()]
    rows += [(f"threshold at FAR {far}", value) for far, value in metrics.get("thresholds", {}).items()]
    if "encoder" in metrics:
        on = metrics["calibration"]
        rows.append(("calibrated on", f"the {on['people']} people reported here: try the thresholds on others"))
        rows.append(("calibrated encoder", metrics["encoder"]))
    table(rows, title="verify")
    return metrics


def main() -> None:
    launch("verify", run)
