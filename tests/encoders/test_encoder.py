"""An encoder: unit vectors, a fingerprint over what makes them, thresholds by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from facenet.data.preprocess import Preprocess
from facenet.encoders.encoder import Encoder, encode
from facenet.errors import ConfigError, DataError
from facenet.faces.alignment import Alignment, NoFace
from tests.helpers.encoders import OPTIONS, make
from tests.helpers.pictures import blob


def test_embeddings_are_unit_and_ignore_batch_mates() -> None:
    encoder = make()
    images = np.stack([blob(i, 0) for i in range(5)])
    together = encoder.embed(images)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    alone = np.concatenate([encoder.embed(images[i : i + 1]) for i in range(5)])
    np.testing.assert_allclose(alone, together, atol=1e-5)
    np.testing.assert_allclose(encoder.embed(images, batch_size=2), together, atol=1e-5)
    assert encoder.embed([]).shape == (0, 16)
    np.testing.assert_allclose(encoder.embed(images[:, :, ::-1]), together, atol=1e-5, err_msg="mirror-averaged")
    plain = make(mirror=False)
    assert np.abs(plain.embed(images[:, :, ::-1]) - plain.embed(images)).max() > 1e-3


def test_a_network_on_a_cpu_sees_few_images_at_a_time_with_the_same_vectors() -> None:
    encoder = make()
    assert isinstance(encoder.model, torch.nn.Module)
    images = encoder.preprocess.normalise(np.random.default_rng(0).integers(0, 256, (70, 3, 32, 32), np.uint8))
    with torch.inference_mode():
        given = torch.from_numpy(images).to(memory_format=torch.channels_last)
        at_once = encode(encoder.model, given, mirror=True).numpy()
    seen: list[int] = []
    encoder.model.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    np.testing.assert_array_equal(encoder.embed_batch(images), at_once)
    assert set(seen[2:]) == {23, 24}, "behind the two test images and their mirror images"


def test_fingerprint_covers_weights_options_preprocessing_and_nothing_else() -> None:
    base = make()
    assert make().fingerprint == base.fingerprint
    assert make(seed=1).fingerprint != base.fingerprint
    assert make(crop=0.9).fingerprint != base.fingerprint
    assert Encoder(base.model, "small", {**OPTIONS, "dropout": 0.2}, base.preprocess).fingerprint != base.fingerprint
    calibrated = Encoder(base.model, "small", OPTIONS, base.preprocess, {0.1: 1.0}, ["x"], {"y": 1})
    assert calibrated.fingerprint == base.fingerprint


class Given(torch.nn.Module):
    """A network that returns `vectors` (2, D), for its first images: the two test images."""

    def __init__(self, vectors: np.ndarray) -> None:
        super().__init__()
        self.register_buffer("vectors", torch.from_numpy(np.float32(vectors)))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.vectors[torch.arange(len(images)) % 2]


APART = np.eye(2, 16)


@pytest.mark.parametrize(
    ("vectors", "said"),
    [
        (APART[[0, 0]], "gives one vector to two images that have nothing in common"),
        (APART[[0, 0]] + 1e-8 * APART, "gives one vector to two images that have nothing in common"),
        (np.full((2, 16), np.nan), r"2 of its 2 vectors are not of unit length \(norm nan\)"),
        (APART * 0, r"2 of its 2 vectors are not of unit length \(norm 0\)"),
        (APART * [[1.0], [1.01]], r"1 of its 2 vectors are not of unit length \(norm 1.01\)"),
        (np.array([APART[0], np.inf * np.ones(16)]), r"1 of its 2 vectors are not of unit length \(norm inf\)"),
        (APART[:, :8], r"it gives \(8,\) numbers for an image, expected 16"),
    ],
)
def test_vectors_that_mean_nothing_are_refused_before_a_verdict(vectors: np.ndarray, said: str) -> None:
    encoder = Encoder(Given(vectors), "given", OPTIONS, Preprocess(size=(32, 32), mirror=False))
    for _ in range(2):
        with pytest.raises(
            DataError, match=rf"^encoder given \({encoder.fingerprint[:12]}\): .*{said}.*again"
        ) as raised:
            encoder.embed(blob(0, 0)[None])
        assert "\n" not in str(raised.value)


def test_an_image_that_has_no_vector_is_named() -> None:
    encoder = Encoder(Given(APART), "given", OPTIONS, Preprocess(size=(32, 32), mirror=False))
    images = np.zeros((2, 3, 32, 32), np.float32)
    np.testing.assert_array_equal(encoder.embed_batch(images), APART)
    encoder.model.vectors[1] = np.nan  # type: ignore[operator, union-attr]
    with pytest.raises(DataError, match=r"1 of its 2 vectors .*the first of p1/b\.png"):
        encoder.embed_batch(images, names=["p0/a.png", "p1/b.png"])


def test_a_scale_that_leaves_the_range_of_floats_is_refused() -> None:
    for std in (1e-300, 1e-5, 0.0, -1.0, float("nan")):
        with pytest.raises(ConfigError, match=r"std: expected three numbers of at least 0\.0001"):
            Preprocess(std=(0.5, 0.5, std))
    Preprocess(std=(1 / 255,) * 3)


def test_a_threshold_is_found_by_its_rate() -> None:
    encoder = make()
    encoder.thresholds = {0.01: 1.2}
    assert encoder.threshold(0.01) == 1.2
    with pytest.raises(DataError, match=r"far=0\.001 \(calibrated: 0\.01\)"):
        encoder.threshold(0.001)
    encoder.thresholds = {0.01: 1.2, 0.0001: 0.8, 0.001: 1.0}
    assert encoder.threshold(0.001) == 1.0
    assert encoder.threshold(10**-2.5) == pytest.approx(1.1), "linear in the logarithm of the rate"
    assert encoder.threshold(0.0002) == pytest.approx(0.8 + 0.2 * np.log10(2))
    for far in (0.011, 0.00009):
        with pytest.raises(DataError, match=r"calibrated: 0\.0001, 0\.001, 0\.01\)"):
            encoder.threshold(far)


def test_one_image_alone_gives_one_row(tmp_path: Path) -> None:
    pixels, encoder = blob(0, 0), make()
    Image.fromarray(pixels).save(tmp_path / "a.png")
    expected = encoder.embed([pixels])
    assert expected.shape == (1, 16)
    for image in (pixels, Image.fromarray(pixels), tmp_path / "a.png", str(tmp_path / "a.png")):
        np.testing.assert_allclose(encoder.embed(image), expected, atol=1e-6)
    np.testing.assert_allclose(encoder.embed(np.stack([pixels, pixels])), np.repeat(expected, 2, 0), atol=1e-6)


def test_an_image_that_can_not_be_embedded_is_named(tmp_path: Path) -> None:
    good, nobody = blob(0, 0), np.zeros((64, 64, 3), np.uint8)
    Image.fromarray(nobody).save(tmp_path / "nobody.png")
    encoder = make(align=Alignment())
    for images, name in (([tmp_path / "nobody.png"], "nobody.png"), ([nobody], "image 0"), (nobody, "image 0")):
        with pytest.raises(NoFace, match=rf"{name}: no face found; embed_folder goes on without such an image"):
            encoder.embed(images)
    with pytest.raises(DataError, match=r"image 3: image: expected uint8 RGB"):
        make().embed([good, good, good, good[..., 0]], batch_size=2)
