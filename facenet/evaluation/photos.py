"""Two photos, one person? Their faces, the distance between them, and a verdict at a calibrated threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from facenet.data.pictures import read_picture, why
from facenet.encoders.encoder import Encoder
from facenet.encoders.photos import CutFace, embed_faces, see_photo
from facenet.errors import ConfigError, DataError
from facenet.evaluation.sheets import GREEN, RED, Row, Tile, draw
from facenet.faces.alignment import NoFace
from facenet.faces.detector import Face
from facenet.types import Progress
from facenet.vectors import sq_dist


@dataclass(frozen=True)
class Photo:
    """A photo, the faces found in it and the pixels that the encoder was given."""

    path: str
    cut: CutFace
    faces: list[Face] | None  # the usable ones; None: not looked for

    @property
    def pixels(self) -> np.ndarray:
        """The crop, (H, W, 3) uint8."""
        return self.cut.pixels

    @property
    def face(self) -> Face | None:
        """The meant face; None: not looked for."""
        return self.cut.face

    def summary(self) -> str:
        """What was found, in words."""
        if self.faces is None or self.face is None:
            return "the picture is taken for a face"
        left, top, width, height = (round(value) for value in self.face.box)
        place = f"{width} x {height} pixels at ({left}, {top}), score {self.face.score:.2f}"
        return f"1 face, {place}" if len(self.faces) == 1 else f"{len(self.faces)} faces, taken: {place}"

    @property
    def others(self) -> str:
        """A warning if the photo shows several faces, of which one was taken; else an empty string."""
        several = self.faces is not None and len(self.faces) > 1
        return f"{self.summary()}; cut the photo if another one is meant" if several else ""

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
        return _verdict(self.same)

    def draw(self, file: str | Path) -> None:
        """Write both crops side by side as PNG, framed green for one person and red for two."""
        frame = GREEN if self.same else RED
        tiles = [Tile(photo.pixels, [Path(photo.path).name], frame) for photo in (self.a, self.b)]
        draw(file, self.verdict, [Row(f"sq_dist {self.sq_dist:.4f}, threshold {self.threshold:.4f}", tiles)])


class Verdict(NamedTuple):
    """A line of :func:`compare_table`."""

    first: str
    second: str
    sq_dist: float | None  # None: not compared
    verdict: str  # "one person", "two people", or "not compared"
    note: str = ""  # why not, or that a photo shows several faces


def compare_photos(encoder: Encoder, a: str | Path, b: str | Path, *, threshold: float) -> Comparison:
    """Embed the meant face of each photo and measure the squared distance between them, in [0, 4].

    Raises:
        ConfigError: a threshold outside [0, 4].
        NoFace: a photo without a usable face, if the encoder's preprocessing looks for one.
        DataError: a photo that can not be read.
    """
    _check(threshold)
    one, other = (read_photo(encoder, path) for path in (a, b))
    first, second = embed_photos(encoder, [one, other])
    return Comparison(one, other, float(sq_dist(first[None], second[None])[0]), threshold)


def compare_table(
    encoder: Encoder,
    pairs: Sequence[tuple[str, str]],
    *,
    root: str | Path = "",
    threshold: float,
    progress: Progress | None = None,
) -> list[Verdict]:
    """Compare the photos of many pairs, whose paths are relative to `root`; each photo is read once.

    A photo that can not be used costs its own pairs only: their note says why.

    Raises:
        ConfigError: a threshold outside [0, 4].
    """
    _check(threshold)
    names = list(dict.fromkeys(name for pair in pairs for name in pair))
    vectors: dict[str, np.ndarray] = {}
    notes: dict[str, str] = {}
    if progress:
        progress(0, len(names))
    for done, name in enumerate(names, 1):
        path = Path(root) / name
        try:
            photo = read_photo(encoder, path)
            vectors[name], notes[name] = embed_photos(encoder, [photo])[0], photo.others and f"{name}: {photo.others}"
        except DataError as error:
            notes[name] = f"{name}: {why(error, path)}"
        if progress:
            progress(done, len(names))
    found = []
    for one, other in pairs:
        note = "; ".join(dict.fromkeys(notes[name] for name in (one, other) if notes[name]))
        if one in vectors and other in vectors:
            distance = float(sq_dist(vectors[one][None], vectors[other][None])[0])
            found.append(Verdict(one, other, distance, _verdict(distance <= threshold), note))
        else:
            found.append(Verdict(one, other, None, "not compared", note))
    return found


def _check(threshold: float) -> None:
    if not 0 <= threshold <= 4:
        raise ConfigError(f"threshold: expected a squared L2 distance in [0, 4], got {threshold}")


def _verdict(same: bool) -> str:
    return "one person" if same else "two people"


def embed_photos(encoder: Encoder, photos: Sequence[Photo]) -> np.ndarray:
    """Embed the meant faces: (N, D)."""
    return embed_faces(encoder, [photo.cut for photo in photos])


def read_photo(encoder: Encoder, source: str | Path) -> Photo:
    """Read a photo, look for faces as the encoder's preprocessing does, and cut the meant one out.

    Raises:
        NoFace: no usable face, if the preprocessing looks for one.
        DataError: the photo can not be read.
    """
    seen = see_photo(encoder, read_picture(source), most=1)
    if seen.meant is None:
        raise NoFace(f"{source}: {seen.problem}; give a photo that shows the face larger, or detector=none for a crop")
    return Photo(str(source), seen.faces[seen.meant], list(seen.usable) or None)
