from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from facenet.distance import normalise
from facenet.errors import DataError
from facenet.types import EmbeddingSet, Pairs, image_key


def example(n: int = 5, dim: int = 8) -> EmbeddingSet:
    vectors = normalise(np.random.default_rng(0).normal(size=(n, dim)))
    paths = [f"a,b/{'é' if i else 'x'}_{i:04d}.jpg" for i in range(n)]
    return EmbeddingSet(vectors, paths, [f"p{i % 2}" for i in range(n)], "f" * 64, "/somewhere")


@pytest.mark.parametrize("mmap", [False, True])
def test_round_trip(tmp_path: Path, mmap: bool) -> None:
    saved = example()
    saved.save(tmp_path / "e")
    loaded = EmbeddingSet.load(tmp_path / "e", mmap=mmap)
    np.testing.assert_array_equal(loaded.vectors, saved.vectors)
    assert (loaded.paths, loaded.identities) == (saved.paths, saved.identities)
    assert (loaded.fingerprint, loaded.root, loaded.dim, len(loaded)) == (saved.fingerprint, "/somewhere", 8, 5)


@pytest.mark.parametrize("name", ["vectors.npy", "items.csv", "meta.json"])
def test_a_changed_or_missing_file_does_not_load(tmp_path: Path, name: str) -> None:
    example().save(tmp_path)
    data = bytearray((tmp_path / name).read_bytes())
    data[len(data) // 2] ^= 1
    if name != "meta.json":
        (tmp_path / name).write_bytes(bytes(data))
        with pytest.raises(DataError, match="SHA-256"):
            EmbeddingSet.load(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(DataError, match="no such file"):
        EmbeddingSet.load(tmp_path)


def test_wrong_shapes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="do not fit"):
        EmbeddingSet(np.zeros((3, 4), np.float32), ["a"], ["b"], "f")
    with pytest.raises(DataError, match="float32"):
        EmbeddingSet(np.zeros((1, 4)), ["a"], ["b"], "f")
    with pytest.raises(DataError, match=r"scripts/embed\.py"):
        EmbeddingSet.load(tmp_path / "none")


def test_subset_keeps_order() -> None:
    chosen = example().subset([3, 1])
    assert chosen.paths == [example().paths[3], example().paths[1]]
    np.testing.assert_array_equal(chosen.vectors[1], example().vectors[1])


def test_image_key_and_pairs_length() -> None:
    assert image_key("J.R._X/J.R._X_0001.jpeg") == "J.R._X/J.R._X_0001"
    assert len(Pairs(("a",), ("b",), np.array([True]), np.array([0]))) == 1
