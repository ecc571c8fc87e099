"""The results of a run: the encoder of the best checkpoint, calibrated thresholds, scores, metrics."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from facenet.console import progress
from facenet.encoders.encoder import Encoder
from facenet.errors import ConfigError
from facenet.evaluation.calibration import held_out_calibration
from facenet.evaluation.evaluate import evaluate_all, evaluate_fold
from facenet.evaluation.leakage import people_record, world_of
from facenet.evaluation.options import EvaluationOptions
from facenet.options import to_dict
from facenet.training.build import Run
from facenet.training.checkpoints import read_checkpoint
from facenet.training.faces import Faces
from facenet.training.old_embeddings import write_old
from facenet.training.options import TrainOptions
from facenet.training.verdict import compare
from facenet.types import EmbeddingSet


def best_encoder(
    options: TrainOptions,
    run: Run,
    faces: Faces,
    start: Encoder | None,
    out: Path,
    say: Callable[[str], None] = print,
) -> Encoder:
    """Return the encoder of the best checkpoint, with thresholds that were calibrated on the held-out people.

    The people who trained `start`, which the run began from, stand in its record too.

    Its training summary holds hashes of the people it was trained on, and under "best" the accuracy and step. With
    ``data.validation`` the different pairs of that file tell the thresholds, and the summary names the file.

    Raises:
        ConfigError: no validation ran, so there is no best checkpoint.
        DataError: the checkpoint can not be read.
    """
    best = run.callbacks.best
    if not best.best_model_path:
        raise ConfigError("trainer: no validation ran, so no checkpoint was chosen; lower trainer.val_check_interval")
    path = out / "checkpoints" / Path(best.best_model_path).name  # the folder may have moved
    content = read_checkpoint(path).content
    run.module.load_state_dict(content["state_dict"])
    verification = run.callbacks.verification
    scores = content["callbacks"].get(verification.state_key) or {"accuracy": float(best.best_model_score or 0)}
    summary: dict[str, Any] = {
        "data": options.data.kind,
        "loss": to_dict(options.loss),
        "seed": options.seed,
        "best": {**scores, "step": int(content["global_step"])},
    }
    model = {**run.module.hparams["model"]}
    preprocess = run.data.preprocess.with_views(options.preprocess.views)
    encoder = Encoder(run.module.model.cpu(), model.pop("name"), model, preprocess, training=summary)
    given, held_out = faces.splits.validation, run.data.held_out
    if given is not None:
        summary["validation"] = given.source._asdict()
    people = {"train": run.data.train.names, "held_out": held_out.names if given is None else sorted(given.people)}
    world = world_of(options.data.kind, options.data.seed)
    earlier = start.training.get("people", []) if start else []
    summary["people"] = [*people_record(people, encoder.fingerprint, world=world), *earlier]
    run.module.model.to(run.trainer.strategy.root_device)  # which embeds the faces below
    with progress("calibrating on held-out faces", say=say) as report:
        encoder.thresholds, encoder.calibration = held_out_calibration(encoder, held_out, given, progress=report)
    return encoder


def score(
    options: TrainOptions, run: Run, faces: Faces, encoder: Encoder, out: Path, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Score the reported pairs once; with `data.fold` at one threshold, which the held-out people choose."""
    pairs, reported = faces.splits.pairs, faces.splits.evaluation
    if pairs is None:
        return {}
    kept: dict[str, Any] = {
        "save": out / "evaluation",
        "world": world_of(options.data.kind, options.data.seed),
    }
    with progress("embedding reported faces", say=say) as kept["progress"]:
        if options.data.fold:
            metrics = evaluate_fold(encoder, reported, pairs, run.data.held_out, faces.held_out_pairs, **kept)
        else:
            drawn = not options.data.pairs  # a drawn pair may be left out if its image is lost
            metrics = evaluate_all(encoder, reported, pairs, EvaluationOptions(allow_missing=drawn), **kept)
    if run.old is not None:
        write_old(run.old, reported, out / "old")
    return metrics


def beside_start(
    options: TrainOptions,
    run: Run,
    faces: Faces,
    start: Encoder | None,
    encoder: Encoder,
    out: Path,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Return ``start``: the verdict on a fine-tuned encoder; nothing for a run that did not start from an encoder."""
    if start is None or faces.splits.pairs is None:
        return {}
    reported, pairs, augment = faces.splits.evaluation, faces.splits.pairs, run.data.augment
    vectors, changes = EmbeddingSet.load(out / "evaluation"), augment.changes if augment else ()
    with progress("embedding reported faces beside the start", say=say) as report:
        found = compare(start, encoder, reported, pairs, vectors, changes, seed=options.seed, progress=report)
    return {"start": found}


def describe_run(options: TrainOptions, run: Run, faces: Faces, encoder: Encoder) -> dict[str, Any]:
    """Return the metrics of the training itself, and the settings by which a report groups runs."""
    data, shown, given = run.data, run.callbacks.progress, faces.splits.validation
    held_out: dict[str, Any] = {"identities": len(data.held_out.names)}
    if given is not None:
        held_out = {"pairs": len(given.pairs), **given.source._asdict()}
    return {
        "run": {
            "table": options.table,
            "scale": options.scale.name,
            "model": options.model.name,
            "embedding_dim": options.model.embedding_dim,
            "train_share": options.data.train_share,
            "fold": options.data.fold,
            "seed": options.seed,
            "input_size": list(data.preprocess.size),
            "batch_size": options.sampler.batch_size,
        },
        "train": {
            "images": len(data.train),
            "identities": len(data.train.names),
            "steps": run.trainer.global_step,
            "faces_seen": shown.faces,
            "images_per_second": shown.faces_per_second,
            "first_loss": shown.first_loss,
            "last_loss": shown.last_loss,
            "skipped": len(data.skipped),
            "not_finite_steps": run.callbacks.non_finite.steps,
            "ranks": run.trainer.world_size,
            "threads": torch.get_num_threads(),
            "chunk_size": run.module.hparams["chunk_size"],
        },
        "held_out": {**held_out, **encoder.training["best"]},
        "thresholds": {f"{far:g}": value for far, value in encoder.thresholds.items()},
    }
