"""Draw docs/pipeline.png, the picture of the README: python docs/pipeline.py. All faces are drawn by this project."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl

mpl.use("Agg")
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle
from PIL import Image

from facenet.data.drawn.faces import draw
from facenet.data.options import DrawnOptions

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE = 160  # pixels of a drawn face
INK, LINE, MATCH, STRANGER = "#1f2937", "#94a3b8", "#15803d", "#b91c1c"
KNOWN, UNKNOWN = 30, 21
GALLERY = (12, 30, 14, 37, 32, 7)
BOX = (0.2, 0.25, 0.6, 0.6)  # x, y, width, height of the face, as shares of the picture


def picture(person: int, number: int) -> np.ndarray:
    """Return one picture (H, W, 3) of a drawn person."""
    drawn = draw(range(person, person + 1), number + 1, DrawnOptions(size=SIZE, difficulty=0.25))
    return np.asarray(drawn.images[number])


def crop(image: np.ndarray) -> np.ndarray:
    """Return the face that the box cuts out."""
    x, y, width, height = (round(share * SIZE) for share in BOX)
    return image[y : y + height, x : x + width]


def vector(face: np.ndarray) -> np.ndarray:
    """Return 16 numbers of unit length that stand for an embedding: brightness of 4 x 4 cells, less their mean."""
    side = face.shape[0] // 4
    cells = face[: 4 * side, : 4 * side].mean(-1).reshape(4, side, 4, side).mean((1, 3)).ravel()
    cells = cells - cells.mean()
    return np.asarray(cells / np.linalg.norm(cells))


def tile(axes: Axes, image: np.ndarray, x: float, y: float, side: float, edge: str = LINE, width: float = 1.5) -> None:
    """Put an image with its lower left corner at (x, y)."""
    axes.imshow(image, extent=(x, x + side, y, y + side), interpolation="lanczos", zorder=2)
    axes.add_patch(Rectangle((x, y), side, side, fill=False, edgecolor=edge, linewidth=width, zorder=3))


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], color: str = INK) -> None:
    """Draw an arrow between two points."""
    style = "-|>,head_length=7,head_width=4"
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle=style, linewidth=2.4, color=color, shrinkA=0, shrinkB=0))


def bars(axes: Axes, values: np.ndarray, x: float, y: float) -> None:
    """Draw a vector as a column of coloured cells."""
    cells = values.reshape(-1, 2)
    axes.imshow(cells, extent=(x, x + 0.62, y, y + 1.7), cmap="RdBu", vmin=-0.5, vmax=0.5, aspect="auto", zorder=2)
    axes.add_patch(Rectangle((x, y), 0.62, 1.7, fill=False, edgecolor=LINE, linewidth=1.5, zorder=3))


def query(axes: Axes, person: int, number: int, y: float) -> None:
    """Draw a photo, its face and its vector in one row."""
    image = picture(person, number)
    tile(axes, image, 0.2, y, 1.7)
    x, top, width, height = BOX
    frame = (0.2 + 1.7 * x, y + 1.7 * (1 - top - height))
    axes.add_patch(Rectangle(frame, 1.7 * width, 1.7 * height, fill=False, edgecolor="#facc15", linewidth=3, zorder=4))
    arrow(axes, (2.0, y + 0.85), (2.5, y + 0.85))
    tile(axes, crop(image), 2.6, y + 0.25, 1.2)
    arrow(axes, (3.9, y + 0.85), (4.4, y + 0.85))
    bars(axes, vector(crop(image)), 4.5, y)
    arrow(axes, (5.22, y + 0.85), (5.72, y + 0.85))


def verdict(axes: Axes, y: float, title: str, line: str, color: str) -> None:
    """Draw the answer to one query."""
    arrow(axes, (8.78, y + 0.85), (9.28, y + 0.85), color)
    box = FancyBboxPatch((9.5, y + 0.2), 2.3, 1.3, "round,pad=0.1,rounding_size=0.15", color=color, zorder=1)
    axes.add_patch(box)
    axes.text(10.65, y + 1.08, title, color="white", ha="center", va="center", fontsize=23, weight="bold")
    axes.text(10.65, y + 0.55, line, color="white", ha="center", va="center", fontsize=18)


def main() -> None:
    """Draw the picture."""
    figure, axes = plt.subplots(figsize=(12, 5.2), dpi=110)
    axes.set(xlim=(0, 12), ylim=(0, 5.2))
    axes.axis("off")
    figure.subplots_adjust(0, 0, 1, 1)
    for x, name in ((1.05, "photo"), (3.2, "face"), (4.81, "vector"), (7.25, "gallery"), (10.65, "verdict")):
        axes.text(x, 4.8, name, color=INK, ha="center", va="center", fontsize=24, weight="bold")
    query(axes, KNOWN, 3, 2.6)
    query(axes, UNKNOWN, 0, 0.35)
    axes.add_patch(
        FancyBboxPatch((5.95, 0.4), 2.6, 3.85, "round,pad=0.1,rounding_size=0.15", fc="#f1f5f9", ec=LINE, lw=1.5)
    )
    for number, person in enumerate(GALLERY):
        x, y = 6.0 + 1.3 * (number % 2), 3.05 - 1.3 * (number // 2)
        found = person == KNOWN
        tile(axes, picture(person, 0), x, y, 1.2, MATCH if found else LINE, 5 if found else 1.5)
    verdict(axes, 2.6, "match", "this is Ada", MATCH)
    verdict(axes, 0.35, "no match", "a stranger", STRANGER)
    out = Path(__file__).with_suffix(".png")
    figure.savefig(out, facecolor="white")
    with Image.open(out) as drawn:
        drawn.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(out, optimize=True)


if __name__ == "__main__":
    main()
