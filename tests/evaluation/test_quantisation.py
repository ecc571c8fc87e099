"""quantise: codes against plain arithmetic, bytes, and the same pairs scored beside the float ones."""

from __future__ import annotations

import json

import numpy as np
import pytest

from facenet.errors import ConfigError, DataError
from facenet.evaluation.quantisation import METHODS, compare_quantised, methods, quantise
from facenet.evaluation.verification import verify_embeddings
from facenet.types import EmbeddingSet, Pairs
from tests.helpers.verification import unit


def faces(count: int = 1200, dim: int = 32) -> tuple[EmbeddingSet, Pairs]:
    labels = np.arange(count) // 4
    names = [f"p{n}" for n in labels]
    embeddings = EmbeddingSet(unit(count, dim, labels, 3), [f"{i}.jpg" for i in range(count)], names, "f")
    rng = np.random.default_rng(0)
    one = rng.integers(0, count, 2000)
    two = np.where(
        np.arange(2000) < 1000, one // 4 * 4 + (one + 1) % 4, (one + rng.integers(4, count - 4, 2000)) % count
    )
    keys = embeddings.keys
    same = labels[one] == labels[two]
    return embeddings, Pairs(tuple(keys[i] for i in one), tuple(keys[i] for i in two), same, np.arange(2000) % 10)


def test_int8_rounds_each_vector_by_its_own_maximum() -> None:
    vectors = faces()[0].vectors
    code = quantise(vectors, "int8")
    assert (code.bytes_per_face, code.vectors.dtype) == (32, np.float32)
    for vector, read in zip(vectors[:50], code.vectors[:50], strict=True):
        rounded = np.asarray([round(float(x) * 127 / float(np.abs(vector).max())) for x in vector])
        np.testing.assert_allclose(read, rounded / np.linalg.norm(rounded), atol=1e-6)
    assert 0 < np.abs(code.vectors - vectors).max() < 0.005
    np.testing.assert_allclose(np.linalg.norm(code.vectors, axis=1), 1, atol=1e-6)
    assert (quantise(np.zeros((1, 4), np.float32), "int8").vectors == 0).all()


def test_pq_takes_the_nearest_centroid_of_each_part_and_fits_on_other_faces() -> None:
    vectors = faces()[0].vectors
    code = quantise(vectors, "pq", train=vectors[:600], parts=8)
    assert (code.bytes_per_face, code.settings["fitted_faces"], code.settings["fitted_on"]) == (8, 600, "other faces")
    assert quantise(vectors, "pq").settings["fitted_on"] == "the reported faces"
    assert quantise(vectors, "pq").bytes_per_face == 8, "one byte for every four dimensions"
    error = ((code.vectors - vectors) ** 2).sum(1)
    assert error[:600].mean() < error[600:].mean() < 0.6, "what it was fitted on is flattered"
    seen = {tuple(part) for part in np.round(code.vectors[:, :4] / code.vectors[:, 4:5], 4)}
    assert len(seen) > 100
    np.testing.assert_allclose(np.linalg.norm(code.vectors, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(quantise(vectors, "pq", train=vectors[:600], parts=8).vectors, code.vectors)


def test_scores_stand_beside_the_float_ones(capfd: pytest.CaptureFixture[str]) -> None:
    embeddings, pairs = faces()
    exact = verify_embeddings(embeddings, pairs)
    found = compare_quantised(embeddings, pairs, methods("all"), train=embeddings.vectors[::2])
    assert set(found) == set(METHODS) == {"int8", "pq"}
    for entry in found.values():
        assert entry["accuracy_difference"] == entry["accuracy"] - exact.accuracy
        assert entry["float_bytes_per_face"] == 128
    assert abs(found["int8"]["accuracy_difference"]) < 0.003
    assert found["pq"]["accuracy"] < found["int8"]["accuracy"]
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert capfd.readouterr() == ("", ""), "FAISS warns of few points for each centroid"


def test_names_and_sizes_that_can_not_be() -> None:
    vectors = faces(400)[0].vectors
    assert (methods(None), methods("pq")) == ([], ["pq"])
    with pytest.raises(ConfigError, match="did you mean 'int8'"):
        methods("int")
    with pytest.raises(ConfigError, match="parts that divide the width 32, got 5"):
        quantise(vectors, "pq", parts=5)
    with pytest.raises(DataError, match="256 or more vectors"):
        quantise(vectors, "pq", train=vectors[:100])
    with pytest.raises(DataError, match="of width 32"):
        quantise(vectors, "pq", train=vectors[:, :16])
