"""Baselines that no learned encoder should be mistaken for: pixels, colours, and PCA of the pixels.

Each turns images (N, H, W, 3) uint8 into unit vectors (N, D) float32, so that squared L2 = 2 - 2 cosine and they
are scored by :mod:`facenet.evaluation.verification` like any embedding.
Source: Turk and Pentland 1991 (eigenfaces); the Hellinger map of histograms, Arandjelovic and Zisserman 2012.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from facenet.data.records import Records
from facenet.encoders.embedding import embed_records
from facenet.encoders.encoder import Encoder
from facenet.errors import ConfigError, DataError
from facenet.evaluation.options import EvaluationOptions
from facenet.evaluation.verification import common_grid, verify_embeddings
from facenet.models.registry import NETS
from facenet.types import EmbeddingSet, Pairs
from facenet.vectors import normalise

SIDE = 32
LUMA = np.asarray([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


def grey_pixels(images: np.ndarray, *, centred: bool = True) -> np.ndarray:
    """Grey values of images (N, H, W, 3), area-averaged to at most 32 x 32, as unit vectors (N, D).

    `centred` takes each image's own mean away before scaling, which removes brightness and makes the cosine a
    correlation: the stronger baseline of the two and therefore the default. False is the plain cosine of the pixels.
    No images give (0, D); a flat image centred is the zero vector.

    Raises:
        DataError: not uint8 images of shape (N, H, W, 3).
    """
    grey = _grey(images)
    return normalise(grey - grey.mean(1, keepdims=True) if centred else grey)


def color_histogram(images: np.ndarray, *, bins: int = 8) -> np.ndarray:
    """Square roots of the shares of bins^3 joint RGB colours of images (N, H, W, 3): unit vectors (N, bins^3).

    Squared L2 of two such vectors is twice the squared Hellinger distance of the histograms.
    No images give (0, bins^3).

    Raises:
        DataError: not uint8 images of shape (N, H, W, 3).
        ConfigError: `bins` outside [1, 256].
    """
    _check(images)
    if not 1 <= bins <= 256:
        raise ConfigError(f"color_histogram: expected bins in [1, 256], got {bins}")
    level = np.arange(256) * bins // 256
    shares = np.zeros((len(images), bins**3), np.float32)
    for row, image in enumerate(images):
        code = (level[image[..., 0]] * bins + level[image[..., 1]]) * bins + level[image[..., 2]]
        shares[row] = np.bincount(code.ravel(), minlength=bins**3) / code.size
    return normalise(np.sqrt(shares))


def pca(train_images: np.ndarray, images: np.ndarray, *, dim: int = 128, whiten: bool = True) -> np.ndarray:
    """Project images (N, H, W, 3) on the first principal components of training faces: unit vectors (N, dim).

    x -> (x - mean) V / sigma on centred grey pixels (see :func:`grey_pixels`), mean and components V fitted on
    `train_images` (M, H, W, 3) alone; `whiten` divides by the standard deviations sigma. dim is cut to what M
    images of so many pixels can span.

    Raises:
        DataError: not uint8 images of one size, or fewer than two training images.
        ConfigError: `dim` < 1.
    """
    if dim < 1:
        raise ConfigError(f"pca: expected dim >= 1, got {dim}")
    train, pixels = grey_pixels(train_images), grey_pixels(images)
    if len(train) < 2 or train.shape[1] != pixels.shape[1]:
        raise DataError(
            f"pca: expected two or more training images of the size of the others, got {train_images.shape} "
            f"and {images.shape}"
        )
    mean = train.mean(0)
    centred = (train - mean).astype(np.float64)
    variances, components = np.linalg.eigh(centred.T @ centred / (len(train) - 1))  # ascending
    keep = slice(-1, -1 - min(dim, len(train) - 1, len(variances)), -1)
    sigma = np.sqrt(np.maximum(variances[keep], 1e-12))
    projected = (pixels - mean) @ components[:, keep]  # (N, dim)
    return normalise(projected / sigma if whiten else projected)


# (training images, images) -> unit vectors; of several variants the best counts, so that the baseline is an honest one
BASELINES: dict[str, tuple[Callable[[np.ndarray, np.ndarray], np.ndarray], ...]] = {
    "pixel": (lambda _, images: grey_pixels(images), lambda _, images: grey_pixels(images, centred=False)),
    "color": (lambda _, images: color_histogram(images),),
    "pca": (pca, lambda train, images: pca(train, images, whiten=False)),
}


def compare_baselines(
    encoder: Encoder, faces: Records, pairs: Pairs, train_faces: Records, options: EvaluationOptions
) -> dict[str, Any]:
    """Score what no learning reaches on the same pairs: pixels, colours, PCA, and the same net untrained.

    Of the `options` the grid, missing images and the seed count, so that the scores are as those of the encoder.
    """
    from facenet.data.cache import pack

    def score(embeddings: EmbeddingSet) -> dict[str, Any]:
        grid = common_grid(options.grid)
        return verify_embeddings(embeddings, pairs, allow_missing=options.allow_missing, grid=grid).metrics()

    images, kept = pack(faces, encoder.preprocess)
    train_images, _ = pack(train_faces, encoder.preprocess)
    shown = np.moveaxis(train_images, 1, -1), np.moveaxis(images, 1, -1)
    metrics: dict[str, Any] = {}
    for name, variants in BASELINES.items():
        made = [EmbeddingSet(vectors(*shown), kept.paths, kept.identities, "") for vectors in variants]
        scores = [score(embeddings) for embeddings in made]
        metrics[f"{name}_baseline"] = max(scores, key=lambda score: score["accuracy"])
    if encoder.name in NETS:  # a foreign net can not be had untrained
        import torch

        from facenet.models.build import build_recorded

        torch.manual_seed(options.seed)
        record = {**encoder.options, "input_size": tuple(encoder.options["input_size"])}
        untrained = Encoder(build_recorded(encoder.name, **record), encoder.name, encoder.options, encoder.preprocess)
        metrics["untrained"] = score(embed_records(untrained, faces)[0])
    return {name: {"accuracy": result["accuracy"], "auc": result["auc"]} for name, result in metrics.items()}


def _check(images: np.ndarray) -> None:
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
        raise DataError(f"baselines: expected uint8 images (N, H, W, 3), got {images.dtype} {images.shape}")


def _grey(images: np.ndarray) -> np.ndarray:
    """Return grey images averaged over areas to at most 32 x 32, flat: (N, h w) float32."""
    _check(images)
    rows, columns = (_areas(size) for size in images.shape[1:3])
    small = np.empty((len(images), len(rows), len(columns)), np.float32)
    for at in range(0, len(images), 256):  # blocks bound the memory
        block = images[at : at + 256].astype(np.float32) @ LUMA  # (b, H, W)
        small[at : at + 256] = rows @ block @ columns.T
    return small.reshape(len(images), len(rows) * len(columns))


def _areas(size: int) -> np.ndarray:
    """Return the weights (min(size, 32), size) with which a pixel of the small image averages those of the large."""
    side = min(size, SIDE)
    edges = np.arange(side + 1) * (size / side)
    pixel = np.arange(size)
    overlap = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    return (np.maximum(overlap, 0) * (side / size)).astype(np.float32)
