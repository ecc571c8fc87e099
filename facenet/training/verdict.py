"""Did fine-tuning help? The encoder beside what it started from, on the same reported pairs."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from facenet.compat.bootstrap import HIGH, LOW, aucs, resampled
from facenet.data.degradations import Degraded
from facenet.data.records import Records
from facenet.encoders.embedding import embed_changed
from facenet.encoders.encoder import Encoder
from facenet.evaluation.degradation import level_name
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
    changes: Sequence[Degraded] = (),
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Return the AUC of the start on reported pairs, how much more the encoder has, and whether that is sure.

    The start gets the same pictures, prepared as the encoder has them. The interval is of a paired bootstrap: same and
    different pairs are drawn apart, and each draw is of both encoders, and of all changes.

    Args:
        start: What the training started from.
        encoder: What it made.
        reported: Faces that neither trained nor chose anything.
        pairs: Of these faces.
        vectors: Of the encoder, of these faces.
        changes: Ways to make both images of a pair worse, which the training used.
        seed: Of the draws.
        progress: Told how many faces are embedded.

    Returns:
        ``auc``, ``difference``, ``low`` and ``high`` of its 95 % interval, and ``helped``: whether low is above 0.
        With changes ``degraded`` has the same of the mean over them, and ``levels`` {kind: {level: the same}}. It
        ``helped`` then if low is above 0 for that mean, and high is not below 0 for the pairs as they are. A change
        that leaves every face as it was, such as more pixels than faces have, counts for nothing.

    Raises:
        DataError: an image of the pairs can not be read any more.
    """
    net, ours = start.model, encoder.model
    assert isinstance(net, nn.Module)
    assert isinstance(ours, nn.Module)
    net.to(next(ours.parameters()).device)
    begun = Encoder(net, start.name, start.options, encoder.preprocess)
    clean = score_pairs(vectors, pairs, allow_missing=True)  # drawn pairs may lack an image
    same = clean.pairs.same

    def distances(one: Encoder, wanted: Sequence[Degraded | None]) -> list[np.ndarray]:
        sets = embed_changed(one, reported, wanted, progress=progress)[0] if wanted else []
        return [score_pairs(each, clean.pairs).sq_dist for each in sets]

    scored = distances(begun, (None, *changes)), [clean.sq_dist, *distances(encoder, changes)]
    drawn = chain([np.ones((1, len(same)), np.float32)], resampled(same, DRAWS, np.random.default_rng([seed, 29])))
    found = [[[aucs(weights, sq_dist, same) for sq_dist in each] for each in scored] for weights in drawn]
    before, after = np.concatenate(found, axis=2)  # (1 + V, 1 + R) each
    return _judge(before, after, changes, len(vectors))


def _judge(before: np.ndarray, after: np.ndarray, changes: Sequence[Degraded], faces: int) -> dict[str, Any]:
    """Return what :func:`compare` does, of AUCs (1 + V, 1 + R): unchanged and V changes, of all pairs and R draws."""
    gain = _gain(before[0], after[0])
    rows = [row for row, change in enumerate(changes, 1) if len(change.unchanged) < faces]
    if not rows:
        return {**gain, "helped": gain["low"] > 0}
    mean = _gain(before[rows].mean(0), after[rows].mean(0))
    levels: dict[str, dict[str, Any]] = {}
    for row in rows:
        change = changes[row - 1]
        levels.setdefault(change.kind, {})[level_name(change.level)] = _gain(before[row], after[row])
    return {**gain, "helped": mean["low"] > 0 and gain["high"] >= 0, "degraded": {**mean, "levels": levels}}


def _gain(before: np.ndarray, after: np.ndarray) -> dict[str, float]:
    """Return the AUC before, the difference and its interval: of the pairs themselves (first), and of R draws."""
    difference = after - before
    low, high = np.percentile(difference[1:], (LOW, HIGH))
    return {"auc": float(before[0]), "difference": float(difference[0]), "low": float(low), "high": float(high)}


def refuse(out: Path) -> None:
    """Put the encoder of a run that did not help where nobody takes it for its result."""
    shutil.rmtree(out / REFUSED, ignore_errors=True)  # of an earlier run in this folder
    (out / "encoder").rename(out / REFUSED)
