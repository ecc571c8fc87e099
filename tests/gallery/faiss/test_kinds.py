"""Kinds of index: factory strings, sizes, and item numbers read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from facenet.errors import ConfigError
from facenet.gallery.faiss.kinds import KINDS, factory_of, held, lists, new_index, parts
from facenet.gallery.gallery import Gallery
from facenet.gallery.items import Recipe
from tests.helpers.galleries import (
    FACTORIES,
    clustered,
    filled,
)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kind": "ivf_sq"}, "did you mean 'ivf_sq8'"),
        ({"factory": "IVF"}, "FAISS does not know 'IVF' for width 32"),
        ({"factory": "IVF8,PQ5"}, "FAISS does not know"),
        ({"factory": "IVF8,PQ8,RFlat"}, "leave out the refinement"),
        ({"factory": "LSH"}, "does not measure squared L2"),
        ({"recall_target": 0.0}, "recall_target"),
        ({"recall_target": 99.0}, "recall_target"),
    ],
)
def test_a_kind_that_is_none_changes_nothing(tmp_path: Path, options: dict[str, object], said: str) -> None:
    vectors, identities = clustered(5)
    filled(tmp_path, "Flat", vectors, identities)
    with Gallery.open(tmp_path) as gallery:
        with pytest.raises(ConfigError, match=said):
            gallery.configure(**options)
        assert gallery.info()["index"]["factory"] == "Flat"


def test_sizes_of_lists_and_codes() -> None:
    assert [lists(n) for n in (1, 100, 10_000, 250_000, 1_000_000)] == [1, 2, 256, 2048, 4096]
    assert [parts(d) for d in (128, 64, 30, 7, 1)] == [32, 16, 6, 1, 1]
    assert {kind: factory_of(Recipe(kind), 250_000, 128) for kind in (*KINDS, "auto")} == {
        "flat": "Flat", "hnsw": "HNSW32", "ivf_sq8": "IVF2048,SQ8", "ivf_pq": "IVF2048,PQ32", "auto": "IVF2048,SQ8",
    }  # fmt: skip
    assert factory_of(Recipe(), 100_000, 128) == factory_of(Recipe("ivf_pq"), 9_999, 128) == "Flat"


def test_item_numbers_are_read_back_from_every_index() -> None:
    vectors, _ = clustered(60)
    numbers = np.arange(360) * 3 + 5
    for factory in FACTORIES:
        index = new_index(vectors.shape[1], factory)
        if not index.is_trained:
            index.train(vectors)
        index.add_with_ids(vectors, numbers)
        assert sorted(held(index).tolist()) == numbers.tolist()
