"""Image files as people collect them: good ones that look odd, and bad ones, each with the reason to skip it."""

from __future__ import annotations

import os
import random
import shutil
import socket
import struct
import tempfile
import unicodedata
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

UNREADABLE, EMPTY, NO_FILE = "not a readable image", "the file is empty", "a pipe, socket or device, not a file"
BOMB = "more than 89 million pixels"
LOOP = "a link to what is read already"
TWICE, TWO_NAMES = "the same file twice", "the same file under another identity"


class Spot(NamedTuple):
    """Where a file of some kind is to be made, and of what."""

    folder: Path  # of a person
    stem: str
    face: Image.Image
    rng: random.Random

    def save(self, suffix: str, picture: Image.Image | None = None, **options: Any) -> Path:
        """Write the face, or another picture, in the format of a suffix."""
        path = self.folder / f"{self.stem}{suffix}"
        (picture or self.face).save(path, **options)
        return path

    def write(self, suffix: str, content: bytes) -> Path:
        """Write bytes."""
        path = self.folder / f"{self.stem}{suffix}"
        path.write_bytes(content)
        return path

    def cut(self, suffix: str, **options: Any) -> Path:
        """Write an image file that breaks off somewhere."""
        content = self.save(suffix, **options).read_bytes()
        return self.write(suffix, content[: self.rng.randrange(len(content) // 4, len(content) * 9 // 10)])


def grey_png(width: int, height: int) -> bytes:
    """A grey PNG of any size by its header; what is decoded of it would be black."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(1 << 20))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def _pipe(spot: Spot) -> Path:
    path = spot.folder / f"{spot.stem}.jpg"
    os.mkfifo(path)
    return path


def _socket(spot: Spot) -> Path:
    path = spot.folder / f"{spot.stem}.jpg"
    short = Path(tempfile.mkdtemp(prefix="facenet-")) / "s"  # a socket's path may not be long
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(short))
    shutil.move(short, path)
    short.parent.rmdir()
    return path


def _folder(spot: Spot) -> Path:
    path = spot.folder / f"{spot.stem}.jpg"
    path.mkdir()
    return path


def _closed(spot: Spot) -> Path:
    path = spot.save(".jpg")
    path.chmod(0)
    return path


def _linked(name: str, to: str) -> Callable[[Spot], Path]:
    def make(spot: Spot) -> Path:
        path = spot.folder / name.format(stem=spot.stem)
        path.symlink_to(to.format(path=path, stem=spot.stem))
        return path

    return make


def _foreign_name(spot: Spot) -> Path:
    path = os.fsencode(spot.folder / spot.stem) + b"-Ren\xe9.jpg"
    with open(path, "wb") as file:  # noqa: PTH123 - a name of bytes
        spot.face.save(file, "JPEG")
    return Path(os.fsdecode(path))


def _twice(spot: Spot) -> Path:
    return Path(shutil.copy(spot.save(".png"), spot.folder / f"{spot.stem} (copy).png"))


def _two_names(spot: Spot) -> Path:
    other = spot.folder.parent / "p000" / f"of {spot.folder.name} {spot.stem}.png"
    return Path(shutil.copy(spot.save(".png"), other))


def _nameless(spot: Spot) -> Path:
    return Path(shutil.move(spot.save(".png"), spot.folder.parent / f"{spot.folder.name} {spot.stem}.png"))


# what is to be listed -> the reason's kind
BAD: dict[str, tuple[str, Callable[[Spot], Path]]] = {
    "empty": (EMPTY, lambda spot: spot.write(".jpg", b"")),
    "text": (UNREADABLE, lambda spot: spot.write(".jpg", f"<html>{spot.stem} not found</html>".encode())),
    "half a JPEG": (UNREADABLE, lambda spot: spot.cut(".jpg")),
    "half a progressive JPEG": (UNREADABLE, lambda spot: spot.cut(".jpg", progressive=True)),
    "half a PNG": (UNREADABLE, lambda spot: spot.cut(".png")),
    "half a WebP": (UNREADABLE, lambda spot: spot.cut(".webp")),
    "half a TIFF": (UNREADABLE, lambda spot: spot.cut(".tif")),
    "half a GIF": (UNREADABLE, lambda spot: spot.cut(".gif")),
    "a JPEG's first bytes": (UNREADABLE, lambda spot: spot.write(".jpg", b"\xff\xd8\xff" + spot.stem.encode())),
    "a program in PostScript": (UNREADABLE, lambda spot: spot.save(".eps").rename(spot.folder / f"{spot.stem}.jpg")),
    "decompression bomb": (BOMB, lambda spot: spot.write(".png", grey_png(60_000, 60_000 - spot.rng.randrange(99)))),
    "smaller bomb": (BOMB, lambda spot: spot.write(".png", grey_png(10_000, 10_000 - spot.rng.randrange(99)))),
    "one pixel": ("too small", lambda spot: spot.save(".png", spot.face.resize((1, 1)))),
    "a strip": ("too small", lambda spot: spot.save(".png", spot.face.resize((3, 5000)))),
    "HEIC": (".heic is not read; convert it to JPEG or PNG", lambda spot: spot.write(".heic", b"ftypheic")),
    "pipe": (NO_FILE, _pipe),
    "socket": (NO_FILE, _socket),
    "folder": ("a folder, not a file", _folder),
    "no permission": ("no permission to read it", _closed),
    "link to nothing": ("a link to nothing", _linked("{stem}.jpg", "/nowhere/{stem}.jpg")),
    "link to itself": ("not accessible", _linked("{stem}.jpg", "{path}")),
    "link to the folder above": (LOOP, _linked("{stem}", "..")),
    "name of other bytes": ("its name is not UTF-8; rename it", _foreign_name),
    "comma, quote and line break": (EMPTY, lambda spot: spot.write(',"a\nb\r.jpg', b"")),
    "the same file twice": (TWICE, _twice),
    "the same file under two names": (TWO_NAMES, _two_names),
    "no identity": ("no identity", _nameless),
}


def _sixteen(spot: Spot) -> Image.Image:
    return Image.fromarray(np.asarray(spot.face.convert("L"), np.uint16) * 257)


def _floats(spot: Spot) -> Image.Image:
    return Image.fromarray(np.asarray(spot.face.convert("L"), np.float32) / 255)


def _clear(spot: Spot, mode: str) -> Image.Image:
    picture = spot.face.convert(mode)
    picture.putalpha(200)
    return picture


def _frames(spot: Spot) -> dict[str, Any]:
    return {"save_all": True, "append_images": [spot.face.rotate(9)], "duration": 100}


def _turned(content: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = content
    return exif


def _outside(spot: Spot) -> Path:
    path, store = spot.folder / f"{spot.stem}.jpg", spot.folder.parent.with_name("elsewhere")
    store.mkdir(exist_ok=True)
    file = store / f"{spot.folder.name}{spot.stem}.jpg"
    spot.face.save(file)
    path.symlink_to(file)
    return path


def _below(spot: Spot) -> Path:
    (spot.folder / f"{spot.stem}.jpg").mkdir()
    return spot.save(".jpg/1.jpg")


def _decomposed(spot: Spot) -> Path:
    """A picture in a folder whose name looks like another one's and has other bytes."""
    for form in ("NFC", "NFD"):
        folder = spot.folder.parent / unicodedata.normalize(form, f"José {spot.folder.name}")
        folder.mkdir(exist_ok=True)
    return Path(shutil.move(spot.save(".png"), folder / f"{spot.stem}.png"))


GOOD: dict[str, Callable[[Spot], Path]] = {
    "16-bit PNG": lambda spot: spot.save(".png", _sixteen(spot)),
    "16-bit TIFF": lambda spot: spot.save(".tif", _sixteen(spot)),
    "float TIFF": lambda spot: spot.save(".tiff", _floats(spot)),
    "palette": lambda spot: spot.save(".png", spot.face.convert("P")),
    "1 bit": lambda spot: spot.save(".png", spot.face.convert("1")),
    "RGBA": lambda spot: spot.save(".png", _clear(spot, "RGB")),
    "grey and alpha": lambda spot: spot.save(".png", _clear(spot, "L")),
    "CMYK": lambda spot: spot.save(".jpg", spot.face.convert("CMYK")),
    "animated GIF": lambda spot: spot.save(".gif", **_frames(spot)),
    "animated WebP": lambda spot: spot.save(".webp", **_frames(spot)),
    "animated PNG": lambda spot: spot.save(".png", **_frames(spot)),
    "turned by EXIF": lambda spot: spot.save(".jpg", exif=_turned(6)),
    "damaged EXIF": lambda spot: spot.save(".jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x09damaged"),
    "damaged profile": lambda spot: spot.save(".jpg", icc_profile=b"no profile"),
    "JPEG named PNG": lambda spot: spot.save(".png", format="JPEG"),
    "upper-case suffix": lambda spot: spot.save(".JPG"),
    "suffix of browsers": lambda spot: spot.save(".jfif", format="JPEG"),
    "long name": lambda spot: spot.save(f"{'x' * 240}.jpg"),
    "comma, quote, line break": lambda spot: spot.save(',"a\nb\r.png'),
    "accents": lambda spot: spot.save("é - 顔.png"),
    "link out of the folder": _outside,
    "folder named as an image": _below,
    "two spellings of a folder": _decomposed,
    "one key twice": lambda spot: spot.save(".png"),  # beside another picture <stem>.jpg
}
