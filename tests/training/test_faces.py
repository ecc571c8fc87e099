"""Faces of a folder that was aligned before: cut from there, and refused before anything is decoded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from facenet.data import cache
from facenet.data.face_cache import FaceCache
from facenet.data.sources.folder import write_alignment
from facenet.errors import ConfigError, DataError
from facenet.faces.alignment import Alignment
from facenet.training.faces import prepare_faces
from facenet.training.options import TrainOptions
from tests.helpers.pictures import write_tree
from tests.helpers.training import small_options

WIDE = Alignment(margin=2.0, size=48)


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    root = write_tree(tmp_path / "faces", 20, 3)
    write_alignment(root, WIDE)
    return root


def options(root: Path, tmp_path: Path, **changes: object) -> TrainOptions:
    data = {"kind": "folder", "root": str(root), "crop": 1.0, **changes.pop("data", {})}  # type: ignore[dict-item]
    return small_options(tmp_path / "cache", data=data, augment={"enabled": False}, **changes)


def test_a_wider_cut_holds_the_faces_of_a_tighter_alignment(faces: Path, tmp_path: Path) -> None:
    aligned = Alignment(margin=1.0, size=24).to_dict()
    tight = prepare_faces(options(faces, tmp_path, data={"align": aligned}), tmp_path).decoded
    middle = prepare_faces(options(faces, tmp_path, data={"crop": 0.5}), tmp_path).decoded
    own, same = (FaceCache(one.train, one.preprocess, one.margin, keep=False) for one in (tight, middle))
    np.testing.assert_array_equal(own.batch(range(len(own)))[0], same.batch(range(len(same)))[0])
    np.testing.assert_array_equal(tight.held_out_images, middle.held_out_images)
    assert tight.preprocess.align == Alignment(margin=1.0, size=24), "the encoder cuts photos so"
    assert middle.preprocess.align == WIDE


def test_an_encoder_takes_one_face_of_a_photo_whatever_its_folder_holds(faces: Path, tmp_path: Path) -> None:
    write_alignment(faces, Alignment(margin=2.0, size=48, pick="all"))
    assert prepare_faces(options(faces, tmp_path), tmp_path).decoded.preprocess.align == WIDE


def test_what_can_not_be_cut_is_refused_before_decoding(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(cache, "_read", never)
    with pytest.raises(DataError, match=r"cut at 2 times the arcface template, the encoder reads 2 times the box"):
        prepare_faces(options(faces, tmp_path, data={"align": {"detector": "yunet", "template": "box"}}), tmp_path)
    old = {"harmonic": {"old": "sface"}}
    with pytest.raises(ConfigError, match=r"the old vectors have 128 dimensions.* set model\.embedding_dim=128"):
        prepare_faces(options(faces, tmp_path, **old), tmp_path)
    write_alignment(faces, Alignment(margin=0.9, size=48))
    with pytest.raises(DataError, match=r"harmonic\.old=sface: .*the encoder reads 1 times the arcface template"):
        prepare_faces(options(faces, tmp_path, model={"embedding_dim": 128}, **old), tmp_path)
