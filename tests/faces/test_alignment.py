"""The right face of a photograph is taken and cut to the template."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from PIL import Image
from scipy.optimize import least_squares

from facenet.errors import ConfigError
from facenet.faces.alignment import ARCFACE, NEARLY_BEST, Alignment, NoFace, similarity
from facenet.faces.detector import Face, find_faces
from tests.helpers.photos import square_face


def test_a_picture_without_a_face_raises() -> None:
    with pytest.raises(NoFace, match="no face found"):
        Alignment().cut(Image.new("RGB", (40, 30)))


@pytest.mark.parametrize("turn", [0, 20, -35])
@pytest.mark.parametrize("margin", [1.0, 1.8])
def test_landmarks_come_to_lie_on_the_template(portrait: Image.Image, turn: int, margin: float) -> None:
    alignment = Alignment(margin=margin, size=160)
    upright = alignment.cut(portrait)
    turned = alignment.cut(portrait.rotate(turn, Image.Resampling.BICUBIC))
    wanted = ((np.array(ARCFACE) - 56) / margin + 56) * 160 / 112
    found = find_faces(np.asarray(turned))[0].landmarks
    np.testing.assert_allclose(found, wanted, atol=12 / margin)
    small = [np.asarray(picture.crop((40, 40, 120, 120)).resize((10, 10)), float) for picture in (turned, upright)]
    assert np.corrcoef(small[0].ravel(), small[1].ravel())[0, 1] > 0.7, "the same picture, up to a few pixels"


def test_a_box_is_cut_as_a_square_and_black_beyond_the_border(portrait: Image.Image) -> None:
    found = find_faces(np.asarray(portrait))[0]
    cut = np.asarray(Alignment(template="box", margin=1.0, size=200).crop(portrait, found))
    left, top, width, height = found.box
    square = (left + width / 2 - height / 2, top, left + width / 2 + height / 2, top + height)
    plain = np.asarray(portrait.resize((200, 200), Image.Resampling.BILINEAR, box=square))
    assert np.abs(cut.astype(int) - plain).mean() < 4
    far = np.asarray(Alignment(template="box", margin=4.0, size=200).crop(portrait, found))
    assert (far[:, 0] == 0).all()
    assert far[100, 100].any()


def test_reducing_does_not_alias(portrait: Image.Image) -> None:
    """A face of 1,700 pixels in a crop of 32 is the mean of its pixels, not a few of them."""
    pixels = np.zeros((2000, 2000, 3), np.uint8)
    pixels[:, ::2] = 255  # stripes of one pixel
    cut = np.asarray(Alignment(margin=1.0, size=32).crop(Image.fromarray(pixels), square_face(100, 100, 1700)))
    assert np.abs(cut.astype(int) - 127).max() <= 2


def test_the_meant_face_is_the_largest_or_the_middle_one() -> None:
    faces = [
        square_face(0, 0, 90, 0.7),
        square_face(180, 180, 40, 0.9),
        square_face(300, 300, 200, 0.5),
        square_face(150, 150, 10, 0.95),
    ]
    assert Alignment(pick="largest").choose(faces, (400, 400)) is faces[0]
    assert Alignment().choose(faces, (400, 400)) is faces[1], "40 pixels in the middle before 90 in a corner"
    assert Alignment().choose([square_face(0, 0, 180), square_face(180, 180, 40)], (400, 400)).side == 180
    assert Alignment(pick="center").choose(faces, (400, 400)) is faces[1]
    assert Alignment(pick="largest", score=0.4).choose(faces, (400, 400)) is faces[2]
    assert Alignment(pick="center", min_face=5).choose(faces, (320, 320)) is faces[3]


def test_what_scores_far_below_the_best_face_is_not_prominent() -> None:
    """Mugs, hands and dogs score lower than the person's own face; every pick is within the tolerance of the best."""
    rng, alignment, foreign = np.random.default_rng(0), Alignment(), 0
    for _ in range(300):
        person = square_face(*rng.uniform(120, 220, 2), rng.uniform(50, 90), rng.uniform(0.9, 0.95))
        others = [
            square_face(*rng.uniform(0, 350, 2), rng.uniform(25, 60), person.score + rng.uniform(-0.04, 0.04))
            for _ in range(2)
        ]
        mug = square_face(*rng.uniform(100, 180, 2), rng.uniform(60, 200), rng.uniform(0.6, 0.87))
        small = square_face(190, 190, 12, 0.99)
        faces = [person, *others, mug, small]
        taken = alignment.choose(faces, (400, 400))
        usable = [face for face in faces if not alignment.why_unusable(face)]
        foreign += alignment.choose([person, *others], (400, 400)) is not taken
        assert taken.score >= max(face.score for face in usable) - NEARLY_BEST
        assert taken is not mug or mug.score > person.score - NEARLY_BEST
    assert foreign <= 3, "boxes of low score do not change which face is meant"
    lonely = square_face(score=0.61)
    assert alignment.choose([lonely, square_face(0, 0, 12, 0.95)], (400, 400)) is lonely, "too small to be the best"


