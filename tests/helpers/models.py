"""Every net with every attention, at its smallest input."""

from __future__ import annotations

import itertools
from typing import Any

from facenet.models.registry import KNOWN, TABLES, known_table
from facenet.models.tables import NetTable

VARIANTS = ("plain", "block", "head")
CASES = list(itertools.product(sorted([*TABLES, *KNOWN]), VARIANTS))
STAGE = {
    "nn1": "conv4",
    "nns1": "inception_6a",
    "nns2": "inception_5a",
    "small": "inception_3a",
    "inception_resnet_v1": "reduce_a",
    **dict.fromkeys(("iresnet18", "iresnet50", "iresnet100"), "layer3"),
    **dict.fromkeys(("mobilefacenet", "mbf"), "down4"),
    "fmobilenet": "conv6",
}


def table(name: str) -> NetTable:
    return TABLES.get(name) or known_table(name)


def smallest(name: str) -> tuple[int, int]:
    """The smallest input that leaves two positions, so that attention has something to choose between."""
    least = table(name).least
    return least, next(side for side in itertools.count(least) if table(name).positions(side) == 2)


def options(name: str, variant: str) -> dict[str, Any]:
    base = {"embedding_dim": 12, "input_size": list(smallest(name)), "dropout": 0.0}
    base |= {"norm": "batch"} if name in TABLES else {}
    attention = {"after": STAGE.get(name, "inception_4b"), "heads": 2, "features": "positive", "num_features": 16}
    return {
        "plain": base,
        "block": {**base, "attention": attention, "pool": None},
        "head": {**base, "attention": None, "pool": "attention"},
    }[variant]
