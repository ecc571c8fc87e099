"""Image files to upright 8-bit RGB pictures: which files are read, and what is said of those that are not. No torch."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from facenet.errors import DataError

MOST_PIXELS = 89_478_485  # PIL's own bound: 256 MB of RGB
BOMB = "more than 89 million pixels (a decompression bomb?)"
SCAN, MOST_SCANS = b"\xff\xda", 40  # marker of a scan of a JPEG; a progressive one has about ten
# markers of a common JPEG: frames of Huffman codes; JFIF and Adobe blocks, tables, restart interval, comment
FRAMES, HARMLESS, COLOURS = (0xC0, 0xC1), (0xE0, 0xEE, 0xDB, 0xC4, 0xDD, 0xFE), ("Gray", "YCbCr", "RGB")
MOST_BYTES = 1 << 24  # of a common JPEG of fewer than LARGE_PIXELS
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "PPM", "GIF")  # others run programs (EPS) or are no pictures
LARGE_PIXELS = 4_000_000  # pictures of so many take 9 bytes a pixel while they are cut ...
LARGE_AT_ONCE = 8  # ... so that only a few are decoded at a time, however many threads there are
LEAST_SIDE = 8  # pixels; smaller pictures are spacers of web pages, not faces
ORIENTATION = 0x0112  # EXIF
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
T = TypeVar("T")


class Unreadable(DataError):
    """A file is no picture, or a broken one."""


class TooLarge(Unreadable):
    """A picture has more pixels than are decoded."""


def read_picture(source: str | Path | bytes, *, most_pixels: int = MOST_PIXELS) -> Image.Image:
    """Decode an image, of a file or in memory, to an upright RGB picture.

    Raises:
        DataError: as :func:`decode`.
    """
    return decode(source, lambda picture: upright_rgb(picture).copy(), most_pixels=most_pixels)


def decode(source: str | Path | bytes, then: Callable[[Image.Image], T], *, most_pixels: int = MOST_PIXELS) -> T:
    """Open an image and return what `then` makes of the picture, which is read as far as `then` looks at it.

    `source` is a file or its bytes. Width and height are looked at before any pixel is decoded.

    Raises:
        TooLarge: more than `most_pixels` pixels.
        DataError: the file is missing, empty, truncated, no image, or too small a one; `then` raised it.
    """
    name = "picture" if isinstance(source, bytes) else source
    try:
        with _QUIET, Image.open(_openable(source), formats=FORMATS) as picture:
            width, height = picture.size
            if min(width, height) < LEAST_SIDE:
                raise Unreadable(f"too small ({width}x{height} pixels; a side needs {LEAST_SIDE})")
            if width * height > MOST_PIXELS:
                raise TooLarge(BOMB)
            if width * height > most_pixels:
                raise TooLarge(f"{width}x{height} pixels, {most_pixels} are allowed; make it smaller")
            with _LARGE if width * height >= LARGE_PIXELS else contextlib.nullcontext():
                return then(picture)
    except FileNotFoundError:
        raise Unreadable(f"{name}: no such file") from None
    except DataError as error:  # NoFace among them
        raise type(error)(f"{name}: {error}") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise TooLarge(f"{name}: {BOMB}") from error
    except UnidentifiedImageError as error:
        raise Unreadable(f"{name}: not a readable image (none of {', '.join(FORMATS)}, PGM)") from error
    except PermissionError as error:
        raise Unreadable(f"{name}: no permission to read it") from error
    except Exception as error:  # PIL raises anything from SyntaxError to struct.error on broken files
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise Unreadable(f"{name}: not a readable image ({reason})") from error


def _openable(source: str | Path | bytes) -> str | Path | io.BytesIO:
    """Return what PIL opens; what is no file, or empty, is refused."""
    if isinstance(source, bytes):
        size = len(source)
    else:
        status = os.stat(source)  # noqa: PTH116 - for every image
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for a writer
            raise Unreadable("a folder, pipe, socket or device, not a file")
        size = status.st_size
    if not size:
        raise Unreadable("the file is empty")
    if isinstance(source, bytes) and source[:2] == b"\xff\xd8" and source.count(SCAN) > MOST_SCANS:
        raise Unreadable(f"a JPEG of more than {MOST_SCANS} scans, each of which takes as long as a picture")
    return io.BytesIO(source) if isinstance(source, bytes) else source


def why(error: Exception, source: Any) -> str:
    """Return what an error says of a file, without the file's name: for a table that has a column for the name."""
    return str(error).removeprefix("picture: " if isinstance(source, bytes | None) else f"{source}: ")


