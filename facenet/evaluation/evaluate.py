"""Encoder and faces to numbers: verification and what goes with it, thresholds, baselines on the same pairs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from facenet.data.cache import pack
from facenet.data.records import Records
from facenet.data.sources.kinds import scan
from facenet.encoders.embedding import embed_records
from facenet.encoders.encoder import Encoder
from facenet.errors import ConfigError
from facenet.evaluation.all_pairs import all_pairs
from facenet.evaluation.baselines import color_histogram, grey_pixels, pca
from facenet.evaluation.folder import save_evaluation
from facenet.evaluation.identification import enrol, identify
from facenet.evaluation.leakage import leakage
from facenet.evaluation.quantisation import compare_quantised, methods
from facenet.evaluation.verification import FARS, best_threshold, score_at, score_pairs, verify_embeddings
from facenet.models.build import build_model
from facenet.models.registry import NETS
from facenet.types import EmbeddingSet, Pairs, Progress

CALIBRATED_FARS = (1e-1, 1e-2, 1e-3, 1e-4)
# (training images, images) -> unit vectors; of several variants the best counts, so that the floor is an honest one
BASELINES: dict[str, tuple[Callable[[np.ndarray, np.ndarray], np.ndarray], ...]] = {
    "pixel": (lambda _, images: grey_pixels(images), lambda _, images: grey_pixels(images, centred=False)),
    "color": (lambda _, images: color_histogram(images),),
    "pca": (pca, lambda train, images: pca(train, images, whiten=False)),
}


def evaluate(
    encoder: Encoder,
    faces: Records,
    pairs: Pairs,
    *,
    allow_missing: bool = False,
    grid: np.ndarray | None = None,
    save: str | Path | None = None,
    progress: Any = None,
) -> dict[str, Any]:
    """Embed the faces and verify the pairs; see :func:`verify_pairs`. `save` names a folder to keep them in.

    Raises:
        DataError: pairs without an image, unless `allow_missing`; no readable image.
    """
    embeddings, kept = embed_records(encoder, faces, progress=progress)
    metrics = verify_embeddings(embeddings, pairs, allow_missing=allow_missing, grid=grid).metrics()
    if save is not None:
        save_evaluation(save, embeddings, kept, pairs)
    return metrics


def evaluate_fold(
    encoder: Encoder,
    faces: Records,
    pairs: Pairs,
    held_out: Records,
    held_out_pairs: Pairs,
    *,
    save: str | Path | None = None,
    world: str = "",
) -> dict[str, Any]:
    """Score the pairs of one fold once (LFW View 2), at the threshold that is best on pairs of held-out other people.

    Returns `verification`, see :func:`score_at`, and `leakage`. The fold's faces are opened last; `save`
    names a folder to keep them and the scored pairs in.

    Raises:
        DataError: an image of a pair is missing or can not be read.
    """
    others = score_pairs(embed_records(encoder, held_out)[0], held_out_pairs)
    threshold = best_threshold(others.sq_dist, others.pairs.same)
    embeddings, kept = embed_records(encoder, faces)
    score = score_at(score_pairs(embeddings, pairs).sq_dist, pairs.same, threshold)
    if save is not None:
        save_evaluation(save, embeddings, kept, pairs)
    return {"verification": score, "leakage": leakage(embeddings, encoder.training.get("people"), world=world)}


def evaluate_all(
    encoder: Encoder,
    faces: Records,
    pairs: Pairs,
    *,
    save: str | Path | None = None,
    train_faces: Records | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Embed the reported faces once and report all that is asked about them, see :func:`evaluate_embeddings`.

    `save` names a folder to keep faces and scored pairs in, see :func:`save_evaluation`. On `train_faces`, which are
    other people's, the centroids of ``quantise="pq"`` are fitted.

    Raises:
        DataError, ConfigError: what the parts refuse.
    """
    wanted = methods(options.get("quantise"))
    embeddings, kept = embed_records(encoder, faces)
    others = embed_records(encoder, train_faces)[0].vectors if train_faces is not None and "pq" in wanted else None
    people = encoder.training.get("people")
    metrics = evaluate_embeddings(embeddings, pairs, people=people, fit_on=others, **options)
    if save is not None:
        save_evaluation(save, embeddings, kept, pairs)
    return metrics


