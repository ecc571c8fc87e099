"""baselines: unit vectors, the definitions as loops, and that they are floors rather than encoders."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from facenet.errors import ConfigError, DataError
from facenet.evaluation.baselines import color_histogram, grey_pixels, pca


def faces(people: int = 12, each: int = 4, side: int = 24, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (N, side, side, 3) of a pattern per person, under noise and changing brightness, and labels."""
    rng = np.random.default_rng(seed)
    pattern = np.kron(rng.integers(40, 216, (people, 8, 8, 3)), np.ones((1, side // 8, side // 8, 1)))
    labels = np.repeat(np.arange(people), each)
    light = rng.uniform(-30, 30, (len(labels), 1, 1, 1))
    return (pattern[labels] + light + rng.normal(0, 10, (len(labels), side, side, 3))).clip(0, 255).astype(
        np.uint8
    ), labels


BASELINES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "raw": lambda images: grey_pixels(images, centred=False),
    "grey": grey_pixels,
    "color": color_histogram,
    "pca": lambda images: pca(faces(seed=9)[0], images, dim=16),
    "pca_plain": lambda images: pca(faces(seed=9)[0], images, dim=16, whiten=False),
}


@pytest.mark.parametrize("name", BASELINES)
def test_unit_float32_vectors_that_do_not_depend_on_the_batch(name: str) -> None:
    images, labels = faces()
    vectors = BASELINES[name](images)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(BASELINES[name](images[5:7]), vectors[5:7], atol=1e-5)
    assert BASELINES[name](images[:0]).shape == (0, vectors.shape[1])
    nearest = np.argsort(-vectors @ vectors.T, axis=1)[:, 1]
    assert np.mean(labels[nearest] == labels) > 0.8


def test_grey_pixels_average_areas() -> None:
    images, _ = faces(side=64)
    grey = (
        (images.astype(float) @ [0.299, 0.587, 0.114]).reshape(-1, 32, 2, 32, 2).mean((2, 4)).reshape(len(images), -1)
    )
    raw = grey / np.linalg.norm(grey, axis=1, keepdims=True)
    centred = grey - grey.mean(1, keepdims=True)
    np.testing.assert_allclose(grey_pixels(images, centred=False), raw, atol=1e-6)
    np.testing.assert_allclose(grey_pixels(images), centred / np.linalg.norm(centred, axis=1, keepdims=True), atol=1e-5)
    uneven = grey_pixels(faces(side=40)[0][:, :, :37], centred=False)  # 40 x 37 has no whole blocks
    assert uneven.shape[1] == 1024
    small = faces(side=16)[0]
    assert grey_pixels(small).shape == (len(small), 256)  # never enlarged


def test_an_area_average_keeps_the_mean() -> None:
    from facenet.evaluation.baselines import _areas

    for size in (32, 33, 40, 63, 100, 250):
        weights = _areas(size)
        np.testing.assert_allclose(weights.sum(1), 1, atol=1e-5)
        np.testing.assert_allclose(weights.sum(0), 32 / size, atol=1e-5)


def test_a_flat_image_is_no_nan() -> None:
    flat = np.full((2, 24, 24, 3), 90, np.uint8)
    for vectors in (grey_pixels(flat), pca(faces()[0], flat), color_histogram(flat)):
        assert np.isfinite(vectors).all()


def test_brightness_is_what_centring_removes() -> None:
    image = faces()[0][:1].clip(0, 150)
    both = np.concatenate([image, image + 60])
    one, two = grey_pixels(both)
    assert one @ two == pytest.approx(1, abs=1e-4)
    one, two = grey_pixels(both, centred=False)
    assert one @ two < 0.9999


def test_color_histogram_against_a_loop() -> None:
    images, _ = faces(people=2, each=1, side=16)
    for image, vector in zip(images, color_histogram(images, bins=4), strict=True):
        counts = np.zeros((4, 4, 4))
        for red, green, blue in image.reshape(-1, 3) // 64:
            counts[red, green, blue] += 1
        np.testing.assert_allclose(vector, np.sqrt(counts / counts.sum()).ravel(), atol=1e-6)
    one, two = color_histogram(images).astype(float)
    hellinger = 1 - (one * two).sum()
    assert ((one - two) ** 2).sum() == pytest.approx(2 * hellinger, abs=1e-5)


@pytest.mark.parametrize("whiten", [False, True])
def test_pca_against_scikit_learn(whiten: bool) -> None:
    from sklearn.decomposition import PCA

    train, images = faces(people=20, seed=1)[0], faces(seed=2)[0]
    model = PCA(10, whiten=whiten, svd_solver="full").fit(grey_pixels(train).astype(float))
    want = model.transform(grey_pixels(images).astype(float))
    want /= np.linalg.norm(want, axis=1, keepdims=True)
    found = pca(train, images, dim=10, whiten=whiten)
    np.testing.assert_allclose(found @ found.T, want @ want.T, atol=1e-4)  # signs of components are free
    assert pca(train[:6], images).shape[1] == 5


def test_bad_input_raises() -> None:
    images = faces()[0]
    for bad in (images[0], images.astype(np.float32), images[..., :1]):
        for baseline in (grey_pixels, color_histogram):
            with pytest.raises(DataError, match="uint8 images"):
                baseline(bad)
    with pytest.raises(DataError, match="two or more training images"):
        pca(images[:1], images)
    with pytest.raises(DataError, match="of the size"):
        pca(faces(side=16)[0], images)
    with pytest.raises(ConfigError, match="dim >= 1"):
        pca(images, images, dim=0)
    with pytest.raises(ConfigError, match="bins"):
        color_histogram(images, bins=0)
