"""Photo to aligned face: a similarity transform puts five landmarks where a network expects them.

Coordinates are (x, y) in pixels of the upright picture; the centre of its first pixel is at 0.5.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from PIL import Image

from facenet.errors import ConfigError, DataError
from facenet.faces.detector import Face, find_faces
from facenet.faces.options import ALL, DETECTORS, PICKS, AlignOptions
from facenet.options import build, option

# Where a 112x112 crop has the eye on the left and on the right of the picture, the tip of the nose and the corners of
# the mouth: Deng et al., ArcFace (2019); SFace was trained on this template too.
ARCFACE = ((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041))
ARCFACE_SIDE = 112
NEARLY_BEST = (
    0.05  # how far below a photo's best score a prominent face may score: mugs and hands score lower than faces
)


class NoFace(DataError):
    """A picture has no usable face."""


@dataclass(frozen=True, kw_only=True)
class Alignment(AlignOptions):
    """How a face is cut out of a photo; an encoder carries it as a part of its preprocessing.

    With the detector "none" a picture is such a cut face already.
    """

    detector: str = option("yunet", choices=DETECTORS, help="finds the faces; none: they are cut already")
    pick: str = option("prominent", choices=(*PICKS, ALL), help="the meant face of several; all: see align_folder")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Alignment:
        """Rebuild from :meth:`to_dict`; an unknown or missing key or a wrong value raises ConfigError."""
        names = [item.name for item in fields(cls)]
        if set(values) != set(names):
            raise ConfigError(f"alignment: expected the keys {sorted(names)}, got {sorted(values)}")
        return build(cls, values, "alignment.")

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    def cut(self, picture: Image.Image) -> Image.Image:
        """Find the face of an upright RGB picture and return it aligned, (size, size).

        With the detector "none" the picture is returned as it is.

        Raises:
            NoFace: no face is large and clear enough; the message says what was found.
        """
        if self.detector == "none":
            return picture
        faces = find_faces(np.asarray(picture))
        return self.crop(picture, self.choose(faces, picture.size))

    def why_unusable(self, face: Face) -> str:
        """Return why a face can not be used, or an empty string."""
        if face.score < self.score:  # rounded down: 0.59996 is not 0.6
            return f"doubtful (score {math.floor(face.score * 1e4) / 1e4:.4f}, at least {self.score:g} wanted)"
        if face.side < self.min_face:
            return f"too small ({math.floor(face.side)} pixels, at least {self.min_face} wanted)"
        return ""

    def choose(self, faces: Sequence[Face], size: tuple[int, int]) -> Face:
        """Return the face that `pick` means in a picture of `size` (W, H); "all" means the prominent one here.

        A prominent face scores at most :data:`NEARLY_BEST` below the best usable face of the picture. The nearness to
        the centre is 1 there and 0 in a corner.

        Raises:
            NoFace: no face, or none that is usable.
        """
        usable = [face for face in faces if not self.why_unusable(face)]
        if not usable:
            if not faces:
                raise NoFace("no face found")
            raise NoFace(f"no face found but one that is {self.why_unusable(max(faces, key=lambda face: face.score))}")
        middle = np.array(size) / 2

        def off(face: Face) -> float:
            """Distance from the picture's centre, 1 in its corners."""
            return float(np.hypot(*(face.centre - middle)) / np.hypot(*middle))

        if self.pick == "center":
            return min(usable, key=off)
        if self.pick == "largest":
            return max(usable, key=lambda face: face.box[2] * face.box[3])
        best = max(face.score for face in usable)
        likely = [face for face in usable if face.score >= best - NEARLY_BEST]
        return max(likely, key=lambda face: max(face.box[2:]) * (1 - off(face)))

    def __str__(self) -> str:
        """Return how large the cut is, as in "2 times the arcface template"."""
        return f"{self.margin:g} times the {self.template} template"

    def within(self, wider: Alignment) -> float | None:
        """Return which central share of the side of a face cut by `wider` is the face that this alignment cuts.

        Both templates lie around the centre of the cut face, so the share is margin / margin of `wider`. Where `wider`
        does not hold the face (another template, a smaller margin) there is None.
        """
        share = self.margin / wider.margin
        return min(share, 1.0) if self.template == wider.template and share < 1 + 1e-9 else None

    def crop(self, picture: Image.Image, face: Face) -> Image.Image:
        """Cut a face out of an upright RGB picture: (size, size), black beyond its borders."""
        turn, shift = self.transform(face)
        return _warp(picture, turn, shift, self.size)

    def transform(self, face: Face) -> tuple[complex, complex]:
        """Return a, b of the map z -> a z + b from the picture (z = x + i y) to the crop."""
        if self.template == "box":
            scale = self.size / (max(face.box[2:]) * self.margin)
            return complex(scale), complex(self.size / 2) * (1 + 1j) - scale * complex(*face.centre)
        middle = ARCFACE_SIDE / 2
        wanted = ((np.array(ARCFACE) - middle) / self.margin + middle) * (self.size / ARCFACE_SIDE)
        return similarity(face.landmarks, wanted)


def similarity(source: np.ndarray, target: np.ndarray) -> tuple[complex, complex]:
    """Fit a, b of z -> a z + b (turn, scale and shift, no mirroring) from points (n, 2) to others: least squares.

    With centred z and w: a = sum(conj(z) w) / sum(|z|^2), b = mean(w) - a mean(z) (Umeyama 1991, in the plane).
    """
    z, w = (points @ np.array([1, 1j]) for points in (source, target))
    centred = z - z.mean()
    a = complex(np.vdot(centred, w - w.mean()) / max(float(np.vdot(centred, centred).real), 1e-12))
    return a, complex(w.mean() - a * z.mean())


def _warp(picture: Image.Image, a: complex, b: complex, size: int) -> Image.Image:
    """Apply z -> a z + b, bicubic; a picture that shrinks is resized first, which averages and so avoids aliasing."""
    corners = (np.array([0, size, size * 1j, size * (1 + 1j)]) - b) / a
    left, top = (math.floor(part.min()) - 2 for part in (corners.real, corners.imag))
    right, bottom = (math.ceil(part.max()) + 2 for part in (corners.real, corners.imag))
    left, top, right, bottom = max(left, 0), max(top, 0), min(right, picture.width), min(bottom, picture.height)
    if right <= left or bottom <= top:
        return Image.new("RGB", (size, size))
    part = picture.crop((left, top, right, bottom))
    wide, high = part.size
    if abs(a) < 1:
        smaller = max(1, round(wide * abs(a))), max(1, round(high * abs(a)))
        part = part.resize(smaller, Image.Resampling.BILINEAR)
    x, y = part.width / wide, part.height / high
    back = 1 / a
    origin = -(b + a * complex(left, top)) * back
    matrix = (x * back.real, -x * back.imag, x * origin.real, y * back.imag, y * back.real, y * origin.imag)
    return part.transform((size, size), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)
