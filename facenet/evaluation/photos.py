"""Two photos, one person? Their faces, the distance between them, and a verdict at a calibrated threshold."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from facenet.data.pictures import read_picture
from facenet.encoders.encoder import Encoder
from facenet.errors import ConfigError
from facenet.evaluation.sheets import GREEN, RED, Row, Tile, draw
from facenet.faces.alignment import NoFace
from facenet.faces.detector import Face, find_faces
from facenet.vectors import sq_dist


@dataclass(frozen=True)
class Photo:
    """A photo, the faces found in it and the pixels that the encoder was given."""

    path: str
    pixels: np.ndarray  # (H, W, 3) uint8: the crop
    faces: list[Face] | None  # None: not looked for
    face: Face | None

    def summary(self) -> str:
        """What was found, in words."""
        if self.faces is None or self.face is None:
            return "the picture is taken for a face"
        left, top, width, height = (round(value) for value in self.face.box)
        place = f"{width} x {height} pixels at ({left}, {top}), score {self.face.score:.2f}"
        return f"1 face, {place}" if len(self.faces) == 1 else f"{len(self.faces)} faces, taken: {place}"

    def plain(self) -> dict[str, Any]:
        """As plain values for JSON."""
        found = None if self.faces is None else len(self.faces)
        box = None if self.face is None else [float(value) for value in self.face.box]
        marks = None if self.face is None else self.face.landmarks.tolist()
        return {
            "path": self.path,
            "faces": found,
            "box": box,
            "landmarks": marks,
            "score": self.face.score if self.face else None,
        }


@dataclass(frozen=True)
class Comparison:
    """Two photos and the squared distance of their faces."""

    a: Photo
    b: Photo
    sq_dist: float
    threshold: float

    @property
    def same(self) -> bool:
        """Whether they count as one person."""
        return self.sq_dist <= self.threshold

    @property
    def verdict(self) -> str:
        """In words."""
        return "one person" if self.same else "two people"

    def draw(self, file: str | Path) -> None:
        """Write both crops side by side as PNG, framed green for one person and red for two."""
        frame = GREEN if self.same else RED
        tiles = [Tile(photo.pixels, [Path(photo.path).name], frame) for photo in (self.a, self.b)]
        draw(file, self.verdict, [Row(f"sq_dist {self.sq_dist:.4f}, threshold {self.threshold:.4f}", tiles)])


def compare_photos(encoder: Encoder, a: str | Path, b: str | Path, *, threshold: float) -> Comparison:
    """Embed the meant face of each photo and measure the squared distance between them, in [0, 4].

    Raises:
        ConfigError: a threshold outside [0, 4].
        NoFace: a photo without a usable face, if the encoder's preprocessing looks for one.
        DataError: a photo that can not be read.
    """
    if not 0 <= threshold <= 4:
        raise ConfigError(f"threshold: expected a squared L2 distance in [0, 4], got {threshold}")
    one, other = (_photo(encoder, path) for path in (a, b))
    ready = encoder.preprocess.of(encoder.preprocess.align)  # these pixels are cut already
    first, second = encoder.embed_batch(ready([one.pixels, other.pixels]))
    return Comparison(one, other, float(sq_dist(first[None], second[None])[0]), threshold)


def _photo(encoder: Encoder, path: str | Path) -> Photo:
    picture, align = read_picture(path), encoder.preprocess.align
    if align is None:
        return Photo(str(path), np.asarray(picture), None, None)
    faces = find_faces(np.asarray(picture))
    try:
        face = align.choose(faces, picture.size)
    except NoFace as error:
        raise NoFace(f"{path}: {error}; give a photo that shows the face larger, or detector=none for a crop") from None
    return Photo(str(path), np.asarray(align.crop(picture, face)), faces, face)
