"""An encoder: unit vectors, a fingerprint over what makes them, thresholds by name."""

from __future__ import annotations

import numpy as np
import pytest

from facenet.encoders.encoder import Encoder
from facenet.errors import DataError
from tests.helpers.encoders import OPTIONS, make
from tests.helpers.pictures import blob


def test_embeddings_are_unit_and_ignore_batch_mates() -> None:
    encoder = make()
    images = np.stack([blob(i, 0) for i in range(5)])
    together = encoder.embed(images)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    alone = np.concatenate([encoder.embed(images[i : i + 1]) for i in range(5)])
    np.testing.assert_allclose(alone, together, atol=1e-5)
    np.testing.assert_allclose(encoder.embed(images, batch_size=2), together, atol=1e-5)
    assert encoder.embed([]).shape == (0, 16)
    np.testing.assert_allclose(encoder.embed(images[:, :, ::-1]), together, atol=1e-5, err_msg="mirror-averaged")
    plain = make(mirror=False)
    assert np.abs(plain.embed(images[:, :, ::-1]) - plain.embed(images)).max() > 1e-3


def test_fingerprint_covers_weights_options_preprocessing_and_nothing_else() -> None:
    base = make()
    assert make().fingerprint == base.fingerprint
    assert make(seed=1).fingerprint != base.fingerprint
    assert make(crop=0.9).fingerprint != base.fingerprint
    assert Encoder(base.model, "small", {**OPTIONS, "dropout": 0.2}, base.preprocess).fingerprint != base.fingerprint
    calibrated = Encoder(base.model, "small", OPTIONS, base.preprocess, {0.1: 1.0}, ["x"], {"y": 1})
    assert calibrated.fingerprint == base.fingerprint


def test_a_threshold_is_found_by_its_rate() -> None:
    encoder = make()
    encoder.thresholds = {0.01: 1.2}
    assert encoder.threshold(0.01) == 1.2
    with pytest.raises(DataError, match=r"far=0\.001 \(calibrated: 0\.01\)"):
        encoder.threshold(0.001)
