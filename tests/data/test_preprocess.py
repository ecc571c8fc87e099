from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from facenet.data.preprocess import Preprocess, read_pixels
from facenet.data.resize import resize
from facenet.errors import ConfigError, DataError
from facenet.faces.alignment import Alignment, NoFace
from tests.helpers.pictures import picture


def test_cut_takes_the_middle_square() -> None:
    out = Preprocess(size=(30, 30)).read(picture(60, 100))
    assert out.shape == (30, 30, 3)
    # the middle 60 of 100 columns: red runs from 0.2 to 0.8 of its range
    assert abs(float(out[:, 0, 0].mean()) - 0.2 * 255) < 6
    assert abs(float(out[:, -1, 0].mean()) - 0.8 * 255) < 6


def test_the_side_of_a_crop_is_rounded_to_the_nearest_pixel() -> None:
    image = picture(60, 60)
    for crop, side in ((0.51, 31), (0.52, 31), (0.53, 32)):  # 30.6, 31.2 and 31.8 pixels
        assert Preprocess(size=(20, 20), crop=crop).face(image).shape == (side, side, 3)


def test_crop_and_margin() -> None:
    half = Preprocess(size=(32, 32), crop=0.5)
    assert half.stored_size(1.25) == (40, 40)
    assert half.stored_size(9.0) == (64, 64), "as far as the image reaches"
    assert Preprocess(size=(32, 32)).stored_size(1.25) == (32, 32)
    inner, outer = (half.read(picture(128, 128), margin).astype(int) for margin in (1.0, 1.25))
    np.testing.assert_allclose(outer[4:-4, 4:-4], inner, atol=2)


def test_rectangles() -> None:
    tall = Preprocess(size=(48, 32))
    assert tall.read(picture(100, 100)).shape == (48, 32, 3)
    assert tall.read(picture(10, 100)).shape == (48, 32, 3)


def test_normalise_range_and_call(tmp_path: Path) -> None:
    preprocess = Preprocess(size=(32, 32))
    Image.fromarray(picture()).save(tmp_path / "a.png")
    batch = preprocess([tmp_path / "a.png", Image.fromarray(picture()), picture()])
    assert batch.shape == (3, 3, 32, 32)
    assert batch.dtype == np.float32
    assert -1 <= float(batch.min()) < -0.5 < 0.5 < float(batch.max()) <= 1
    np.testing.assert_array_equal(batch[0], batch[2])
    assert preprocess([]).shape == (0, 3, 32, 32)


def test_dict_round_trip_and_bad_values() -> None:
    preprocess = Preprocess(size=(40, 30), crop=0.7, mirror=False)
    assert Preprocess.from_dict(preprocess.to_dict()) == preprocess
    for wrong in ({"crop": 0.0}, {"size": (8, 8)}, {"std": (0.0, 1.0, 1.0)}, {"channels": "BGR"}):
        with pytest.raises(ConfigError):
            Preprocess(**wrong)
    with pytest.raises(ConfigError, match="expected the keys"):
        Preprocess.from_dict({"crop": 1})


@pytest.mark.parametrize("size", [(48, 40), (60, 60), (20, 30)])
def test_every_kind_of_image_gives_the_same_pixels(tmp_path: Path, size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (75, 90, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    planes = np.ascontiguousarray(pixels.transpose(2, 0, 1)).transpose(1, 2, 0)  # lies otherwise in memory
    kinds = [tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(pixels), pixels, planes]
    preprocess = Preprocess(size=size, crop=0.8)
    batch = preprocess(kinds)
    assert all(np.array_equal(image, batch[0]) for image in batch)
    np.testing.assert_array_equal(preprocess.read(pixels, 2.0), preprocess.read(planes, 2.0))
    assert preprocess.read(planes, 2.0).shape == (*preprocess.stored_size(1 / 0.8), 3)


def test_reading_crops_and_resizes() -> None:
    image = np.random.default_rng(0).integers(0, 256, (250, 250, 3)).astype(np.uint8)
    plain = resize(image[60:190, 60:190], (64, 64))
    np.testing.assert_array_equal(Preprocess(size=(64, 64), crop=0.52).read(image), plain)
    exact = Preprocess(size=(160, 160), crop=0.64).read(image)
    np.testing.assert_array_equal(exact, image[45:205, 45:205])


def test_arrays_and_tensors_are_normalised_alike() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 8)).astype(np.uint8)
    preprocess = Preprocess(mean=(0.1, 0.5, 0.0), std=(0.3, 0.5, 1 / 255))
    found = preprocess.normalise(pixels)
    np.testing.assert_array_equal(preprocess.normalise(torch.from_numpy(pixels)).numpy(), found)
    by_hand = (pixels / 255 - np.array(preprocess.mean)[:, None, None]) / np.array(preprocess.std)[:, None, None]
    np.testing.assert_allclose(found, by_hand, rtol=1e-5, atol=1e-5)


