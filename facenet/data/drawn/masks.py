"""Soft masks, colours and paint for drawn faces; letters and units as in :mod:`.render`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

Params = dict[str, np.ndarray]


class Frame(NamedTuple):
    """Where each pixel of B pictures lies on the head, in units of half the head's height."""

    x: np.ndarray  # (B, H, W) in the picture plane, upright with the head
    y: np.ndarray
    u: np.ndarray  # (B, H, W) on the face as seen from the front, without the pose
    v: np.ndarray
    radius: np.ndarray  # (B, H, W) 1 on the outline of the head, less inside
    side: np.ndarray  # (B, H, W) x as a share of the head's half width
    lamp: np.ndarray  # (B, H, W) brightness change under the directional light
    px: np.ndarray  # (B, 1, 1) length of a pixel

    def rows(self, rows: np.ndarray) -> Frame:
        """Return the frame of some of the pictures."""
        return Frame(*(part[rows] for part in self))


def soft(sd: np.ndarray, px: np.ndarray) -> np.ndarray:
    """Mask of a signed distance (negative inside) with an edge `px` wide."""
    mask: np.ndarray = np.clip(0.5 - sd / px, 0, 1)
    return mask


def smooth(x: np.ndarray, low: float | np.ndarray, high: float | np.ndarray) -> np.ndarray:
    """Cubic step from 0 at `low` to 1 at `high`."""
    t = np.clip((x - low) / (high - low), 0, 1)
    mask: np.ndarray = t * t * (3 - 2 * t)
    return mask


def bump(square: np.ndarray) -> np.ndarray:
    """Soft spot of a squared radius: 1 at 0, 0 from 1 on."""
    mask: np.ndarray = np.square(np.clip(1 - square, 0, 1))
    return mask


def paint(picture: np.ndarray, mask: np.ndarray, shade: np.ndarray) -> None:
    """Lay `shade` (B, 3, H or 1, W or 1) over the picture where the mask is 1."""
    picture += mask[:, None] * (shade - picture)


def colour(p: Params, name: str) -> np.ndarray:
    """Gather the parameters name_r, name_g and name_b into (B, 3, 1, 1)."""
    return np.stack([p[f"{name}_r"], p[f"{name}_g"], p[f"{name}_b"]], 1)


def skin_colour(p: Params) -> np.ndarray:
    """Skin from light to dark by `skin_dark`, yellower or redder by `skin_warm`: (B, 3, 1, 1)."""
    dark, warm = p["skin_dark"], p["skin_warm"]
    red = 0.93 * (1 - 0.48 * dark)
    green, blue = 0.80 - 0.09 * dark - 0.04 * warm, 0.68 - 0.15 * dark - 0.09 * warm
    return np.stack([red, red * green, red * blue], 1)