def plain_jpeg(source: str | Path | bytes) -> np.ndarray | None:
    """Return the pixels (h, w, 3) uint8 that :func:`read_picture` gives for a common JPEG, in half of its time.

    None: PIL has to look at it. It is no JPEG, a large, damaged or unusual one, or may have to be turned.
    """
    try:
        data = source if isinstance(source, bytes) else _content(source)
        if not _is_common(data):
            return None
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if min(height, width) < LEAST_SIDE or height * width >= LARGE_PIXELS or colours not in COLOURS:
            return None
        pixels: np.ndarray = simplejpeg.decode_jpeg(data)
    except (OSError, ValueError, IndexError):
        return None
    return pixels


def _is_common(data: bytes) -> bool:
    """Whether the header is that of a JPEG of one scan, without a block that turns a picture or holds others."""
    if data[:2] != b"\xff\xd8":
        return False
    place, components = 2, 0
    while data[place] == 0xFF:
        marker = data[place + 1]
        if marker == SCAN[1]:
            return data[place + 4] == components  # all of them in this scan, so that it is the only one
        if marker in FRAMES:
            components = data[place + 9]
        elif marker not in HARMLESS:
            return False
        place += 2 + (data[place + 2] << 8 | data[place + 3])
    return False


def _content(path: str | Path) -> bytes:
    """Return the bytes of a file; raises ValueError for a pipe, since opening it would wait for a writer."""
    status = os.stat(path)  # noqa: PTH116 - for every image
    if not stat.S_ISREG(status.st_mode) or status.st_size > MOST_BYTES:
        raise ValueError
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - for every image
        return file.read(status.st_size)


def upright_rgb(picture: Image.Image) -> Image.Image:
    """Turn a picture by its EXIF tag and make it 8-bit RGB; an upright RGB picture is returned, not copied.

    Grey pictures of 16 bits, 32 bits or floats are scaled, transparent ones are laid on white. Colours are taken as
    they are: no profile (ICC) is applied.

    Raises:
        DataError: grey levels that are not finite.
    """
    picture = _upright(picture)
    if picture.mode.startswith("I") or picture.mode == "F":
        return _scaled(picture)
    if picture.mode in ("RGBa", "La"):
        picture = picture.convert(picture.mode.upper())
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        rgba = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _upright(picture: Image.Image) -> Image.Image:
    """Turn by the EXIF tag; an upright picture is not copied."""
    if picture.format == "JPEG" and not picture.info.keys() & {"exif", "xmp"}:
        return picture  # looking for a tag that can not be there takes a quarter of the decoding
    turn = TURNS.get(_orientation(picture))
    return picture if turn is None else picture.transpose(turn)


def _orientation(picture: Image.Image) -> Any:
    """Return the EXIF tag; 1 (upright) if the block is damaged, which does not make the picture so."""
    try:
        return picture.getexif().get(ORIENTATION, 1)
    except Exception:  # anything from SyntaxError to struct.error
        return 1


def _scaled(picture: Image.Image) -> Image.Image:
    """Scale grey levels to 8 bits: by the smallest usual range that holds them, or by the largest of them."""
    values = np.asarray(picture, np.float64)
    largest = float(values.max())
    if not np.isfinite(values).all():
        raise DataError("grey levels that are not finite")
    ranges = (1.0, 255.0, 65535.0) if picture.mode == "F" else (255.0, 65535.0)
    top = next((top for top in ranges if largest <= top), largest)
    return Image.fromarray((values.clip(0, top) * (255 / top)).astype(np.uint8)).convert("RGB")


class _Quiet:
    """Pass over PIL's warnings while any thread decodes: PIL warns of a damaged EXIF block, and reads the picture.

    ``warnings.catch_warnings`` restores the filters that it found, which may be those of another thread. Here the
    first thread adds one filter and the last one takes it away.
    """

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        self._added: Any = None

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                before = list(warnings.filters)
                warnings.filterwarnings("ignore", module=r"PIL\.")
                self._added = None if warnings.filters[0] in before else warnings.filters[0]

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside and self._added is not None:
                with contextlib.suppress(ValueError):  # somebody else has put the filters back
                    warnings.filters.remove(self._added)  # type: ignore[attr-defined]


_QUIET = _Quiet()
_LARGE = threading.BoundedSemaphore(LARGE_AT_ONCE)
