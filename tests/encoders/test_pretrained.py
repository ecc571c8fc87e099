"""SFace as an encoder: the vectors that its own graph gives, a stable fingerprint, and people told apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator
from PIL import Image

from facenet.data.pairs import read_pairs
from facenet.data.sources.folder import scan_lfw
from facenet.encoders.embedding import embed_records
from facenet.encoders.encoder import Encoder
from facenet.encoders.pretrained import load_pretrained
from facenet.errors import ConfigError
from facenet.evaluation.verification import verify_embeddings
from facenet.foreign import read_package_model


@pytest.fixture(scope="module")
def sface() -> Encoder:
    return load_pretrained("sface")


def test_vectors_are_those_of_the_graph_as_it_was_published(sface: Encoder, portrait: Image.Image) -> None:
    assert sface.preprocess.align is not None
    face = sface.preprocess.align.cut(portrait)
    pixels = np.asarray(face, np.float32).transpose(2, 0, 1)[None]  # RGB, 0 to 255
    model = onnx.load_from_string(read_package_model("sface"))
    used = {name for node in model.graph.node for name in node.input}
    stale = [item for item in model.graph.input if item.name != "data" or item.name not in used]
    for item in stale:
        model.graph.input.remove(item)
    (expected,) = ReferenceEvaluator(model).run(None, {"data": pixels})
    expected = expected / np.linalg.norm(expected)
    np.testing.assert_allclose(sface.embed([portrait]), expected, atol=1e-4)
    batch = sface.embed([portrait, portrait.convert("L").convert("RGB"), portrait])
    assert batch.shape == (3, 128)
    np.testing.assert_allclose(batch[[0, 2]], np.repeat(expected, 2, 0), atol=1e-4)


def test_the_fingerprint_stays_what_it_is(sface: Encoder) -> None:
    """Galleries name it: it may change with the weights or the preprocessing alone."""
    assert sface.fingerprint == load_pretrained("sface").fingerprint
    assert sface.fingerprint.startswith("17e4661f3374")
    assert sface.dim == 128
    assert sface.training["data"] == "outside data"
    with pytest.raises(ConfigError, match="unknown name 'face'"):
        load_pretrained("face")


@pytest.mark.lfw
@pytest.mark.slow  # faces are found in 80 photographs
def test_strangers_and_friends_of_lfw_are_told_apart(sface: Encoder, lfw_root: Path) -> None:
    """40 of the pairs of View 1's test, for the sake of time; the score over all is in docs/results/photos.md."""
    pairs = read_pairs(lfw_root / "protocol" / "pairsDevTest.txt").subset(range(0, 1000, 25))
    wanted = {*pairs.first, *pairs.second}
    records = scan_lfw(lfw_root)
    records = records.subset([row for row, key in enumerate(records.keys) if key in wanted])
    embeddings, kept = embed_records(sface, records)
    assert len(kept) == len(records), "a face in every picture"
    assert verify_embeddings(embeddings, pairs).accuracy >= 0.97
