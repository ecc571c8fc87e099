"""Pictures drawn for tests."""

from __future__ import annotations

import numpy as np


def picture(height: int = 60, width: int = 80) -> np.ndarray:
    """A smooth ramp: red grows to the right, green downwards."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return np.stack([x, y, np.full_like(x, 90)], -1).astype(np.uint8)
