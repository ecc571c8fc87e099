"""Ways to make an image worse by a known amount: JPEG files, fewer pixels, blur, noise, covers, darkness and glare.

Each takes the pixels (h, w, 3) uint8 of a cropped face, a level in a unit of its own and random numbers, and returns
pixels of its own; what it is given is never written to.
Source: Schroff et al. 2015, Table 4, for JPEG quality and image size; the other kinds are ours.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from facenet.errors import ConfigError, choose


def jpeg(image: np.ndarray, level: float, _: np.random.Generator) -> np.ndarray:
    """Write and read (h, w, 3) as a JPEG file of quality `level` (libjpeg's scale, colours at half resolution)."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=int(level), subsampling="4:2:0")
    with Image.open(file) as picture:
        return np.asarray(picture)


def pixels(image: np.ndarray, level: float, _: np.random.Generator) -> np.ndarray:
    """Shrink (h, w, 3) to about `level` pixels in all, aspect kept: sides h s and w s, s = sqrt(level / (h w)).

    An image that has no more pixels than that is returned as it is: enlarging adds no detail.
    """
    height, width = image.shape[:2]
    scale = math.sqrt(level / (height * width))
    if scale >= 1:
        return image
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))


def blur(image: np.ndarray, level: float, _: np.random.Generator) -> np.ndarray:
    """Blur by a Gaussian with a standard deviation of `level` % of the shorter side (PIL's, three box filters)."""
    sigma = level / 100 * min(image.shape[:2])
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(sigma)))


def noise(image: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """Add to each value independent Gaussian noise with a standard deviation of `level` % of the range [0, 255]."""
    added = rng.standard_normal(image.shape, np.float32) * (level / 100 * 255)
    return np.clip(np.rint(image + added), 0, 255).astype(np.uint8)


def occlusion(image: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """Cover `level` % of the area by a rectangle of the image's shape and one colour, both place and colour random.

    With the same random numbers a larger rectangle covers a smaller one, to a pixel.
    """
    height, width = image.shape[:2]
    covered = round(height * math.sqrt(level / 100))
    across = min(width, round(level / 100 * height * width / covered)) if covered else 0
    (down, right), colour = rng.random(2), rng.integers(0, 256, 3)
    top, left = round(down * (height - covered)), round(right * (width - across))
    out = image.copy()
    out[top : top + covered, left : left + across] = colour
    return out


def brightness(image: np.ndarray, level: float, _: np.random.Generator) -> np.ndarray:
    """Multiply the light by 2^level (`level` stops), clipped where the range ends; values are sRGB, light is linear."""
    value = np.arange(256) / 255
    light = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4) * 2.0**level
    seen = np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.maximum(light, 0.0031308) ** (1 / 2.4) - 0.055)
    return np.rint(255 * np.minimum(seen, 1)).astype(np.uint8)[image]


class Kind(NamedTuple):
    """A way to make an image worse."""

    change: Callable[[np.ndarray, float, np.random.Generator], np.ndarray]
    levels: tuple[float, ...]  # the default ones, from mild to severe, or from dark to bright
    low: float  # the smallest and
    high: float  # the largest level there can be
    unit: str  # of a level
    whole: bool = False  # levels are whole numbers
    paper: Mapping[float, float] = {}  # level -> VAL at FAR 1e-3 of NN1 on the paper's private hold-out set, Table 4


KINDS: dict[str, Kind] = {
    "jpeg": Kind(
        jpeg,
        levels=(90, 70, 50, 30, 20, 10),
        low=1,
        high=100,
        unit="JPEG quality",
        whole=True,
        paper={10: 0.673, 20: 0.814, 30: 0.839, 50: 0.855, 70: 0.861, 90: 0.865},
    ),
    "pixels": Kind(
        pixels,
        levels=(65_536, 25_600, 14_400, 6_400, 1_600),
        low=1,
        high=1e9,
        unit="pixels of the face",
        whole=True,
        paper={1_600: 0.378, 6_400: 0.795, 14_400: 0.845, 25_600: 0.857, 65_536: 0.864},
    ),
    "blur": Kind(blur, levels=(1, 2, 4, 8), low=0, high=100, unit="deviation, % of the shorter side"),
    "noise": Kind(noise, levels=(2, 5, 10, 20, 40), low=0, high=1000, unit="deviation, % of the value range"),
    "occlusion": Kind(occlusion, levels=(5, 10, 20, 30, 50), low=0, high=100, unit="% of the area covered"),
    "brightness": Kind(brightness, levels=(-4, -3, -2, -1, 1, 2, 3), low=-16, high=16, unit="stops of light"),
}


@dataclass
class Degraded:
    """One kind at one level: what :func:`facenet.encoders.embed_changed` applies.

    Random numbers depend on the seed and the image's key alone, so neither on order or batch nor on the level: the
    curve of a kind shows the level and not the luck. `unchanged` gathers the keys of images left as they are.
    """

    kind: str
    level: float
    seed: int = 0
    unchanged: set[str] = field(default_factory=set)

    def __call__(self, image: np.ndarray, key: str) -> np.ndarray:
        """Return the changed pixels of (h, w, 3) uint8, perhaps of another size."""
        number = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=16).digest(), "big")
        changed = KINDS[self.kind].change(image, self.level, np.random.default_rng([self.seed, number]))
        if changed is image:
            self.unchanged.add(key)
        return changed


def plan(
    kinds: Sequence[str] | None = None, levels: Mapping[str, Sequence[float] | None] | None = None, seed: int = 0
) -> list[Degraded]:
    """List the changes: each kind (None: all) at each of its levels, or at those that `levels` gives it.

    Raises:
        ConfigError: an unknown kind, no kind or level, a level out of range, or a negative seed.
    """
    given = {name: values for name, values in (levels or {}).items() if values is not None}
    names = list(KINDS) if kinds is None else list(dict.fromkeys(kinds))
    for what, listed in (("kinds", names), ("levels", given)):
        for name in listed:
            choose(KINDS, name, what)
    if not names or not all(len(values) for values in given.values()):
        raise ConfigError("kinds, levels: expected at least one of each, got an empty list; leave it out for all")
    if seed < 0:
        raise ConfigError(f"seed: expected a number of at least 0, got {seed}")
    for name, values in given.items():  # also of kinds that are left out
        for level in values:
            _checked(name, level)
    return [
        Degraded(name, _checked(name, level), seed)
        for name in names
        for level in dict.fromkeys(given.get(name, KINDS[name].levels))
    ]


def _checked(name: str, level: float) -> float:
    kind = KINDS[name]
    if not kind.low <= level <= kind.high or (kind.whole and level != int(level)):
        number = "a whole number" if kind.whole else "a number"
        raise ConfigError(
            f"levels.{name}: expected {number} from {kind.low:g} to {kind.high:g} ({kind.unit}), got {level:g}"
        )
    return level
