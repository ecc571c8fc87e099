"""Embeddings in few bytes: 8-bit integers and product quantisation, scored beside the float32 ones on the same pairs.

Both codes are read back as unit vectors, so no scale and no length is stored: D bytes for `int8`, M bytes for `pq`.
Letters: N embeddings, D embedding width, M parts of a product-quantised vector.
Source: Schroff et al. 2015, section 5 (128 dimensions in 128 bytes, claimed without a table); Jegou et al. 2011
(product quantisation, by FAISS).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from facenet.errors import ConfigError, DataError, choose
from facenet.evaluation.verification import FARS, verify_embeddings
from facenet.types import EmbeddingSet, Pairs
from facenet.vectors import normalise

PQ_BITS = 8  # 256 centroids for each part
PQ_WIDTH = 4  # dimensions of a part, as in 128 dimensions in 32 bytes
MAX_TRAIN = 50_000  # vectors the centroids are fitted on: about 200 for each


class Quantised(NamedTuple):
    """N vectors as they are read back from their codes, and what a code takes."""

    vectors: np.ndarray  # (N, D) float32, unit rows
    bytes_per_face: int
    settings: dict[str, Any]


def quantise(
    vectors: np.ndarray, method: str, *, train: np.ndarray | None = None, parts: int | None = None, seed: int = 0
) -> Quantised:
    """Encode unit vectors (N, D) by a method of `METHODS` and read them back.

    "int8": c = round(127 x / max |x|), each vector by its own maximum, x' = c / ||c||. "pq": x in M = `parts` pieces
    (one for every 4 dimensions by default), each replaced by the nearest of 256 centroids that k-means fitted on
    `train` (T, D); x' is scaled to length 1. `train` None fits them on `vectors` themselves, which flatters.

    Raises:
        ConfigError: an unknown method, or parts that do not divide D.
        DataError: fewer than 256 vectors to fit centroids on, or another width.
    """
    return choose(METHODS, method, "quantise")(np.ascontiguousarray(vectors, np.float32), train, parts, seed)


def compare_quantised(
    embeddings: EmbeddingSet,
    pairs: Pairs,
    methods: Sequence[str],
    *,
    train: np.ndarray | None = None,
    seed: int = 0,
    allow_missing: bool = False,
    fars: Sequence[float] = FARS,
    grid: np.ndarray | None = None,
) -> dict[str, Any]:
    """Verify the same pairs with float32 and with quantised embeddings: {method: metrics}, see :func:`quantise`.

    Metrics are accuracy, sem, auc, eer, val_at_far as of the float ones, `bytes_per_face`, `float_bytes_per_face`,
    `accuracy_difference` (quantised less float, a fraction) and the settings of the method.

    Raises:
        DataError, ConfigError: what :func:`quantise` and :func:`verify_embeddings` refuse.
    """
    options: dict[str, Any] = {"allow_missing": allow_missing, "fars": fars, "grid": grid}
    exact = verify_embeddings(embeddings, pairs, **options)
    found: dict[str, Any] = {}
    for method in methods:
        code = quantise(embeddings.vectors, method, train=train, seed=seed)
        metrics = verify_embeddings(replace(embeddings, vectors=code.vectors), pairs, **options).metrics()
        found[method] = {
            **{name: metrics[name] for name in ("accuracy", "sem", "auc", "eer", "val_at_far")},
            "accuracy_difference": metrics["accuracy"] - exact.accuracy,
            "bytes_per_face": code.bytes_per_face,
            "float_bytes_per_face": 4 * embeddings.dim,
            **code.settings,
        }
    return found


def methods(name: str | None) -> list[str]:
    """Turn the option into methods: null none, "all" every one.

    Raises:
        ConfigError: an unknown name.
    """
    if name is None:
        return []
    choose({**METHODS, "all": None}, name, "quantise")
    return list(METHODS) if name == "all" else [name]


def _int8(vectors: np.ndarray, train: np.ndarray | None, parts: int | None, seed: int) -> Quantised:
    largest = np.abs(vectors).max(1, initial=1e-12, keepdims=True)
    codes = np.rint(vectors * (127 / largest)).astype(np.int8)  # (N, D)
    return Quantised(normalise(codes.astype(np.float32)), codes.shape[1], {"scale": "each vector by its own maximum"})


def _pq(vectors: np.ndarray, train: np.ndarray | None, parts: int | None, seed: int) -> Quantised:
    import faiss  # lazily, after torch where both are used

    dim = vectors.shape[1]
    parts = parts or max(1, dim // PQ_WIDTH)
    if parts < 1 or dim % parts:
        raise ConfigError(f"pq: expected parts that divide the width {dim}, got {parts}")
    fitted = vectors if train is None else np.ascontiguousarray(train, np.float32)
    if fitted.ndim != 2 or fitted.shape[1] != dim or len(fitted) < 2**PQ_BITS:
        raise DataError(
            f"pq: expected {2**PQ_BITS} or more vectors of width {dim} to fit centroids on, got {fitted.shape};"
            " give more faces or use quantise=int8"
        )
    if len(fitted) > MAX_TRAIN:
        fitted = fitted[np.random.default_rng(seed).choice(len(fitted), MAX_TRAIN, replace=False)]
    quantiser: Any = faiss.ProductQuantizer(dim, parts, PQ_BITS)
    quantiser.cp.min_points_per_centroid = 1  # FAISS warns below 39, on the terminal
    quantiser.cp.max_points_per_centroid = 1 + MAX_TRAIN // 2**PQ_BITS
    quantiser.cp.seed = seed + 1
    quantiser.train(fitted)
    decoded = quantiser.decode(quantiser.compute_codes(vectors))
    on = "the reported faces" if train is None else "other faces"
    settings = {"parts": parts, "bits": PQ_BITS, "fitted_on": on, "fitted_faces": len(fitted)}
    return Quantised(normalise(decoded), parts * PQ_BITS // 8, settings)


METHODS: dict[str, Callable[[np.ndarray, np.ndarray | None, int | None, int], Quantised]] = {"int8": _int8, "pq": _pq}
