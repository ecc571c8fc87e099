from __future__ import annotations

import io
import os
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from benchmarks.faults.image_files import grey_png
from facenet.data import pictures
from facenet.data.pictures import decode, plain_jpeg, read_picture, why
from facenet.errors import DataError
from tests.helpers.pictures import picture


def read(path: Path) -> np.ndarray:
    found = np.asarray(read_picture(path))
    assert found.dtype == np.uint8
    return found.astype(np.int64)


GREY = picture()[..., 0]


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "I;16", "1", "LA"])
def test_every_picture_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    suffix = "jpg" if mode == "CMYK" else "png"
    grey = Image.fromarray(GREY.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(picture()).convert(mode)
    grey.save(tmp_path / f"a.{suffix}")
    found = read(tmp_path / f"a.{suffix}")
    assert found.shape == (60, 80, 3)
    assert found[:, -20:, 0].mean() - found[:, :20, 0].mean() > 30, "red grows to the right in every mode"


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("a.png", GREY.astype(np.uint16) * 257),
        ("a.tif", GREY.astype(np.uint16) * 257),
        ("a.tif", GREY.astype(np.int32)),
        ("a.tif", GREY.astype(np.int32) * 1_000_000),
        ("a.tif", GREY.astype(np.float32)),
        ("a.tif", GREY.astype(np.float32) / 255),
        ("a.tif", GREY.astype(np.float32) * 257),
    ],
    ids=["16-bit PNG", "16-bit TIFF", "32 bits, small", "32 bits", "float to 255", "float to 1", "float to 65535"],
)
def test_grey_levels_of_any_range_are_scaled(tmp_path: Path, name: str, stored: np.ndarray) -> None:
    Image.fromarray(stored).save(tmp_path / name)
    assert np.abs(read(tmp_path / name) - GREY[..., None].astype(np.int64)).max() <= 1


def test_a_cmyk_jpeg_and_its_picture_are_alike(tmp_path: Path) -> None:
    Image.fromarray(picture()).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    assert np.abs(read(tmp_path / "a.jpg") - picture()).mean() < 4


def test_transparent_is_white(tmp_path: Path) -> None:
    Image.new("RGBA", (16, 16), (200, 0, 0, 0)).save(tmp_path / "a.png")
    Image.new("LA", (16, 16), (0, 0)).save(tmp_path / "b.png")
    for name in "ab":
        assert read(tmp_path / f"{name}.png").min() == 255


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_the_first_frame_stands_for_an_animation(tmp_path: Path, suffix: str) -> None:
    first, second = (Image.new("RGB", (32, 32), colour) for colour in ("red", "blue"))
    first.save(tmp_path / f"a.{suffix}", save_all=True, append_images=[second], duration=9)
    red, _, blue = read(tmp_path / f"a.{suffix}").mean((0, 1))
    assert red > 200 > 60 > blue


def test_every_orientation_is_turned_upright(tmp_path: Path) -> None:
    for value in range(1, 9):
        for name in ("a.png", "a.jpg"):
            exif = Image.Exif()
            exif[0x0112] = value
            Image.fromarray(picture(64, 48)).save(tmp_path / name, exif=exif)
            with Image.open(tmp_path / name) as opened:
                expected = np.asarray(ImageOps.exif_transpose(opened))
            assert np.array_equal(read(tmp_path / name), expected)


def test_a_damaged_exif_block_or_profile_is_no_damage(tmp_path: Path) -> None:
    """Nor is it news: PIL's warnings are errors in this suite."""
    Image.fromarray(picture()).save(tmp_path / "a.jpg")
    whole = read(tmp_path / "a.jpg")
    for damage in ({"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\x09damaged"}, {"exif": b"x"}, {"icc_profile": b"x"}):
        Image.fromarray(picture()).save(tmp_path / "b.jpg", **damage)  # type: ignore[arg-type]
        assert np.array_equal(read(tmp_path / "b.jpg"), whole)


def test_warnings_are_as_they_were_when_the_last_of_some_threads_has_decoded(tmp_path: Path) -> None:
    Image.fromarray(picture()).save(tmp_path / "a.png")
    before = list(warnings.filters)
    first_is_in, second_is_done = threading.Event(), threading.Event()

    def wait(opened: Image.Image) -> None:
        first_is_in.set()
        second_is_done.wait(10)

    thread = threading.Thread(target=decode, args=(tmp_path / "a.png", wait))
    thread.start()
    first_is_in.wait(10)
    read_picture(tmp_path / "a.png")
    assert list(warnings.filters) != before, "the first thread decodes still"
    second_is_done.set()
    thread.join()
    assert list(warnings.filters) == before


