"""Every net with every attention, at its smallest input."""

from __future__ import annotations

import itertools
from typing import Any

from facenet.models.registry import TABLES

VARIANTS = ("plain", "block", "head")


CASES = list(itertools.product(sorted(TABLES), VARIANTS))


STAGE = {"nn1": "conv4", "nns1": "inception_6a", "nns2": "inception_5a", "small": "inception_3a"}


def smallest(name: str) -> tuple[int, int]:
    """The smallest input that leaves two positions, so that attention has something to choose between."""
    return TABLES[name].shrink, TABLES[name].shrink + 1


def options(name: str, variant: str) -> dict[str, Any]:
    base = {"embedding_dim": 12, "norm": "batch", "input_size": list(smallest(name)), "dropout": 0.0}
    attention = {"after": STAGE.get(name, "inception_4b"), "heads": 2, "features": "positive", "num_features": 16}
    return {
        "plain": base,
        "block": {**base, "attention": attention, "pool": None},
        "head": {**base, "attention": None, "pool": "attention"},
    }[variant]