def test_pictures_in_memory_are_treated_like_their_files(tmp_path: Path) -> None:
    transparent = Image.fromarray(picture()).convert("RGBA")
    transparent.putalpha(100)
    transparent.save(tmp_path / "a.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture()).save(tmp_path / "b.jpg", exif=exif)
    for name in ("a.png", "b.jpg"):
        with Image.open(tmp_path / name) as opened:
            np.testing.assert_array_equal(read_pixels(opened), read_pixels(tmp_path / name))


@pytest.mark.parametrize(
    ("size", "crop", "margin"), [((64, 48), 0.52, 1.25), ((40, 40), 0.5, 1.0), ((30, 30), 1.0, 1.25)]
)
def test_reading_equals_decoding_then_cutting(
    tmp_path: Path, size: tuple[int, int], crop: float, margin: float
) -> None:
    pictures = {"a.jpg": Image.fromarray(picture(81, 70)), "grey.png": Image.fromarray(picture(81, 70)).convert("L")}
    exif = Image.Exif()
    exif[0x0112] = 8
    pictures["turned.jpg"] = Image.fromarray(picture(81, 70))
    preprocess = Preprocess(size=size, crop=crop)
    for name, content in pictures.items():
        content.save(tmp_path / name, exif=exif if name == "turned.jpg" else Image.Exif())
        expected = preprocess.read(read_pixels(tmp_path / name), margin)
        np.testing.assert_array_equal(preprocess.read(tmp_path / name, margin), expected)
        with Image.open(tmp_path / name) as opened:
            np.testing.assert_array_equal(preprocess.read(opened, margin), expected)
    upright, turned = (read_pixels(tmp_path / name) for name in ("a.jpg", "turned.jpg"))
    assert turned.shape == (upright.shape[1], upright.shape[0], 3)


def test_a_face_is_aligned_before_it_is_cropped(portrait: Image.Image, tmp_path: Path) -> None:
    """From a file, a picture and pixels alike; what is aligned already is not aligned again."""
    align = Alignment(size=96, margin=1.5)
    preprocess = Preprocess(size=(32, 32), crop=0.5, align=align)
    portrait.save(tmp_path / "a.png")
    cut = align.cut(portrait)
    expected = Preprocess(size=(32, 32), crop=0.5).read(cut)
    for source in (tmp_path / "a.png", portrait, np.asarray(portrait)):
        np.testing.assert_array_equal(preprocess.read(source), expected)
    done = preprocess.of(align)
    assert done == Preprocess(size=(32, 32), crop=0.5)
    np.testing.assert_array_equal(done.read(cut), expected)
    assert preprocess.of(None) is preprocess
    plain = Preprocess(size=(32, 32), crop=0.4)
    assert plain.of(None) is plain.of(align) is plain, "central crops: an aligned face is a picture like others"
    assert plain.view(align) == "the central 40% of faces cut at 1.5 times the arcface template, which is 0.6 times"
    small = "the central 50% of faces cut at 2 times the arcface template, which is 1 times; 12 pixels, enlarged to 32"
    assert Preprocess(size=(32, 32), crop=0.5).view(Alignment(size=24)) == small
    cut_before = replace(preprocess, align=replace(align, detector="none"))
    np.testing.assert_array_equal(cut_before.read(cut), expected)
    wrong = Preprocess(size=(32, 32), align=Alignment())
    with pytest.raises(
        DataError, match=r"faces/: its faces are cut at 1\.5 times the arcface template, the encoder reads"
    ) as raised:
        wrong.of(align, "faces/")
    said = str(raised.value)
    assert "facenet align images=PHOTOS out=FACES template=arcface margin=2 size=224, then this command" in said
    assert "{" not in said


@pytest.mark.parametrize(("template", "margin"), [("arcface", 1.0), ("arcface", 1.37), ("box", 1.2)])
def test_a_wider_cut_is_read_as_the_photo_it_was_cut_from(portrait: Image.Image, template: str, margin: float) -> None:
    """The central part of a cut at margin 2 is the tighter cut, but for the rounding to whole pixels."""
    wide = Alignment(template=template, margin=2.0, size=400)
    preprocess = Preprocess(size=(64, 64), align=Alignment(template=template, margin=margin, size=200))
    from_photo = preprocess.read(portrait).astype(int)
    from_face = preprocess.of(wide).read(wide.cut(portrait)).astype(int)
    assert np.abs(from_photo - from_face).mean() < 3
    other = preprocess.of(replace(wide, margin=2.2)).read(wide.cut(portrait)).astype(int)
    assert np.abs(from_photo - other).mean() > 6, "another scale is another picture"


def test_a_photo_without_a_face_is_named(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "black.png")
    with pytest.raises(NoFace, match=r"black\.png: no face found"):
        Preprocess(size=(32, 32), align=Alignment()).read(tmp_path / "black.png")


def test_alignment_travels_with_the_preprocessing_and_changes_nothing_where_there_is_none() -> None:
    plain, aligned = Preprocess(), Preprocess(align=Alignment(margin=1.5))
    assert "align" not in plain.to_dict()
    assert Preprocess.from_dict(plain.to_dict()) == plain
    assert Preprocess.from_dict(aligned.to_dict()) == aligned
    with pytest.raises(ConfigError, match="alignment: expected the keys"):
        Preprocess.from_dict({**plain.to_dict(), "align": {"margin": 1}})


def test_pixels_of_another_kind_are_refused() -> None:
    with pytest.raises(DataError, match="expected uint8 RGB"):
        read_pixels(np.zeros((4, 4, 3)))


def test_normalising_holds_one_array_of_floats() -> None:
    images = np.zeros((8, 3, 200, 200), np.uint8)
    tracemalloc.start()
    try:
        found = Preprocess().normalise(images)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.1 * found.nbytes
    assert (images == 0).all()
