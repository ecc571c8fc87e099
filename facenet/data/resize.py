"""Antialiased bilinear resizing of 8-bit pictures, by torch or by numpy: the same pixels to the last bit.

A triangle filter as wide as the reduction averages the pixels, columns first, then rows. Weights are whole numbers of
at most 15 bits, and each pass is rounded to 8 bits: torch's rule for uint8 pictures since version 2.1.
"""

from __future__ import annotations

import sys

import numpy as np

WEIGHT_BITS = 15
MOST_BITS = 22


def resize(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize (h, w, 3) uint8 to (H, W, 3) uint8 with `size` (H, W); the picture itself if it has that size.

    torch's kernel is several times faster and is taken if torch is loaded already. It is not loaded for this.
    """
    if pixels.shape[:2] == tuple(size):
        return pixels
    return resize_by_torch(pixels, size) if "torch" in sys.modules else resize_by_numpy(pixels, size)


def resize_by_torch(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Do as :func:`resize` with torch's kernel."""
    import torch

    picture = torch.from_numpy(np.require(pixels, requirements=["C", "W"])[None]).permute(0, 3, 1, 2)
    found = torch.nn.functional.interpolate(picture, tuple(size), mode="bilinear", antialias=True)
    return found.permute(0, 2, 3, 1)[0].numpy()


def resize_by_numpy(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Do as :func:`resize` with numpy alone."""
    height, width = size
    if pixels.shape[1] != width:
        pixels = _resize_rows(np.ascontiguousarray(pixels.transpose(1, 0, 2)), width).transpose(1, 0, 2)
    return _resize_rows(np.ascontiguousarray(pixels), height) if pixels.shape[0] != height else pixels


def _resize_rows(pixels: np.ndarray, count: int) -> np.ndarray:
    """Average the rows of (n, m, 3) uint8 to (count, m, 3) uint8."""
    rows = pixels.reshape(len(pixels), -1)
    first, weights, bits = _weights(len(rows), count)
    total = np.empty((count, rows.shape[1]))
    for row, start in enumerate(first.tolist()):
        # whole numbers below 2^53: sums are exact in any order. All rows at once would take 300 MB of a photograph
        part = rows[start : start + weights.shape[1]].astype(np.float64)
        np.matmul(weights[row, : len(part)], part, out=total[row])
    total += 1 << (bits - 1)  # half, so that cutting off rounds
    total /= 1 << bits
    return total.clip(0, 255).astype(np.uint8).reshape(count, *pixels.shape[1:])


def _weights(given: int, wanted: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Return the first row (wanted,) that counts for each new one, whole weights (wanted, taps), and their bits."""
    scale = given / wanted
    support = max(scale, 1.0)
    centre = scale * (np.arange(wanted) + 0.5)
    first = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    last = np.minimum((centre + support + 0.5).astype(np.int64), given)
    taps = np.arange(int(np.ceil(support)) * 2 + 1)
    away = np.abs((taps + first[:, None] - centre[:, None] + 0.5) / support)
    weights = np.where(taps < (last - first)[:, None], np.maximum(1 - away, 0), 0.0)
    weights /= weights.cumsum(1)[:, -1:]  # added from left to right
    bits = 0
    while bits < MOST_BITS and int(0.5 + weights.max() * (1 << (bits + 1))) < 1 << WEIGHT_BITS:
        bits += 1
    used = weights.any(0).sum()
    return first, np.floor(weights[:, :used] * (1 << bits) + 0.5), bits
