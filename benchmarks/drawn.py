"""Drawn embeddings of people: identity centroids with a decaying spectrum, and noise for each image."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from facenet.mining.online import mine

SEMI_HARD_SHARE = 0.37  # of the pairs, as in training (0.3 to 0.45)
CHUNK = 1 << 16  # rows drawn at a time


def draw_faces(
    B: int, D: int = 128, *, per_identity: int = 40, decay: float = 0.6, within: float = 1.0, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Draw shuffled unit embeddings (B, D) float32 and labels (B,) with `per_identity` rows of each identity.

    An embedding is its identity's centroid plus noise, both with variance proportional to rank^-decay over the D axes.
    The mean squared distance is about `within` inside an identity and 2 between identities.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(B) // per_identity
    spectrum = torch.arange(1, D + 1, dtype=torch.float32) ** (-decay / 2)
    centroids = torch.randn((B + per_identity - 1) // per_identity, D, generator=generator) * spectrum
    noise = F.normalize(torch.randn(B, D, generator=generator) * spectrum, dim=1)
    scale = (1 / (1 - within / 2) - 1) ** 0.5
    embeddings = F.normalize(F.normalize(centroids, dim=1)[labels] + scale * noise, dim=1)
    order = torch.randperm(B, generator=generator)
    return embeddings[order], labels[order]


def trained_decay(B: int, D: int, *, per_identity: int, margin: float, seed: int = 0) -> float:
    """Find by bisection the decay of :func:`draw_faces` that gives the share of semi-hard pairs seen in training."""
    low, high = 0.0, 2.0
    for _ in range(7):
        decay = (low + high) / 2
        embeddings, labels = draw_faces(B, D, per_identity=per_identity, decay=decay, seed=seed)
        stats = mine(embeddings, labels, margin=margin, anchors=torch.arange(min(B, 512))).stats
        low, high = (low, decay) if stats.semi_hard_pairs > SEMI_HARD_SHARE * stats.pairs else (decay, high)
    return (low + high) / 2


def draw_gallery(
    count: int,
    D: int = 128,
    *,
    per_identity: int = 20,
    decay: float = 0.8,
    noise_decay: float = 0.25,
    spread: float = 0.45,
    within: float = 1.0,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw unit vectors (N, D) float32 of shuffled identities, and the identity of each (N,).

    Identity centroid plus noise per image, with variances proportional to rank^-decay and rank^-noise_decay over the
    axes; the size of an image's noise is log-normal with deviation `spread`, and such that the mean squared distance
    inside an identity is about `within`; it is 2 between identities.
    """
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(count) // per_identity)
    spectrum = np.arange(1, D + 1, dtype=np.float32)
    people = -(-count // per_identity)
    centroids = _unit(rng.standard_normal((people, D), dtype=np.float32) * spectrum ** (-decay / 2))
    size = np.exp(spread * rng.standard_normal(count, dtype=np.float32))
    low, high = 0.0, 10.0
    for _ in range(40):  # the mean cosine of a face and its centroid is the root of that of two faces
        scale = (low + high) / 2
        near = np.mean(1 / np.sqrt(1 + (scale * size) ** 2)) ** 2 > 1 - within / 2
        low, high = (scale, high) if near else (low, scale)
    vectors = np.empty((count, D), np.float32)
    for start in range(0, count, CHUNK):
        rows = slice(start, start + CHUNK)
        noise = _unit(rng.standard_normal((len(labels[rows]), D), dtype=np.float32) * spectrum ** (-noise_decay / 2))
        vectors[rows] = _unit(centroids[labels[rows]] + np.float32(scale) * size[rows, None] * noise)
    return vectors, labels


def _unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)
