from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from facenet.data.records import Records
from facenet.data.splits import held_out_pairs, split_faces
from facenet.embed import embed_records
from facenet.errors import DataError
from facenet.evaluate import BASELINES, calibrate, compare_baselines, evaluate, evaluate_fold
from facenet.types import Pairs
from tests.test_bundle import make


def test_calibrated_thresholds_keep_their_rates(face_tree: Path) -> None:
    faces = split_faces(kind="folder", root=str(face_tree)).train
    encoder = make()
    thresholds = calibrate(encoder, faces, (0.1, 0.01, 1e-9))
    assert set(thresholds) == {0.1, 0.01}, "a rate below one pair is left out"
    vectors = embed_records(encoder, faces)[0].vectors
    sq_dist = 2 - 2 * vectors @ vectors.T
    different = sq_dist[faces.labels[:, None] != faces.labels[None]]
    for far, threshold in thresholds.items():
        assert (different <= threshold).mean() == pytest.approx(far, abs=0.003)


def test_baselines_are_scored_on_the_same_pairs(face_tree: Path) -> None:
    splits = split_faces(kind="folder", root=str(face_tree), evaluation=0.3)
    assert splits.pairs is not None
    encoder = make()
    scores = compare_baselines(encoder, splits.evaluation, splits.pairs, splits.train, seed=0)
    assert set(scores) == {*(f"{name}_baseline" for name in BASELINES), "untrained"}
    assert all(0.4 <= score["accuracy"] <= 1 for score in scores.values())
    # these test pictures are told apart by colour alone
    assert scores["color_baseline"]["accuracy"] > 0.9
    result = evaluate(encoder, splits.evaluation, splits.pairs)
    assert result["pairs"] == len(splits.pairs)
    assert np.isfinite(result["accuracy"])


def test_a_fold_is_scored_at_the_threshold_of_other_people(face_tree: Path) -> None:
    splits = split_faces(kind="folder", root=str(face_tree), evaluation=0.3, held_out=0.3)
    assert splits.pairs is not None
    encoder, held = make(), splits.held_out
    chosen = held_out_pairs(held)
    score = evaluate_fold(encoder, splits.evaluation, splits.pairs, held, chosen)

    def distances(faces: Records, pairs: Pairs) -> np.ndarray:
        vectors = dict(zip(faces.keys, embed_records(encoder, faces)[0].vectors, strict=True))
        return np.array(
            [((vectors[a] - vectors[b]) ** 2).sum() for a, b in zip(pairs.first, pairs.second, strict=True)]
        )

    on_held = distances(held, chosen)
    best = max(np.mean((on_held <= t) == chosen.same) for t in on_held)
    assert np.mean((on_held <= score["threshold"]) == chosen.same) == best
    right = (distances(splits.evaluation, splits.pairs) <= score["threshold"]) == splits.pairs.same
    assert (score["correct"], score["pairs"]) == (right.sum(), len(splits.pairs))
    assert 0.5 < score["accuracy"] == right.mean()
    with pytest.raises(DataError, match=r"images are missing or broken \(first: p\d+/p\d+_0001\)"):
        evaluate_fold(encoder, splits.evaluation.subset([0]), splits.pairs, held, chosen)