def evaluate_embeddings(
    embeddings: EmbeddingSet,
    pairs: Pairs | None,
    *,
    allow_missing: bool = False,
    fars: Sequence[float] = FARS,
    grid: np.ndarray | None = None,
    identification: Mapping[str, Any] | None = None,
    quantise: str | None = None,
    fit_on: np.ndarray | None = None,
    people: Sequence[Mapping[str, Any]] | None = None,
    train_embeddings: EmbeddingSet | None = None,
    world: str = "",
    memory_gb: float = 2.0,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Report `verification` on the pairs, or `all_pairs` without any; `leakage` and, if wanted, more.

    Args:
        embeddings: The reported faces.
        pairs: The reported pairs; None for all there are.
        allow_missing: Whether pairs without an embedding are left out.
        fars: False accept rates.
        grid: Thresholds the folds choose from, see :func:`facenet.evaluation.common_grid`.
        identification: Options of :func:`facenet.evaluation.enrol`; gives `identification`.
        quantise: "int8", "pq" or "all"; gives `quantised`, on the same pairs.
        fit_on: Vectors (T, D) to fit the centroids of "pq" on.
        people: Whom the encoder was trained on, see :func:`facenet.evaluation.people_record`.
        train_embeddings: Embeddings of the training faces, among which near-duplicates are looked for.
        world: See :func:`facenet.evaluation.world_of`.
        memory_gb: Of all pairs, see :func:`facenet.evaluation.all_pairs`.
        seed: Of all that is drawn.
        progress: Called with (done, total) rows of all pairs.

    Raises:
        ConfigError: `quantise` without pairs; and what the parts refuse.
        DataError: what the parts refuse.
    """
    wanted = methods(quantise)
    metrics: dict[str, Any] = {}
    if pairs is not None:
        options: dict[str, Any] = {"allow_missing": allow_missing, "fars": fars, "grid": grid}
        metrics["verification"] = verify_embeddings(embeddings, pairs, **options).metrics()
        if wanted:
            metrics["quantised"] = compare_quantised(embeddings, pairs, wanted, train=fit_on, seed=seed, **options)
    elif wanted:
        raise ConfigError("quantise: scored on given pairs; pass pairs=FILE")
    else:
        names = list(embeddings.identities)
        found = all_pairs(embeddings.vectors, names, fars, memory_gb=memory_gb, progress=progress)
        metrics["all_pairs"] = found.metrics()
    if identification is not None:
        metrics["identification"] = identify_faces(embeddings, **identification, seed=seed)
    metrics["leakage"] = leakage(embeddings, people, world=world, train=train_embeddings)
    return metrics


def identify_faces(
    embeddings: EmbeddingSet, *, gallery_faces: int = 1, strangers: float = 0.5, seed: int = 0
) -> dict[str, Any]:
    """Enrol some of the faces, look the others up and return the metrics; see :mod:`.identification`."""
    gallery, probes = enrol(embeddings.identities, gallery_faces=gallery_faces, strangers=strangers, seed=seed)
    names = np.asarray(embeddings.identities, str)
    found = identify(embeddings.vectors[gallery], names[gallery], embeddings.vectors[probes], names[probes])
    return {**found.metrics(), "gallery_faces": gallery_faces, "strangers_share": strangers}


def calibrate(
    encoder: Encoder, faces: Records | str | Path, fars: Sequence[float] = CALIBRATED_FARS
) -> dict[float, float]:
    """Return thresholds {far: sq_dist} over all pairs of the given faces (records, or a folder or table of images).

    A rate is left out if there are too few pairs to resolve it, or if it needs more memory than
    :func:`~facenet.evaluation.all_pairs.all_pairs` allows. The encoder is left as it is.

    Raises:
        DataError: no readable image, or faces of fewer than two people.
    """
    records = faces if isinstance(faces, Records) else scan(faces)
    embeddings, kept = embed_records(encoder, records)
    found = all_pairs(embeddings.vectors, list(kept.identities), fars).val_at_far
    return {far: float(entry["threshold"]) for far, entry in found.items() if entry["resolvable"]}


def compare_baselines(
    encoder: Encoder, faces: Records, pairs: Pairs, train_faces: Records, seed: int
) -> dict[str, Any]:
    """Score what no learning reaches on the same pairs: pixels, colours, PCA, and the same net untrained."""
    images, kept = pack(faces, encoder.preprocess)
    train_images, _ = pack(train_faces, encoder.preprocess)
    shown = np.moveaxis(train_images, 1, -1), np.moveaxis(images, 1, -1)
    metrics: dict[str, Any] = {}
    for name, variants in BASELINES.items():
        scores = [_score(vectors(*shown), kept, pairs) for vectors in variants]
        metrics[f"{name}_baseline"] = max(scores, key=lambda score: score["accuracy"])
    if encoder.name in NETS:  # a foreign net can not be had untrained
        torch.manual_seed(seed)
        options = {**encoder.options, "input_size": tuple(encoder.options["input_size"])}
        untrained = Encoder(build_model(encoder.name, **options), encoder.name, encoder.options, encoder.preprocess)
        metrics["untrained"] = evaluate(untrained, faces, pairs)
    return {name: {"accuracy": result["accuracy"], "auc": result["auc"]} for name, result in metrics.items()}


def _score(vectors: np.ndarray, faces: Records, pairs: Pairs) -> dict[str, Any]:
    return verify_embeddings(EmbeddingSet(vectors, faces.paths, faces.identities, ""), pairs).metrics()
