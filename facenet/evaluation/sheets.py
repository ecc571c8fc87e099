"""Contact sheets: rows of small face pictures with captions and coloured frames, as one PNG.

A picture that can not be read is a grey tile that says so; a sheet is never lost for one file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from facenet.data.preprocess import Preprocess
from facenet.errors import DataError
from facenet.faces.alignment import NoFace
from facenet.files import atomic_write

SIDE, GAP, LINE = 112, 10, 15  # pixels of a picture, between pictures, and of a line of text
FRAME = 4
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
GREEN, RED, GREY, INK, PAPER = "#2e7d32", "#b3261e", "#9e9e9e", "#202124", "#ffffff"


@dataclass(frozen=True)
class Tile:
    """One picture: a file or pixels (H, W, 3) uint8, lines of text under it, and the colour of its frame."""

    picture: Path | np.ndarray | None
    lines: Sequence[str] = ()
    frame: str = GREY


@dataclass(frozen=True)
class Row:
    """A heading, and pictures side by side; those beyond `across` go into further lines."""

    heading: str
    tiles: Sequence[Tile]


def draw(
    file: str | Path, title: str, rows: Sequence[Row], *, look: Preprocess | None = None, across: int = 10
) -> tuple[int, int]:
    """Write a sheet as PNG; returns its (width, height) in pixels.

    `look` is an encoder's preprocessing: files are shown as the encoder sees them (None: their central square).

    Raises:
        DataError: nothing to show, or the file can not be written.
    """
    if not any(row.tiles for row in rows):
        raise DataError(f"{file}: no faces to show")
    font, bold = ImageFont.load_default(12), ImageFont.load_default(15)
    columns = max(1, min(across, max(len(row.tiles) for row in rows)))
    lines = max(len(tile.lines) for row in rows for tile in row.tiles)
    height_of_line = SIDE + 2 * FRAME + lines * LINE + GAP
    width = max(360, GAP + columns * (SIDE + 2 * FRAME + GAP))
    wrapped = [-(-len(row.tiles) // columns) for row in rows]
    height = 3 * LINE + sum(2 * LINE + count * height_of_line for count in wrapped) + GAP
    page = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(page)
    pen.text((GAP, GAP), _cut(title, bold, width - 2 * GAP), fill=INK, font=bold)
    y = 3 * LINE
    cutter = replace(look or Preprocess(), size=(SIDE, SIDE))
    for row, count in zip(rows, wrapped, strict=True):
        pen.text((GAP, y), _cut(row.heading, font, width - 2 * GAP), fill=INK, font=font)
        y += LINE + 5
        for i, tile in enumerate(row.tiles):
            x = GAP + i % columns * (SIDE + 2 * FRAME + GAP)
            top = y + i // columns * height_of_line
            pen.rectangle((x, top, x + SIDE + 2 * FRAME - 1, top + SIDE + 2 * FRAME - 1), fill=tile.frame)
            page.paste(_picture(tile.picture, cutter, font), (x + FRAME, top + FRAME))
            for number, line in enumerate(tile.lines):
                at = (x, top + SIDE + 2 * FRAME + number * LINE + 2)
                pen.text(at, _cut(line, font, SIDE + 2 * FRAME), fill=INK, font=font)
        y += count * height_of_line + LINE - 5
    content = BytesIO()
    page.save(content, "PNG", optimize=True)
    with atomic_write(file) as target:
        target.write(content.getvalue())
    return page.size


def _picture(source: Path | np.ndarray | None, cutter: Preprocess, font: Font) -> Image.Image:
    if isinstance(source, np.ndarray):
        return Image.fromarray(source).resize((SIDE, SIDE))
    try:
        if source is None:
            raise DataError("no picture")
        return Image.fromarray(np.ascontiguousarray(cutter.read(source)))
    except NoFace:  # shown as it is
        return _picture(source, replace(cutter, align=None, crop=1.0), font)
    except DataError:
        tile = Image.new("RGB", (SIDE, SIDE), "#dddddd")
        text = "no picture" if source is None else "not readable"
        ImageDraw.Draw(tile).text((SIDE // 2, SIDE // 2), text, fill=INK, font=font, anchor="mm")
        return tile


def _cut(text: str, font: Font, width: int) -> str:
    """Shorten text in its middle until it fits."""
    if font.getlength(text) <= width:
        return text
    keep = len(text)
    while keep > 2 and font.getlength(f"{text[: keep // 2]}…{text[len(text) - keep // 2 :]}") > width:
        keep -= 1
    return f"{text[: keep // 2]}…{text[len(text) - keep // 2 :]}"
