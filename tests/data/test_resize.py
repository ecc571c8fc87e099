"""Resizing: numpy and torch give the same pixels, and they are those of a triangle filter."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from facenet.data.resize import resize, resize_by_numpy, resize_by_torch

RNG = np.random.default_rng(0)
SIZES = [  # given, wanted
    ((250, 250), (112, 112)),
    ((224, 180), (160, 160)),
    ((64, 48), (200, 131)),
    ((130, 77), (77, 130)),
    ((96, 96), (96, 40)),
    ((40, 96), (96, 96)),
    ((1, 3), (16, 16)),
    ((700, 500), (17, 16)),
]


def pictures(height: int, width: int) -> list[np.ndarray]:
    """Noise, black and white, and a smooth picture (height, width, 3)."""
    noise = RNG.integers(0, 256, (height, width, 3)).astype(np.uint8)
    ramp = np.add.outer(np.arange(height), np.arange(width))[..., None] * np.array([1, 2, 3]) // 4 % 256
    return [noise, (noise > 128).astype(np.uint8) * 255, ramp.astype(np.uint8)]


def test_numpy_gives_the_pixels_of_torch() -> None:
    drawn = [((h, w), (other, side)) for h, w, other, side in RNG.integers(8, 120, (60, 4)).tolist()]
    for given, wanted in (*SIZES, *drawn):
        for picture in pictures(*given):
            expected = resize_by_torch(picture, wanted)
            np.testing.assert_array_equal(resize_by_numpy(picture, wanted), expected, err_msg=f"{given} to {wanted}")


@pytest.mark.parametrize(("given", "wanted"), SIZES)
def test_pixels_are_within_one_of_pil(given: tuple[int, int], wanted: tuple[int, int]) -> None:
    """PIL's filter is the same, with weights of more bits."""
    for picture in pictures(*given):
        expected = np.asarray(Image.fromarray(picture).resize(wanted[::-1], Image.Resampling.BILINEAR))
        np.testing.assert_allclose(resize_by_numpy(picture, wanted).astype(int), expected, atol=1)


def test_read_only_and_sliced_pictures_are_read_and_a_fitting_one_is_returned() -> None:
    picture = pictures(50, 60)[0]
    part = picture[5:45, 3:59]
    part.flags.writeable = False
    expected = resize_by_numpy(part.copy(), (20, 30))
    for way in (resize, resize_by_numpy, resize_by_torch):
        np.testing.assert_array_equal(way(part, (20, 30)), expected)
    assert resize(part, (40, 56)) is part


def test_a_large_picture_is_never_whole_in_floats() -> None:
    photo = np.zeros((1500, 2000, 3), np.uint8)
    tracemalloc.start()
    try:
        resize_by_numpy(photo, (96, 96))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 * photo.nbytes, "float64 would take eight times the picture"


def test_torch_is_not_loaded() -> None:
    code = "import sys, numpy as np; from facenet.data.resize import resize"
    code += "; resize(np.zeros((9, 9, 3), np.uint8), (16, 16)); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