def test_a_wider_cut_holds_a_tighter_one() -> None:
    wide = Alignment(margin=2.0, size=224)
    assert Alignment(margin=1.0, size=112).within(wide) == 0.5
    assert Alignment(margin=2.0, size=60, pick="largest", score=0.3).within(wide) == 1.0
    assert Alignment(margin=2.5).within(wide) is None
    assert Alignment(template="box", margin=1.0).within(wide) is None
    assert str(wide) == "2 times the arcface template"


@pytest.mark.parametrize(
    ("faces", "said"),
    [
        ([], "no face found"),
        ([square_face(score=0.45)], r"doubtful \(score 0.4500, at least 0.6 wanted\)"),
        ([square_face(score=0.59996)], r"doubtful \(score 0.5999, at least 0.6 wanted\)"),
        ([square_face(side=12)], r"too small \(12 pixels, at least 20 wanted\)"),
        ([square_face(side=19.8)], r"too small \(19 pixels, at least 20 wanted\)"),
    ],
)
def test_a_doubtful_face_is_named_not_taken(faces: list[Face], said: str) -> None:
    with pytest.raises(NoFace, match=said):
        Alignment().choose(faces, (100, 100))


def test_the_fit_is_the_least_squares_one() -> None:
    """Beside a general solver over turn, scale and shift; a mirrored face is not mirrored back."""
    rng = np.random.default_rng(0)
    source, target = rng.normal(size=(2, 5, 2)) * 20 + 50

    def miss(p: np.ndarray) -> np.ndarray:
        z = source @ np.array([1, 1j])
        w = (p[0] + 1j * p[1]) * z + p[2] + 1j * p[3] - target @ np.array([1, 1j])
        return np.concatenate([w.real, w.imag])

    a, b = similarity(source, target)
    best = least_squares(miss, [1, 0, 0, 0]).x
    np.testing.assert_allclose([a.real, a.imag, b.real, b.imag], best, rtol=1e-4, atol=1e-4)
    assert np.linalg.norm(miss(best)) > 1
    same = similarity(source, source)
    np.testing.assert_allclose([same[0], same[1]], [1, 0], atol=1e-9)
    assert np.isfinite(similarity(np.ones((5, 2)), target)).all(), "five landmarks in one point"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"detector": "yunt"}, "did you mean 'yunet'"),
        ({"template": "arc"}, "did you mean 'arcface'"),
        ({"pick": "biggest"}, "known: prominent, largest, center"),
        ({"margin": 0.1}, "margin: expected"),
        ({"size": 8}, "size: expected"),
        ({"score": 0.1}, "score: expected"),
        ({"min_face": 0}, "min_face: expected"),
    ],
)
def test_wrong_options_are_named(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Alignment(**wrong)  # type: ignore[arg-type]


def test_an_alignment_survives_json_and_refuses_what_it_does_not_know() -> None:
    alignment = Alignment(margin=1.5, pick="center")
    assert Alignment.from_dict(alignment.to_dict()) == alignment
    for keys in ({**alignment.to_dict(), "colour": 1}, {"margin": 1.0}):
        with pytest.raises(ConfigError, match="expected the keys"):
            Alignment.from_dict(keys)
    assert dataclasses.asdict(alignment) == alignment.to_dict()
