"""Galleries made once: one of ten people, copied for each test, and one of drawn photos."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from facenet.data.sources.folder import scan_folder
from facenet.encoders.embedding import embed_records
from facenet.gallery.faiss import kinds
from facenet.gallery.gallery import Gallery
from tests.helpers.encoders import make
from tests.helpers.galleries import FACTORIES, faces, people
from tests.helpers.pictures import write_tree


@pytest.fixture(scope="session")
def ten_people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gallery of ten people with four images, cache included; not to be changed."""
    folder = tmp_path_factory.mktemp("ten") / "gallery"
    with Gallery.open(folder, create=True) as gallery:
        gallery.add(faces(people(10)), metadata=[{"camera": i} for i in range(40)])
    return folder


@pytest.fixture
def folder(ten_people: Path, tmp_path: Path) -> Path:
    """A copy of the gallery of ten people."""
    return Path(shutil.copytree(ten_people, tmp_path / "gallery"))


@pytest.fixture(scope="session")
def small_encoder() -> Any:
    """An encoder of random weights."""
    return make()


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of five people with three pictures."""
    return write_tree(tmp_path_factory.mktemp("query") / "faces", 5, 3)


@pytest.fixture(scope="session")
def photo_gallery(photos: Path, small_encoder: Any) -> Path:
    """A gallery of the photos; the embeddings lie beside it."""
    embeddings, _ = embed_records(small_encoder, scan_folder(photos))
    embeddings.save(photos.parent / "embeddings")
    with Gallery.open(photos.parent / "gallery", create=True) as gallery:
        gallery.add(embeddings, metadata=[{"half": i % 2} for i in range(len(embeddings))])
    return photos.parent / "gallery"


@pytest.fixture(autouse=True, scope="session")
def _factories_are_proven() -> Iterator[None]:
    """Do not try the usual factory strings in a process of their own: test_trial.py does."""
    with pytest.MonkeyPatch.context() as patch:
        tried = kinds.try_factory
        patch.setattr(kinds, "try_factory", lambda dim, name: None if name in FACTORIES else tried(dim, name))
        yield
