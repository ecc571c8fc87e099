"""Old embeddings are computed once, found again, and missing ones are counted."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from facenet.data.options import DataOptions
from facenet.data.records import Records
from facenet.data.sources.folder import scan_folder
from facenet.encoders.bundle import save_bundle
from facenet.encoders.embedding import embed_records
from facenet.encoders.encoder import Encoder
from facenet.errors import DataError
from facenet.training import old_embeddings
from facenet.training.old_embeddings import expectation, old_vectors, read_old
from facenet.training.options import TrainOptions
from facenet.training.run import harmonic_hint
from facenet.types import EmbeddingSet
from tests.helpers.encoders import make
from tests.helpers.pictures import write_tree


@pytest.fixture
def records(tmp_path: Path) -> Records:
    return scan_folder(write_tree(tmp_path / "faces", 4, 3))


def test_what_few_people_reach_is_said() -> None:
    (line,) = expectation(121, 2548)
    assert "121 people and 2548 faces are few" in line
    assert "0.589 from 121 people" in line
    assert not expectation(4038, 9525)


@pytest.mark.parametrize(("kind", "old", "lines"), [("folder", object(), 1), ("folder", None, 0), ("synthetic", 1, 0)])
def test_a_run_on_photographs_says_it(kind: str, old: object, lines: int) -> None:
    train = Records.of(("a.png",) * 3, ("a", "a", "b"))
    run: Any = SimpleNamespace(old=old, data=SimpleNamespace(train=train))
    assert len(harmonic_hint(TrainOptions(data=DataOptions(kind=kind)), run)) == lines


def test_an_encoder_is_asked_once(records: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_bundle(make(), tmp_path / "e")
    old = read_old(tmp_path / "e")
    assert isinstance(old, Encoder)
    expected = embed_records(old, records)[0].vectors
    np.testing.assert_array_equal(old_vectors(old, records, cache=tmp_path), expected)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("embedded again")

    with monkeypatch.context() as patch:
        patch.setattr(old_embeddings, "embed_records", never)
        np.testing.assert_array_equal(old_vectors(old, records, cache=tmp_path), expected)
    write_tree(tmp_path / "faces", 1, 1, side=32)  # a file that changed
    assert not np.array_equal(old_vectors(old, records, cache=tmp_path), expected)


def test_an_image_that_the_old_encoder_can_not_read_has_no_vector(records: Records, tmp_path: Path) -> None:
    bad = Path(records.root) / records.paths[4]
    bad.write_bytes(b"no picture")
    for _ in range(2):
        vectors = old_vectors(make(), records, cache=tmp_path)
        assert np.isnan(vectors[4]).all()
        assert np.isfinite(np.delete(vectors, 4, 0)).all()


def test_an_embeddings_folder_is_matched_by_image(records: Records, tmp_path: Path) -> None:
    found = embed_records(make(), records)[0]
    found.subset(range(len(found))[::-1]).save(tmp_path / "v")
    old = read_old(tmp_path / "v")
    assert isinstance(old, EmbeddingSet)
    np.testing.assert_array_equal(old_vectors(old, records), found.vectors)
    with pytest.raises(DataError, match="2 of 12 training images have no old embedding"):
        old_vectors(old.subset(range(10)), records)
    with pytest.raises(DataError, match="no such encoder folder"):
        read_old(tmp_path / "nowhere")
