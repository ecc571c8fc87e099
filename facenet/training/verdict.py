"""Did fine-tuning help? The encoder beside what it started from, on the same reported pairs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from facenet.compat.bootstrap import HIGH, LOW, aucs, resampled
from facenet.data.records import Records
from facenet.encoders.embedding import embed_records
from facenet.encoders.encoder import Encoder
from facenet.evaluation.verification import score_pairs
from facenet.types import EmbeddingSet, Pairs, Progress

DRAWS = 1000
REFUSED = "encoder_refused"  # the folder of an encoder that did not help, in the run folder


def compare(
    start: Encoder,
    encoder: Encoder,
    reported: Records,
    pairs: Pairs,
    vectors: EmbeddingSet,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Return the AUC of the start on reported pairs, how much more the encoder has, and whether that is sure.

    The start gets the same pictures, prepared as the encoder has them. The interval is of a paired bootstrap: same and
    different pairs are drawn apart, and each draw is of both encoders.

    Args:
        start: What the training started from.
        encoder: What it made.
        reported: Faces that neither trained nor chose anything.
        pairs: Of these faces.
        vectors: Of the encoder, of these faces.
        seed: Of the draws.
        progress: Told how many faces of the start are embedded.

    Returns:
        ``auc``, ``difference``, ``low`` and ``high`` of its 95 % interval, and ``helped``: whether low is above 0.
    """
    net = start.model
    assert isinstance(net, nn.Module)
    before = embed_records(Encoder(net, start.name, start.options, encoder.preprocess), reported, progress=progress)[0]
    scored = [score_pairs(one, pairs, allow_missing=True) for one in (before, vectors)]
    same = scored[0].pairs.same
    gains = [
        aucs(weights, scored[1].sq_dist, same) - aucs(weights, scored[0].sq_dist, same)
        for weights in resampled(same, DRAWS, np.random.default_rng([seed, 29]))
    ]
    first, second = (float(aucs(np.ones((1, len(same)), np.float32), one.sq_dist, same)[0]) for one in scored)
    low, high = np.percentile(np.concatenate(gains), (LOW, HIGH))
    return {
        "auc": first,
        "difference": second - first,
        "low": float(low),
        "high": float(high),
        "helped": bool(low > 0),
    }


def refuse(out: Path) -> None:
    """Put the encoder of a run that did not help where nobody takes it for its result."""
    shutil.rmtree(out / REFUSED, ignore_errors=True)  # of an earlier run in this folder
    (out / "encoder").rename(out / REFUSED)
