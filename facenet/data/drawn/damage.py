"""What spoils a frame of a drawn track: blur, a cover over a third to two thirds of it, darkness with noise.

Letters: H = W side in pixels.
"""

from __future__ import annotations

import numpy as np
from PIL import Image


def spoil(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Damage one frame (H, W, 3) uint8 beyond easy recognition: blur it, cover it, or make it dark and noisy."""
    return DAMAGE[int(rng.integers(len(DAMAGE)))](image, rng)


def blur(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Scale down to 6 to 12 pixels and up again, or smear by a fifth to two fifths of the width."""
    side = len(image)
    if rng.random() < 0.5:
        small = int(rng.integers(6, 13))
        picture = Image.fromarray(image).resize((small, small), Image.Resampling.BOX)
        return np.asarray(picture.resize((side, side), Image.Resampling.BILINEAR))
    reach, axis = int(side * rng.uniform(0.2, 0.4)), int(rng.integers(2))
    shifted = [np.roll(image, step - reach // 2, axis) for step in range(reach)]
    return np.mean(shifted, 0).astype(np.uint8)


def cover(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Paint a third to two thirds of the picture over: a bar from one of its sides, or a patch in the middle."""
    side, share = len(image), rng.uniform(1 / 3, 2 / 3)
    out = image.copy()
    place = int(rng.integers(5))
    width = round(side * share)
    if place == 4:
        width = round(side * share**0.5)
        top, left = rng.integers(0, side - width + 1, 2)
        part = out[top : top + width, left : left + width]
    else:
        part = (out[:width], out[side - width :], out[:, :width], out[:, side - width :])[place]
    part[:] = np.clip(rng.uniform(0, 255, 3) + rng.normal(0, 12, part.shape), 0, 255)
    return out


def darken(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Take away 75 to 92 % of the light and add the noise of a sensor pushed to its end."""
    gain, noise = rng.uniform(0.08, 0.25), rng.uniform(10, 30)
    return np.clip(image * gain + rng.normal(0, noise, image.shape), 0, 255).astype(np.uint8)


DAMAGE = (blur, cover, darken)
