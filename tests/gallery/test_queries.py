"""Queries of every kind meet the same gallery and get the same answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from facenet.encoders.lookup import load
from facenet.errors import ConfigError, DataError, FacenetError
from facenet.faces import detector
from facenet.gallery.answers import ask
from facenet.gallery.gallery import Gallery
from facenet.gallery.queries import read_queries


def test_a_photo_is_searched_for_faces_once(
    tmp_path: Path, portrait: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, looked, detect = load("sface"), [], detector._detect
    monkeypatch.setattr(detector, "_detect", lambda *given: looked.append(1) or detect(*given))
    portrait.save(tmp_path / "photo.png")
    vectors = encoder.embed(tmp_path / "photo.png")
    once = len(looked)
    with Gallery.open(tmp_path / "g", create=True) as gallery:
        found = read_queries(str(tmp_path / "photo.png"), gallery, encoder)
    assert len(looked) == 2 * once > 0
    np.testing.assert_array_equal(found.embeddings.vectors, vectors)
    assert (found.embeddings.paths, found.images, found.note) == (["photo.png"], [tmp_path / "photo.png"], "")


def test_every_kind_of_query_gets_the_same_answer(
    photo_gallery: Path, photos: Path, small_encoder: Any, tmp_path: Path
) -> None:
    image = sorted(photos.rglob("*.*"))[4]
    vector = small_encoder.embed([image])
    np.save(tmp_path / "one.npy", vector[0])
    np.save(tmp_path / "many.npy", np.repeat(vector, 3, 0).astype(np.float64))
    name = image.relative_to(photos).as_posix()
    with Gallery.open(photo_gallery) as gallery:
        found = {}
        for query in (image, photos, photos.parent / "embeddings", tmp_path / "one.npy", tmp_path / "many.npy"):
            queries = read_queries(str(query), gallery, small_encoder)
            answers = ask(gallery, queries, k=4, threshold=4.0)
            assert len(answers) == len(queries)
            same = next(answer for answer in answers if answer.query in (name, image.name) or query.suffix == ".npy")
            found[query.name] = [(hit.rank, hit.id) for hit in same.hits]
        assert len({tuple(hits) for hits in found.values()}) == 1, found
        assert found["one.npy"][0] == (1, name)
        itself = read_queries(name, gallery, None)
        assert itself.itself == name
        (answer,) = ask(gallery, itself, k=3, threshold=4.0)
        assert [(hit.rank + 1, hit.id) for hit in answer.hits] == found["one.npy"][1:], "all but itself"
        assert len(ask(gallery, itself, k=3, threshold=4.0, within=True)[0].hits) == 14
        one = ask(gallery, itself, k=9, threshold=4.0, by_identity=True)[0]
        assert len({hit.identity for hit in one.hits}) == len(one.hits)
        filtered = ask(gallery, itself, k=9, threshold=4.0, where={"half": 1})[0]
        assert {hit.metadata["half"] for hit in filtered.hits} == {1}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"no array", "not readable as a NumPy array"),
        (np.zeros((2, 3, 4)), "expected numbers of shape"),
        (np.array(["a"]), "not readable as a NumPy array"),
        (np.array([{}], object), "not readable as a NumPy array"),
        (np.zeros((2, 3)), "expected width"),
        (np.full((1, 16), np.nan), "NaN"),
        (np.ones((1, 16)), "not of unit length"),
    ],
)
def test_a_vector_file_that_is_none(photo_gallery: Path, tmp_path: Path, content: Any, said: str) -> None:
    path = tmp_path / "q.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content)
    with Gallery.open(photo_gallery) as gallery, pytest.raises(DataError, match=said):
        ask(gallery, read_queries(str(path), gallery, None), k=1, threshold=1.0)


def test_refusals(photo_gallery: Path, photos: Path, small_encoder: Any) -> None:
    with Gallery.open(photo_gallery) as gallery:
        with pytest.raises(DataError, match="no such file or folder, and no id"):
            read_queries("nobody", gallery, small_encoder)
        with pytest.raises(ConfigError, match="pass encoder=DIR"):
            read_queries(str(photos), gallery, None)
        queries = read_queries(str(photos), gallery, small_encoder)
        for options, said in (
            ({"k": 1, "threshold": 4.1}, "in \\[0, 4\\]"),
            ({"k": 1, "threshold": 1.0, "within": True, "by_identity": True}, "does not go with"),
            ({"k": 0, "threshold": 1.0}, "at least 1"),
        ):
            with pytest.raises(FacenetError, match=said):
                ask(gallery, queries, **options)
