"""Encoder and faces to numbers: verification, calibration of thresholds, and the baselines on the same pairs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from facenet.all_pairs import all_pairs
from facenet.baselines import color_histogram, grey_pixels, pca
from facenet.bundle import Encoder
from facenet.data.cache import pack
from facenet.data.records import Records
from facenet.embed import embed_records
from facenet.models import build_model
from facenet.types import EmbeddingSet, Pairs
from facenet.verify import verify_embeddings

FARS = (1e-1, 1e-2, 1e-3, 1e-4)
# (training images, images) -> unit vectors; of several variants the best counts, so that the floor is an honest one
BASELINES: dict[str, tuple[Callable[[np.ndarray, np.ndarray], np.ndarray], ...]] = {
    "pixel": (lambda _, images: grey_pixels(images), lambda _, images: grey_pixels(images, centred=False)),
    "color": (lambda _, images: color_histogram(images),),
    "pca": (pca, lambda train, images: pca(train, images, whiten=False)),
}


def evaluate(
    encoder: Encoder, faces: Records, pairs: Pairs, *, allow_missing: bool = False, progress: Any = None
) -> dict[str, Any]:
    """Embed the faces and verify the pairs; see :func:`facenet.verify.verify`."""
    embeddings, _ = embed_records(encoder, faces, progress=progress)
    return verify_embeddings(embeddings, pairs, allow_missing=allow_missing).metrics()


def calibrate(encoder: Encoder, faces: Records, fars: tuple[float, ...] = FARS) -> dict[float, float]:
    """Return {far: sq_dist} over all pairs of the given faces; rates too small for their number are left out."""
    embeddings, kept = embed_records(encoder, faces)
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
    torch.manual_seed(seed)
    options = {**encoder.options, "input_size": tuple(encoder.options["input_size"])}
    untrained = Encoder(build_model(encoder.name, **options), encoder.name, encoder.options, encoder.preprocess)
    metrics["untrained"] = evaluate(untrained, faces, pairs)
    return {name: {"accuracy": result["accuracy"], "auc": result["auc"]} for name, result in metrics.items()}


def _score(vectors: np.ndarray, faces: Records, pairs: Pairs) -> dict[str, Any]:
    return verify_embeddings(EmbeddingSet(vectors, faces.paths, faces.identities, ""), pairs).metrics()
