"""Vectors around a centre for each person."""

from __future__ import annotations

import numpy as np


def people(count: int, each: int, noise: float, dim: int = 32, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors (count * each, dim) around a centre per person, in random order, and the person of each."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(count), each))
    vectors = rng.normal(size=(count, dim))[labels] + noise * rng.normal(size=(len(labels), dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), labels
