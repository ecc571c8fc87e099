"""Regions of a picture that a network reads: which part, and at which size. Needs no torch.

Several views of one picture lie below each other in a tall one, so that they travel as a single array. A narrower view
lies in the middle of the width, since a mirror image is taken of the whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from facenet.data.resize import resize
from facenet.errors import ConfigError

MIDDLE = (0.5, 0.5)
# (factor of the side, shift down, shift right as shares of the side): the centre, two sizes, four shifts
STEPS = (
    (1.0, 0.0, 0.0),
    (0.92, 0.0, 0.0),
    (1.08, 0.0, 0.0),
    (1.0, -0.04, -0.04),
    (1.0, -0.04, 0.04),
    (1.0, 0.04, -0.04),
    (1.0, 0.04, 0.04),
)


@dataclass(frozen=True)
class View:
    """A part of a picture, resized.

    Attributes:
        size: (H, W) of the result, in pixels.
        crop: Side of the part as a share of the largest one of that aspect ratio; one above 1 reaches beyond the edges.
        centre: (y, x) of its middle, as shares of height and width.
    """

    size: tuple[int, int]
    crop: float = 1.0
    centre: tuple[float, float] = MIDDLE

    def __post_init__(self) -> None:
        """Check ranges; raises ConfigError."""
        if len(self.size) != 2 or not all(type(side) is int and side > 0 for side in self.size):
            raise ConfigError(f"size: expected (height, width) in pixels, got {self.size}")
        if not 0 < self.crop <= 2:
            raise ConfigError(f"crop: expected a share in (0, 2], got {self.crop}")
        if len(self.centre) != 2 or not all(0 <= place <= 1 for place in self.centre):
            raise ConfigError(f"centre: expected (y, x), shares of height and width in [0, 1], got {self.centre}")

    def region(self, pixels: np.ndarray) -> np.ndarray:
        """Return the part of a picture (h, w, 3), in its own pixels; beyond the edges these are repeated."""
        height, width = pixels.shape[:2]
        top, left, bottom, right = self.box(height, width)
        over = (max(0, -top), max(0, bottom - height)), (max(0, -left), max(0, right - width))
        if any(map(any, over)):
            pixels = np.pad(pixels, (*over, (0, 0)), mode="edge")
        down, across = over[0][0], over[1][0]
        return pixels[top + down : bottom + down, left + across : right + across]

    def box(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Return top, left, bottom, right of the part in a picture of (height, width) pixels."""
        aspect = self.size[0] / self.size[1]
        side = min(height / aspect, width) * self.crop  # width of the part, in pixels
        h, w = max(1, round(side * aspect)), max(1, round(side))
        if self.centre == MIDDLE:
            top, left = (height - h) // 2, (width - w) // 2
        else:
            top, left = round(self.centre[0] * height - h / 2), round(self.centre[1] * width - w / 2)
        return top, left, top + h, left + w

    def scaled(self, share: float) -> View:
        """Return the same part of a picture whose central `share` is the picture that this view is of."""
        y, x = (0.5 + (place - 0.5) * share for place in self.centre)
        return View(self.size, self.crop * share, MIDDLE if self.centre == MIDDLE else (y, x))

    def around(self, count: int) -> tuple[View, ...]:
        """Return this view and `count` - 1 others, a little larger, smaller or shifted."""
        y, x = self.centre
        return tuple(
            View(self.size, self.crop * factor, (y + down * self.crop, x + right * self.crop))
            for factor, down, right in STEPS[:count]
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {"size": list(self.size), "crop": self.crop, "centre": list(self.centre)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> View:
        """Rebuild from :meth:`to_dict`; missing or unknown keys raise TypeError."""
        plain: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        return cls(**plain)


def tall_size(views: Sequence[View]) -> tuple[int, int]:
    """Return the (H, W) of the picture that holds the views."""
    return sum(view.size[0] for view in views), max(view.size[1] for view in views)


def place(views: Sequence[View]) -> list[tuple[slice, slice]]:
    """Return the rows and columns of each view in the tall picture."""
    width, top, found = tall_size(views)[1], 0, []
    for view in views:
        left = (width - view.size[1]) // 2
        found.append((slice(top, top + view.size[0]), slice(left, left + view.size[1])))
        top += view.size[0]
    return found


def cut_views(pixels: np.ndarray, views: Sequence[View]) -> np.ndarray:
    """Return all views of a picture (h, w, 3) uint8 in one tall picture (H, W, 3)."""
    tall = np.zeros((*tall_size(views), 3), np.uint8)
    for view, (rows, columns) in zip(views, place(views), strict=True):
        tall[rows, columns] = resize(view.region(pixels), view.size)
    return tall
