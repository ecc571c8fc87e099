"""Contact sheets hold every picture, say what can not be read, and never fail for one file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFont

from facenet.errors import DataError
from facenet.evaluation.sheets import FRAME, GAP, LINE, SIDE, Row, Tile, _cut, draw


def test_a_sheet_shows_its_pictures_where_they_belong(tmp_path: Path) -> None:
    Image.new("RGB", (40, 40), "#ff0000").save(tmp_path / "red.png")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 no picture")
    blue = np.zeros((8, 8, 3), np.uint8) + np.array([0, 0, 255], np.uint8)
    tiles = [
        Tile(tmp_path / "red.png", ["a"], "#00ff00"),
        Tile(blue),
        Tile(tmp_path / "broken.jpg"),
        Tile(None),
        Tile(blue),
    ]
    size = draw(tmp_path / "sheet.png", "title", [Row("one", tiles), Row("two", tiles[:1])], across=4)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == size
        page = np.asarray(sheet.convert("RGB"))
    step, top = SIDE + 2 * FRAME + GAP, 3 * LINE + LINE + 5
    down = SIDE + 2 * FRAME + LINE + GAP

    def at(column: int, y: int, inside: int = FRAME + 4) -> tuple[int, ...]:
        return tuple(page[y + inside, GAP + column * step + inside].tolist())

    assert at(0, top) == (255, 0, 0)
    assert at(0, top, 1) == (0, 255, 0)
    assert at(1, top) == (0, 0, 255)
    assert at(2, top) == at(3, top) == (221, 221, 221)
    assert at(0, top + down) == (0, 0, 255), "the fifth goes into the next line"
    assert at(0, top + 2 * down + 2 * LINE) == (255, 0, 0)


def test_long_and_foreign_text_stays_inside() -> None:
    font = ImageFont.load_default(12)
    for text in ("short", "a" * 300, "Ünïcødé 名前 " * 20, ""):
        short = _cut(text, font, 120)
        assert font.getlength(short) <= 120
        assert short == text or "…" in short


def test_nothing_to_show_and_nowhere_to_write(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no faces to show"):
        draw(tmp_path / "s.png", "t", [Row("empty", [])])
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="can not be written"):
        draw(tmp_path / "file" / "s.png", "t", [Row("one", [Tile(None)])])
