from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from facenet.data.transforms import Augment, Preprocess, read_image, to_tensor
from facenet.errors import ConfigError, DataError


def picture(height: int = 60, width: int = 80) -> np.ndarray:
    """A smooth ramp: red grows to the right, green downwards."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return np.stack([x, y, np.full_like(x, 90)], -1).astype(np.uint8)


def test_cut_takes_the_middle_square() -> None:
    image = to_tensor(picture(60, 100))
    out = Preprocess(size=(30, 30)).cut(image)
    assert out.shape == (3, 30, 30)
    # the middle 60 of 100 columns: red runs from 0.2 to 0.8 of its range
    assert abs(float(out[0, :, 0].float().mean()) - 0.2 * 255) < 6
    assert abs(float(out[0, :, -1].float().mean()) - 0.8 * 255) < 6


def test_crop_and_margin() -> None:
    half = Preprocess(size=(32, 32), crop=0.5)
    assert half.stored_size(1.25) == (40, 40)
    assert half.stored_size(9.0) == (64, 64), "as far as the image reaches"
    assert Preprocess(size=(32, 32)).stored_size(1.25) == (32, 32)
    image = to_tensor(picture(128, 128))
    inner, outer = half.cut(image).float(), half.cut(image, 1.25).float()
    torch.testing.assert_close(outer[:, 4:-4, 4:-4], inner, atol=2, rtol=0)


def test_rectangles() -> None:
    tall = Preprocess(size=(48, 32))
    assert tall.cut(to_tensor(picture(100, 100))).shape == (3, 48, 32)
    assert tall.cut(to_tensor(picture(10, 100))).shape == (3, 48, 32)


def test_normalise_range_and_call(tmp_path: Path) -> None:
    preprocess = Preprocess(size=(32, 32))
    Image.fromarray(picture()).save(tmp_path / "a.png")
    batch = preprocess([tmp_path / "a.png", Image.fromarray(picture()), picture()])
    assert batch.shape == (3, 3, 32, 32)
    assert batch.dtype == torch.float32
    assert -1 <= float(batch.min()) < -0.5 < 0.5 < float(batch.max()) <= 1
    torch.testing.assert_close(batch[0], batch[2])
    assert preprocess([]).shape == (0, 3, 32, 32)


def test_dict_round_trip_and_bad_values() -> None:
    preprocess = Preprocess(size=(40, 30), crop=0.7, mirror=False)
    assert Preprocess.from_dict(preprocess.to_dict()) == preprocess
    for wrong in ({"crop": 0.0}, {"size": (8, 8)}, {"std": (0.0, 1.0, 1.0)}, {"channels": "BGR"}):
        with pytest.raises(ConfigError):
            Preprocess(**wrong)
    with pytest.raises(ConfigError, match="expected the keys"):
        Preprocess.from_dict({"crop": 1})


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "I;16", "1", "LA"])
def test_every_picture_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    suffix = "jpg" if mode == "CMYK" else "png"
    if mode == "I;16":
        grey = Image.fromarray(picture()[..., 0].astype(np.uint16) * 257)
    else:
        grey = Image.fromarray(picture()).convert(mode)
    grey.save(tmp_path / f"a.{suffix}")
    tensor = read_image(tmp_path / f"a.{suffix}")
    assert tensor.shape == (3, 60, 80)
    assert tensor.dtype == torch.uint8
    left, right = float(tensor[0, :, :20].float().mean()), float(tensor[0, :, -20:].float().mean())
    assert right - left > 30, "red grows to the right in every mode"


def test_exif_turns_the_picture_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side: turn by 90 degrees clockwise
    Image.fromarray(picture(60, 80)).save(tmp_path / "a.jpg", exif=exif, quality=95)
    assert read_image(tmp_path / "a.jpg").shape == (3, 80, 60)


def test_broken_files_are_named(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(picture()).save(buffer, "JPEG")
    cases = {
        "empty.jpg": b"",
        "text.jpg": b"hello",
        "cut.jpg": buffer.getvalue()[:-200],
        "cut.png": b"\x89PNG\r\n\x1a\n",
    }
    for name, data in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError, match=name):
            read_image(tmp_path / name)
    with pytest.raises(DataError, match="no such file"):
        read_image(tmp_path / "none.jpg")
    with pytest.raises(DataError, match="expected uint8 RGB"):
        to_tensor(np.zeros((4, 4, 3)))


def batch(n: int = 4, side: int = 40) -> torch.Tensor:
    return torch.stack([to_tensor(picture(side, side))] * n)


def test_augmentation_is_a_function_of_its_generator() -> None:
    augment = Augment(blur=0.5, colour=0.1, stretch=0.1)
    runs = [augment(batch(), (32, 32), torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert runs[0].shape == (4, 3, 32, 32)
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
    assert not torch.equal(runs[0][0], runs[0][1]), "each image is drawn on its own"
    assert 0 <= float(runs[0].min()) <= float(runs[0].max()) <= 255


def test_no_change_is_the_centre_crop() -> None:
    still = Augment(*[0.0] * 12)
    out = still(batch(), (32, 32), torch.Generator().manual_seed(0))
    torch.testing.assert_close(out, batch()[..., 4:36, 4:36].float(), atol=0.01, rtol=0)


def test_mirror_and_shift_go_the_right_way() -> None:
    still = dict.fromkeys(Augment.__dataclass_fields__, 0.0)
    mirrored = Augment(**{**still, "mirror": 1.0})(batch(), (32, 32), torch.Generator().manual_seed(0))
    torch.testing.assert_close(mirrored, batch()[..., 4:36, 4:36].float().flip(-1), atol=0.01, rtol=0)
    grey = Augment(**{**still, "grey": 1.0})(batch(), (32, 32), torch.Generator().manual_seed(0))
    torch.testing.assert_close(grey[:, 0], grey[:, 2])
    hole = Augment(**{**still, "cutout": 0.5, "cutout_chance": 1.0})(
        batch(), (32, 32), torch.Generator().manual_seed(0)
    )
    changed = (hole - batch()[..., 4:36, 4:36]).abs().sum(1) > 1
    assert 0.05 < float(changed.float().mean()) <= 0.27
