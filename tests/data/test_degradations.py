from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from facenet.data.degradations import KINDS, Degraded, blur, brightness, jpeg, noise, occlusion, pixels


def ramp(height: int = 60, width: int = 80) -> np.ndarray:
    """Colours that change slowly: what a JPEG file keeps best."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return np.stack([x, y, 255 - x], -1).astype(np.uint8)


def textured(height: int = 66, width: int = 60) -> np.ndarray:
    """A ramp with edges and grain, which every kind can spoil."""
    grain = np.random.default_rng(0).normal(0, 8, (height, width, 3))
    stripes = 40 * (np.arange(width) // 6 % 2)[None, :, None]
    image = ramp(height, width) * 0.6 + stripes + grain
    return image.clip(0, 255).astype(np.uint8)


def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def error(changed: np.ndarray, image: np.ndarray) -> float:
    back = Image.fromarray(changed).resize(image.shape[1::-1], Image.Resampling.BILINEAR)
    return float(np.abs(np.asarray(back, float) - image).mean())


@pytest.mark.parametrize("kind", KINDS)
def test_a_change_leaves_its_input_alone_and_returns_rgb(kind: str) -> None:
    image = textured()
    image.flags.writeable = False
    for level in KINDS[kind].levels:
        changed = KINDS[kind].change(image, level, rng())
        assert changed.dtype == np.uint8
        assert changed.ndim == 3
        assert changed.shape[2] == 3


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("pixels", "brightness")])
def test_levels_are_listed_from_mild_to_severe(kind: str) -> None:
    image = textured(120, 120)
    errors = [error(KINDS[kind].change(image, level, rng()), image) for level in KINDS[kind].levels]
    assert all(mild < severe for mild, severe in pairwise(errors)), errors


@pytest.mark.parametrize("kind", ["blur", "noise", "occlusion", "brightness"])
def test_level_zero_changes_nothing(kind: str) -> None:
    np.testing.assert_array_equal(KINDS[kind].change(textured(), 0, rng()), textured())


def test_jpeg_at_full_quality_is_nearly_the_image() -> None:
    image = ramp()
    assert error(jpeg(image, 100, rng()), image) < 1.0
    assert error(jpeg(image, 10, rng()), image) > 2.0


@pytest.mark.parametrize(
    ("size", "level", "expected"),
    [((130, 130), 1600, (40, 40)), ((60, 80), 1200, (30, 40)), ((300, 300), 65_536, (256, 256))],
)
def test_pixels_is_the_number_of_pixels_left(size: tuple[int, int], level: int, expected: tuple[int, int]) -> None:
    assert pixels(ramp(*size), level, rng()).shape[:2] == expected


@pytest.mark.parametrize("level", [60 * 80, 60 * 80 + 1, 65_536])
def test_an_image_is_never_enlarged(level: int) -> None:
    image = ramp(60, 80)
    assert pixels(image, level, rng()) is image
    assert pixels(image, 60 * 80 - 200, rng()).shape[0] < 60


def test_a_sliver_keeps_a_pixel_of_width() -> None:
    assert pixels(ramp(400, 2), 100, rng()).shape == (141, 1, 3)


def test_blur_is_a_gaussian_of_a_share_of_the_side() -> None:
    image = textured(100, 140)
    slow = gaussian_filter(image.astype(float), (4, 4, 0), mode="nearest")
    found = blur(image, 4, rng()).astype(float)  # 4 % of the shorter side, 100
    inner = np.abs(found - slow)[20:-20, 20:-20]
    assert inner.mean() < 1.5
    assert np.abs(image - slow)[20:-20, 20:-20].mean() > 8, "the blur does something here"


def test_noise_has_the_deviation_it_names() -> None:
    grey = np.full((200, 200, 3), 128, np.uint8)
    added = noise(grey, 5, rng()).astype(float) - 128
    assert abs(added.std() - 0.05 * 255) < 0.2
    assert abs(added.mean()) < 0.2
    assert abs(np.corrcoef(added[..., 0].ravel(), added[..., 1].ravel())[0, 1]) < 0.02, "each value has its own"
    drowned = noise(grey, 1000, rng())
    assert np.isin(drowned, (0, 255)).mean() > 0.9, "clipped, not wrapped around"


@pytest.mark.parametrize("level", [5, 30, 50, 100])
def test_a_cover_hides_its_share_with_one_colour(level: float) -> None:
    image = textured(66, 60)
    changed = occlusion(image, level, np.random.default_rng(3))
    covered = (changed != image).any(2)
    top, left = (np.flatnonzero(covered.any(axis))[[0, -1]] for axis in (1, 0))
    box = (slice(top[0], top[1] + 1), slice(left[0], left[1] + 1))
    assert abs(covered[box].size / covered.size - level / 100) < 0.02
    assert len(np.unique(changed[box].reshape(-1, 3), axis=0)) == 1


def test_larger_covers_lie_over_smaller_ones() -> None:
    image = textured(66, 60)
    small, large = ((occlusion(image, level, rng()) != image).any(2) for level in (10, 40))
    edge = small & ~large
    assert small.sum() > 200
    assert edge.sum() <= 60, "at most a line of pixels, by rounding"


def test_a_stop_is_twice_the_light() -> None:
    def light(value: float) -> float:
        return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4

    image = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, 2)
    for stops in (-2, -1, 1, 2):
        changed = brightness(image, stops, rng())[0, :, 0]
        for before, after in zip(range(256), changed.tolist(), strict=True):
            wanted = min(1.0, light(before / 255) * 2.0**stops)
            assert light((after - 0.51) / 255) <= wanted <= light((after + 0.51) / 255)


@pytest.mark.parametrize("kind", ["noise", "occlusion"])
def test_randomness_is_a_function_of_seed_and_image_key(kind: str) -> None:
    image, level = textured(), KINDS[kind].levels[-1]
    change, other = Degraded(kind, level, seed=1), Degraded(kind, level, seed=2)
    first = change(image, "ada/1")
    assert not np.array_equal(change(image, "ada/2"), first)
    assert not np.array_equal(other(image, "ada/1"), first)
    np.testing.assert_array_equal(change(image, "ada/1"), first)
    np.testing.assert_array_equal(Degraded(kind, level, seed=1)(image, "ada/1"), first)


def test_what_was_left_as_it_was_is_counted() -> None:
    change = Degraded("pixels", 3000)
    for size, key in ((40, "a/1"), (60, "a/2"), (50, "a/3")):
        change(ramp(size, size), key)
    assert change.unchanged == {"a/1", "a/3"}


def test_the_levels_of_the_paper_are_the_default_ones() -> None:
    for kind in ("jpeg", "pixels"):
        assert set(KINDS[kind].levels) == set(KINDS[kind].paper)
    assert KINDS["jpeg"].paper[10] == 0.673
    assert KINDS["pixels"].paper[1600] == 0.378
    for kind in KINDS.values():
        assert all(kind.low <= level <= kind.high for level in kind.levels)
