"""How good a face is: size, sharpness and frontality, and the gate that a face passes before it is enrolled.

One bad face in a gallery can match strangers, or miss its own person, for as long as it stays there.
docs/results/enrolment.md says how much each measure tells.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np
from PIL import Image

from facenet.faces.detector import Face
from facenet.faces.options import Gate

SIDE = 64  # pixels of the square on which sharpness is measured
COARSE, FINE, FINEST = 1.0, 10.0, 20.0  # cycles a side: structure from the first to the second, detail to the third


class Quality(NamedTuple):
    """What was measured of one face; None: there was no detection to measure it from."""

    side: float  # pixels of the shorter side of its box in the picture; of the crop if nothing was detected
    sharpness: float  # see measure_sharpness
    frontality: float | None  # see measure_frontality
    score: float | None  # of the detection, in [0, 1]


class Reason(NamedTuple):
    """Why a face fails the gate."""

    code: str  # too_small, too_blurred, turned_away, doubtful
    message: str  # one sentence: what was measured, the limit, what to do


def measure_quality(face: Face | None, crop_pixels: np.ndarray, *, margin: float = 1.0) -> Quality:
    """Measure a detected face and its aligned crop (h, w, 3) uint8 RGB of any size.

    Args:
        face: The detection; None if the picture is a face already. Frontality and score are None then.
        crop_pixels: What the alignment cut, before the network's own resizing.
        margin: Side of the crop over that of the template (:class:`~facenet.faces.options.AlignOptions`). Sharpness is
            measured on the central part that the template covers, so crops of any margin compare.
    """
    height, width = crop_pixels.shape[:2]
    if face is None:
        return Quality(float(min(height, width)), measure_sharpness(crop_pixels), None, None)
    across, down = round(width * (1 - 1 / max(margin, 1.0)) / 2), round(height * (1 - 1 / max(margin, 1.0)) / 2)
    centre = crop_pixels[down : height - down, across : width - across]
    frontality = measure_frontality(face.landmarks)
    return Quality(float(face.side), measure_sharpness(centre), frontality, float(face.score))


def measure_sharpness(pixels: np.ndarray) -> float:
    """Return sqrt(power of detail / power of coarser structure) of a face (h, w, 3) uint8 RGB; 0 for one flat colour.

    The face is made grey, resized to 64x64 and multiplied by a Hann window. Detail has 10 to 20 cycles a side, coarser
    structure 1 to 10. Light and contrast cancel; noise lies mostly above the band. Blur and enlarging empty the band;
    JPEG fills it with its own edges, so JPEG is not seen.
    """
    grey = Image.fromarray(pixels).convert("L")
    if grey.size != (SIDE, SIDE):
        grey = grey.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    window, coarse, fine = _bands()
    values = np.asarray(grey, np.float64)
    power = np.abs(np.fft.rfft2((values - values.mean()) * window)) ** 2
    whole = float(power[coarse].sum())
    return math.sqrt(float(power[fine].sum()) / whole) if whole > 1e-6 else 0.0


@functools.lru_cache(maxsize=1)
def _bands() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the window (64, 64), and masks of the coarse and the fine band in a half spectrum (64, 33)."""
    slope = np.hanning(SIDE)
    cycles = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None]) * SIDE
    return np.outer(slope, slope), (cycles >= COARSE) & (cycles < FINE), (cycles >= FINE) & (cycles < FINEST)


def measure_frontality(landmarks: np.ndarray) -> float:
    """Return 1 for a face that looks into the camera, falling to 0 if its nose is below one of its eyes.

    Frontality = max(0, 1 - 2 |offset|). The offset is that of the nose from the mean of eyes and mouth corners, along
    the line of the eyes, over the distance of the eyes. Turning the picture does not change it; nor does a nod.

    Args:
        landmarks: (5, 2) in the order of :data:`facenet.faces.alignment.ARCFACE`.
    """
    eye, other, nose, corner, far_corner = landmarks @ np.array([1, 1j])
    across = other - eye
    if abs(across) < 1e-9:  # both eyes in one place: a face from the side
        return 0.0
    offset = (nose - (eye + other + corner + far_corner) / 4) / across
    return max(0.0, 1 - 2 * abs(float(offset.real)))


def shortcomings(quality: Quality, gate: Gate) -> list[Reason]:
    """Return why a face fails the gate: empty if it passes, or if the gate's action is off.

    A limit of 0 is no limit, and what was not measured is not judged.
    """
    if gate.action == "off":
        return []
    checks = (
        ("too_small", quality.side, gate.min_side, "the face has {} pixels on its shorter side, at least {} are wanted;"
         " take a photo from nearer, or use the original instead of a reduced copy"),
        ("too_blurred", quality.sharpness, gate.min_sharpness, "the face has sharpness {}, at least {} is wanted; use a"
         " photo in focus, with more light and a steady camera"),
        ("turned_away", quality.frontality, gate.min_frontality, "the face has frontality {}, at least {} is wanted;"
         " use a photo in which the person looks towards the camera"),
        ("doubtful", quality.score, gate.min_score, "the face was detected with score {}, at least {} is wanted; check"
         " that it is a face, and use a photo in which nothing covers it"),
    )  # fmt: skip
    return [
        Reason(code, text.format(_rounded_down(value, 1 if code == "too_small" else 1000), f"{limit:g}"))
        for code, value, limit, text in checks
        if value is not None and value < limit
    ]


def _rounded_down(value: float, steps: int) -> str:
    """Return a number rounded down to 1 / steps, so that 0.7996 is not told as 0.8."""
    return f"{math.floor(value * steps) / steps:g}"
