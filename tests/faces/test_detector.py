"""Faces in photographs are found where they are."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from facenet.faces import detector
from facenet.faces.detector import distinct, find_faces, overlap
from tests.helpers.photos import square_face

EYES = ((226, 188), (306, 187))  # of the portrait: its pupils, marked by hand
BOX = (178, 115, 175, 217)  # from the hat's brim to the chin, from temple to temple


def test_a_portrait_has_one_face_where_a_person_sees_it(portrait: Image.Image) -> None:
    faces = find_faces(np.asarray(portrait))
    assert len(faces) == 1
    assert faces[0].score > 0.9
    np.testing.assert_allclose(faces[0].landmarks[:2], EYES, atol=9)  # a ninth of the distance of the eyes
    assert overlap(faces[0].box, BOX) > 0.85


@pytest.mark.parametrize("scale", [0.15, 0.3, 2.0, 5.0])
def test_a_face_is_found_at_any_size(portrait: Image.Image, scale: float) -> None:
    """From a picture of 76x90 pixels to one of 8 megapixels."""
    faces = find_faces(np.asarray(portrait.resize([round(side * scale) for side in portrait.size])))
    assert faces[0].score > 0.8
    assert overlap(np.array(faces[0].box) / scale, BOX) > 0.7  # type: ignore[arg-type]


def test_a_small_face_in_a_large_picture_and_one_that_fills_it(portrait: Image.Image) -> None:
    page = Image.new("RGB", (3000, 2500))
    page.paste(portrait.resize((128, 150)), (2000, 1500))
    best = find_faces(np.asarray(page))[0]
    assert best.score > 0.6
    np.testing.assert_allclose(best.centre, (2000 + 266 / 4, 1500 + 223 / 4), atol=8)
    left, top, width, height = BOX
    whole = portrait.crop((left, top, left + width, top + height)).resize((1500, 1860), Image.Resampling.BICUBIC)
    assert find_faces(np.asarray(whole))[0].score > 0.6


@pytest.mark.parametrize("size", [(200, 300), (3, 3), (1, 40), (40, 1)])
def test_noise_and_tiny_pictures_have_no_face(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)
    assert find_faces(pixels) == []


def test_boxes_that_overlap_are_one_face() -> None:
    faces = [square_face(0, 0, 50, 0.8), square_face(10, 0, 50, 0.9), square_face(200, 0, 50, 0.7)]
    assert distinct(faces) == [faces[1], faces[2]]
    assert overlap((0, 0, 10, 10), (10, 0, 10, 10)) == 0
    assert overlap((0, 0, 10, 10), (2, 2, 5, 5)) == 0.25


def test_a_detector_is_opened_once(portrait: Image.Image) -> None:
    detector._detector.cache_clear()
    for _ in range(3):
        find_faces(np.asarray(portrait))
    assert detector._detector.cache_info().misses == 1
