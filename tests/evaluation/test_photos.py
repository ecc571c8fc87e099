"""Two photos and a verdict: the same person again, another one, and photos that can not be compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from facenet.encoders import lookup as encoders
from facenet.encoders.encoder import Encoder
from facenet.errors import ConfigError, DataError
from facenet.evaluation.photos import compare_photos
from facenet.faces.alignment import NoFace
from tests.helpers.encoders import make


@pytest.fixture(scope="module")
def sface() -> Encoder:
    return encoders.load("sface")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, portrait: Image.Image) -> Path:
    root = tmp_path_factory.mktemp("compare")
    portrait.save(root / "one.jpg", quality=95)
    changed = ImageOps.autocontrast(ImageOps.mirror(portrait).rotate(12).resize((300, 350)))
    changed.save(root / "again.jpg", quality=60)
    Image.new("RGB", (300, 300), "grey").save(root / "nobody.png")
    page = Image.new("RGB", (900, 600))
    page.paste(portrait, (0, 0))
    page.paste(portrait.resize((256, 300)), (600, 100))
    page.save(root / "two.png")
    return root


@pytest.mark.slow  # a detector and a pretrained net
def test_a_person_is_recognised_in_a_changed_photo(sface: Encoder, photos: Path, tmp_path: Path) -> None:
    found = compare_photos(sface, photos / "one.jpg", photos / "again.jpg", threshold=1.0)
    assert found.same
    assert 0.01 < found.sq_dist < 0.8
    assert found.verdict == "one person"
    assert found.a.summary().startswith("1 face, ")
    assert found.a.plain()["faces"] == 1
    assert not compare_photos(sface, photos / "one.jpg", photos / "again.jpg", threshold=0.001).same
    direct = sface.embed([photos / "one.jpg", photos / "again.jpg"])
    assert found.sq_dist == pytest.approx(float(((direct[0] - direct[1]) ** 2).sum()), abs=1e-4)
    found.draw(tmp_path / "compare.png")
    with Image.open(tmp_path / "compare.png") as picture:
        assert picture.size[0] > 240
        assert len(np.unique(np.asarray(picture.convert("L")))) > 100, "the faces are in it"


def test_of_two_faces_the_larger_is_taken_and_said(sface: Encoder, photos: Path) -> None:
    found = compare_photos(sface, photos / "one.jpg", photos / "two.png", threshold=1.0)
    assert found.sq_dist < 0.1
    assert found.b.summary().startswith("2 faces, taken: ")


def test_a_photo_without_a_face_is_named(sface: Encoder, photos: Path) -> None:
    with pytest.raises(NoFace, match=r"nobody\.png: no face found; give a photo"):
        compare_photos(sface, photos / "one.jpg", photos / "nobody.png", threshold=1.0)
    with pytest.raises(DataError, match="no such file"):
        compare_photos(sface, photos / "one.jpg", photos / "gone.jpg", threshold=1.0)
    with pytest.raises(ConfigError, match="threshold"):
        compare_photos(sface, photos / "one.jpg", photos / "one.jpg", threshold=5)


def test_an_encoder_of_crops_takes_the_picture_for_a_face(photos: Path) -> None:
    encoder = make()
    found = compare_photos(encoder, photos / "one.jpg", photos / "nobody.png", threshold=1.0)
    direct = encoder.embed([photos / "one.jpg", photos / "nobody.png"])
    assert found.sq_dist == pytest.approx(float(((direct[0] - direct[1]) ** 2).sum()), abs=1e-5)
    assert found.a.summary() == "the picture is taken for a face"
    assert found.a.plain()["faces"] is None
    assert found.a.pixels.shape == (600, 512, 3)
    assert np.isfinite(found.sq_dist)
