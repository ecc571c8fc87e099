"""The faces of a gallery are grouped as a folder of embeddings is, those of one encoder at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from facenet.clustering.clusters import cluster
from facenet.clustering.galleries import cluster_gallery
from facenet.clustering.threshold import find_threshold
from facenet.encoders.encoder import Encoder
from facenet.errors import DataError
from facenet.gallery.gallery import Gallery
from facenet.types import EmbeddingSet
from tests.helpers.clusters import people
from tests.helpers.galleries import OURS, THEIRS

RATES = {1e-3: 0.6, 1e-2: 0.9, 1e-1: 1.2}


@pytest.fixture
def encoder() -> Encoder:
    return cast(Encoder, SimpleNamespace(fingerprint=OURS, dim=32, thresholds=RATES))


@pytest.fixture
def filled(tmp_path: Path) -> Callable[..., tuple[Gallery, np.ndarray]]:
    """Makes a gallery of faces of our encoder and, far from them, of an older one."""

    def fill(each: int = 5, older: int = 0) -> tuple[Gallery, np.ndarray]:
        vectors, labels = people(6, each, 0.4)
        gallery = Gallery.open(tmp_path / "g", create=True)
        if older:
            old = EmbeddingSet(vectors[:older], [f"o{i}" for i in range(older)], [""] * older, THEIRS)
            gallery.add(old)
        names = [f"p{label}" if label % 2 else "" for label in labels]
        gallery.add(
            EmbeddingSet(vectors, [f"{i}" for i in range(len(vectors))], names, OURS, compatible_with=(THEIRS,))
        )
        return gallery, vectors

    return fill


def test_groups_are_those_of_the_vectors(filled: Any, encoder: Encoder) -> None:
    gallery, vectors = filled()
    threshold, told = find_threshold(len(vectors), "average_linkage", RATES)
    labels = cluster(vectors, threshold)
    want = [[str(row) for row in np.flatnonzero(labels == label)] for label in range(labels.max() + 1)]
    with gallery:
        found = cluster_gallery(gallery, encoder)
    assert [[item.id for item in group] for group in found.groups] == [group for group in want if len(group) > 1]
    assert len(found.groups) == 6
    assert (found.threshold, found.rule) == (threshold, told["rule"])


def test_faces_of_older_encoders_are_left_out_and_counted(filled: Any, encoder: Encoder) -> None:
    gallery, _ = filled(older=7)
    with gallery:
        found = cluster_gallery(gallery, encoder)
        assert {item.fingerprint for group in found.groups for item in group} == {OURS}
        assert found.rule.endswith("; 7 faces of older encoders are left out")
        gallery.remove([str(i) for i in range(30)], by="id")
        assert cluster_gallery(gallery, encoder) == (
            [],
            None,
            "fewer than two faces; 7 faces of older encoders are left out",
        )


def test_unnamed_faces_alone(filled: Any, encoder: Encoder) -> None:
    gallery, _ = filled()
    with gallery:
        found = cluster_gallery(gallery, encoder, unnamed=True)
    assert [len(group) for group in found.groups] == [5, 5, 5]
    assert {item.identity for group in found.groups for item in group} == {""}


@pytest.mark.parametrize(("unnamed", "faces"), [(False, 30), (True, 15)])
def test_too_many_faces_are_refused_before_their_vectors_are_read(
    filled: Any, encoder: Encoder, unnamed: bool, faces: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery, _ = filled()
    with gallery:
        assert cluster_gallery(gallery, encoder, unnamed=unnamed, most=faces).groups
        monkeypatch.setattr(gallery, "blocks", lambda: pytest.fail("vectors were read"))
        with pytest.raises(DataError, match=f"more than {faces - 1} faces are too many to cluster here"):
            cluster_gallery(gallery, encoder, unnamed=unnamed, most=faces - 1)


def test_an_empty_gallery_has_no_groups(tmp_path: Path, encoder: Encoder) -> None:
    with Gallery.open(tmp_path / "g", create=True) as gallery:
        assert cluster_gallery(gallery, encoder) == ([], None, "fewer than two faces")
