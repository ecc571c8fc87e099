"""Thresholds keep their rates on the faces that they were calibrated on."""

from __future__ import annotations

from pathlib import Path

import pytest

from facenet.data.options import DataOptions
from facenet.data.splits import split_faces
from facenet.encoders.embedding import embed_records
from facenet.evaluation.calibration import calibrate
from tests.helpers.encoders import make


def test_calibrated_thresholds_keep_their_rates(face_tree: Path) -> None:
    faces = split_faces(DataOptions(kind="folder", root=str(face_tree))).train
    encoder = make()
    thresholds = calibrate(encoder, faces, (0.1, 0.01, 1e-9))
    assert set(thresholds) == {0.1, 0.01}, "a rate below one pair is left out"
    vectors = embed_records(encoder, faces)[0].vectors
    sq_dist = 2 - 2 * vectors @ vectors.T
    different = sq_dist[faces.labels[:, None] != faces.labels[None]]
    for far, threshold in thresholds.items():
        assert (different <= threshold).mean() == pytest.approx(far, abs=0.003)