def test_files_that_are_no_pictures_are_refused_in_words(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(picture()).save(buffer, "JPEG")
    (tmp_path / "cut.jpg").write_bytes(buffer.getvalue()[:-200])
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "bomb.png").write_bytes(grey_png(60_000, 60_000))
    (tmp_path / "small_bomb.png").write_bytes(grey_png(10_000, 10_000))
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    Image.new("RGB", (3, 5000)).save(tmp_path / "strip.png")
    Image.new("RGB", (99, 99)).save(tmp_path / "script.eps")
    (tmp_path / "script.eps").rename(tmp_path / "script.jpg")
    (tmp_path / "text.jpg").write_text("text")
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    Image.fromarray(np.full((16, 16), np.nan, np.float32)).save(tmp_path / "nan.tif")
    for name, told in {
        "cut.jpg": "not a readable image (",
        "cut.png": "not a readable image (",
        "bomb.png": "more than 89 million pixels",
        "small_bomb.png": "more than 89 million pixels",
        "dot.png": "too small (1x1 pixels",
        "strip.png": "too small (3x5000 pixels",
        "script.jpg": "not a readable image (none of JPEG, PNG",
        "text.jpg": "not a readable image (none of JPEG, PNG",
        "empty.jpg": "the file is empty",
        "folder.jpg": "a folder, pipe, socket or device, not a file",
        "pipe.jpg": "a folder, pipe, socket or device, not a file",
        "none.jpg": "no such file",
        "nan.tif": "grey levels that are not finite",
    }.items():
        with pytest.raises(DataError) as caught:
            read_picture(tmp_path / name)
        assert str(caught.value).startswith(f"{tmp_path / name}: {told}")
        assert why(caught.value, tmp_path / name).startswith(told), "a list of files says its name once"


def test_few_large_pictures_are_decoded_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = Image.fromarray(np.zeros((40, 50, 3), np.uint8))
    picture.save(tmp_path / "a.png")
    monkeypatch.setattr(pictures, "LARGE_PIXELS", 40 * 50)
    inside, most, lock = 0, 0, threading.Lock()
    together = threading.Barrier(pictures.LARGE_AT_ONCE)

    def then(_: Image.Image) -> None:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        together.wait(30)  # for as many as may be inside at once
        time.sleep(0.01)
        with lock:
            inside -= 1

    with ThreadPoolExecutor(2 * pictures.LARGE_AT_ONCE) as pool:
        list(pool.map(lambda _: decode(tmp_path / "a.png", then), range(2 * pictures.LARGE_AT_ONCE)))
    assert most == pictures.LARGE_AT_ONCE


def jpeg(side: tuple[int, int], mode: str = "RGB", seed: int = 0, **how: object) -> bytes:
    coarse = np.random.default_rng(seed).integers(0, 256, (side[0] // 4 + 1, side[1] // 4 + 1, 3), dtype=np.uint8)
    pixels = coarse.repeat(4, 0).repeat(4, 1)[: side[0], : side[1]]
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, "JPEG", **how)  # type: ignore[arg-type]
    return buffer.getvalue()


PLAIN: list[dict[str, object]] = [
    {},
    {"mode": "L"},
    {"keep_rgb": True},
    {"quality": 20},
    {"optimize": True, "quality": 100, "subsampling": "4:4:4"},
    {"subsampling": "4:2:2", "restart_marker_blocks": 1},
    {"subsampling": "4:2:0", "comment": b"a comment"},
]


@pytest.mark.parametrize("side", [(8, 8), (33, 47), (250, 250)])
def test_common_jpegs_have_the_pixels_of_pil(tmp_path: Path, side: tuple[int, int]) -> None:
    for number, how in enumerate(PLAIN):
        data = jpeg(side, seed=number, **how)  # type: ignore[arg-type]
        (tmp_path / "one.jpg").write_bytes(data)
        for source in (data, tmp_path / "one.jpg"):
            found = plain_jpeg(source)
            assert found is not None, how
            assert np.array_equal(found, np.asarray(read_picture(data))), how


def test_other_files_are_left_to_pil(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[pictures.ORIENTATION] = 6
    whole = jpeg((40, 50))
    others = {
        "turned": jpeg((40, 50), exif=turned),
        "cmyk": jpeg((40, 50), mode="CMYK"),
        "too small": jpeg((7, 40)),
        "cut off": whole[: len(whole) // 2],
        "empty": b"",
        "png": grey_png(16, 16),
        "several scans": jpeg((40, 50), progressive=True),
        "a colour profile": jpeg((40, 50), icc_profile=b"profile"),
        "ends in its header": whole[:40],
        "a scan of one component of three": whole.replace(b"\xff\xda\x00\x0c\x03", b"\xff\xda\x00\x0c\x01"),
    }
    for name, data in others.items():
        assert plain_jpeg(data) is None, name
    assert plain_jpeg(tmp_path / "missing.jpg") is None
    os.mkfifo(tmp_path / "pipe.jpg")  # opening it would wait for a writer
    assert plain_jpeg(tmp_path / "pipe.jpg") is None
    assert plain_jpeg(whole) is not None
