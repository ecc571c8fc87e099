"""What the quality of a face rises and falls with, and what the enrolment gate says of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageFilter

from facenet.errors import ConfigError
from facenet.faces.alignment import Alignment
from facenet.faces.detector import find_faces
from facenet.faces.options import Gate
from facenet.faces.quality import (
    Quality,
    measure_frontality,
    measure_quality,
    measure_sharpness,
    shortcomings,
)
from tests.helpers.photos import square_face

GOOD = Quality(side=90.0, sharpness=0.25, frontality=0.9, score=0.93)


@pytest.fixture(scope="module")
def crop(portrait: Image.Image) -> Image.Image:
    """The portrait's face by hand-marked eyes, 112x112, without the detector."""
    return portrait.crop((188, 133, 344, 289)).resize((112, 112), Image.Resampling.BILINEAR)


def enlarged(picture: Image.Image, side: int) -> Image.Image:
    return picture.resize((side, side), Image.Resampling.BILINEAR).resize(picture.size, Image.Resampling.BICUBIC)


@pytest.mark.parametrize(
    ("worse", "low", "high"),
    [
        (lambda picture: picture.filter(ImageFilter.GaussianBlur(1)), 0.5, 0.95),
        (lambda picture: picture.filter(ImageFilter.GaussianBlur(3)), 0.0, 0.3),
        (lambda picture: enlarged(picture, 40), 0.5, 0.97),
        (lambda picture: enlarged(picture, 20), 0.1, 0.6),
        (lambda picture: picture.point(lambda value: value * 0.4 + 70), 0.97, 1.03),  # less contrast
        (lambda picture: picture.point(lambda value: value * 0.5), 0.97, 1.03),  # less light
        (lambda picture: picture.resize((160, 160), Image.Resampling.BICUBIC), 0.95, 1.05),  # another network's crop
        (lambda picture: picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT), 0.98, 1.02),
    ],
    ids=["blur 1", "blur 3", "enlarged from 40", "enlarged from 20", "contrast", "light", "size", "mirror"],
)
def test_sharpness_falls_with_what_takes_detail_away_and_with_nothing_else(
    crop: Image.Image, worse: Callable[[Image.Image], Image.Image], low: float, high: float
) -> None:
    ratio = measure_sharpness(np.asarray(worse(crop))) / measure_sharpness(np.asarray(crop))
    assert low < ratio < high


def test_noise_is_not_taken_for_detail(crop: Image.Image) -> None:
    noisy = np.asarray(crop) + np.random.default_rng(0).normal(0, 40, (112, 112, 3))
    ratio = measure_sharpness(noisy.clip(0, 255).astype(np.uint8)) / measure_sharpness(np.asarray(crop))
    assert 0.95 < ratio < 1.12


@pytest.mark.parametrize("shape", [(1, 1), (8, 200), (64, 64)])
def test_a_picture_of_one_colour_has_no_sharpness(shape: tuple[int, int]) -> None:
    assert measure_sharpness(np.full((*shape, 3), 90, np.uint8)) == 0


def test_frontality_falls_as_the_nose_moves_to_an_eye_and_knows_no_roll() -> None:
    straight = square_face().landmarks
    assert measure_frontality(straight) > 0.98
    between_eyes = straight[1] - straight[0]
    shown = []
    for share in (0.1, 0.25, 0.4, 0.7):
        turned = straight.copy()
        turned[2] += share * between_eyes
        shown.append(measure_frontality(turned))
        mirrored = (turned * (-1, 1))[[1, 0, 2, 4, 3]]
        assert measure_frontality(mirrored) == pytest.approx(shown[-1]), "left and right are alike"
        angle = np.exp(0.6j) * (turned @ np.array([1, 1j])) * 3
        rolled = np.stack([angle.real, angle.imag], 1)
        assert measure_frontality(rolled) == pytest.approx(shown[-1]), "a tilted head still looks here"
    np.testing.assert_allclose(shown, [0.8, 0.5, 0.2, 0.0], atol=0.02)
    assert measure_frontality(np.zeros((5, 2))) == 0, "both eyes in one place"


def test_a_detected_face_is_measured_whole(portrait: Image.Image) -> None:
    face = find_faces(np.asarray(portrait))[0]
    found = measure_quality(face, np.asarray(Alignment(margin=1.0, size=112).crop(portrait, face)))
    assert all(type(value) is float for value in found), "JSON takes Python's floats"
    assert (found.side, found.score) == (face.side, face.score)
    assert found.frontality == measure_frontality(face.landmarks) > 0.6
    assert not shortcomings(found, Gate())


def test_the_surroundings_of_a_wide_crop_do_not_count(crop: Image.Image) -> None:
    page = Image.fromarray(np.random.default_rng(0).integers(0, 255, (224, 224, 3), np.uint8))
    page.paste(crop, (56, 56))
    found = measure_quality(square_face(), np.asarray(page), margin=2.0)
    assert found.sharpness == measure_sharpness(np.asarray(crop))


def test_a_picture_that_is_a_face_already_is_measured_as_far_as_that_goes(crop: Image.Image) -> None:
    found = measure_quality(None, np.asarray(crop.resize((112, 96))), margin=2.0)
    assert found[0] == 96
    assert found[2:] == (None, None)
    assert found.sharpness == measure_sharpness(np.asarray(crop.resize((112, 96)))), "all of it is the face"
    assert not shortcomings(found, Gate(min_frontality=1, min_score=1)), "what was not measured is not judged"


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ({"side": 39.9}, "too_small", "39 pixels on its shorter side, at least 40 are"),
        ({"sharpness": 0.07}, "too_blurred", "sharpness 0.07, at least 0.1 is"),
        ({"frontality": 0.1}, "turned_away", "frontality 0.1, at least 0.2 is"),
        ({"score": 0.79999}, "doubtful", "score 0.799, at least 0.8 is"),
    ],
)
def test_a_reason_has_the_number_the_limit_and_what_to_do(change: dict[str, float], code: str, said: str) -> None:
    gate = Gate(min_side=40, min_sharpness=0.1, min_frontality=0.2, min_score=0.8)
    (reason,) = shortcomings(GOOD._replace(**change), gate)
    assert reason.code == code
    assert said in reason.message
    assert "; " in reason.message.partition("wanted")[2]
    assert len(reason.message.split()) <= 30
    assert "\n" not in reason.message


def test_all_reasons_are_told_and_a_limit_is_reached_by_the_same_number() -> None:
    worst = Quality(0.0, 0.0, 0.0, 0.0)
    assert [code for code, _ in shortcomings(worst, Gate())] == ["too_small", "too_blurred", "turned_away", "doubtful"]
    assert not shortcomings(worst, Gate(action="off"))
    assert not shortcomings(worst, Gate(min_side=0, min_sharpness=0, min_frontality=0, min_score=0))
    limits = Gate()
    at_the_limit = Quality(limits.min_side, limits.min_sharpness, limits.min_frontality, limits.min_score)
    assert not shortcomings(at_the_limit, limits)


def test_a_gate_that_nobody_can_pass_is_refused() -> None:
    with pytest.raises(ConfigError, match="min_frontality"):
        Gate(min_frontality=1.5)
    with pytest.raises(ConfigError, match="action"):
        Gate(action="block")
