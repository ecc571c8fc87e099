"""The photos benchmark in short, on a tree of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from benchmarks.photos import Options, run, tables
from facenet.errors import ConfigError


@pytest.mark.slow  # a detector and SFace on every picture, four times
def test_found_faces_and_scores_are_counted(tmp_path: Path, portrait: Image.Image) -> None:
    names = [f"P{i}" for i in range(4)]
    for i, name in enumerate(names):
        (tmp_path / "images" / name).mkdir(parents=True)
        for j in (1, 2):
            tint = Image.new("RGB", (150, 176), (60 * i, 240 - 60 * i, 128))
            Image.blend(portrait.resize((150, 176)), tint, 0.3).save(tmp_path / "images" / name / f"{name}_000{j}.png")
    Image.new("RGB", (150, 176)).save(tmp_path / "images" / "P3" / "P3_0003.png")
    (tmp_path / "protocol").mkdir()
    lines = ["2", *(f"{name}\t1\t2" for name in names[:2]), "P0\t1\tP1\t1", "P2\t1\tP3\t2"]
    (tmp_path / "protocol" / "few.txt").write_text("\n".join(lines) + "\n")
    result = run(Options(root=str(tmp_path), pairs="few.txt", crops=(0.5,), composed=20))
    assert result["detection"]["share with a face"] == 8 / 9
    assert 0 < result["detection"]["median distance from the centre, pixels"] < 30
    assert list(result["scores"]) == ["aligned", "box x 1", "box x 1.2", "central 0.5"]
    assert [score["skipped"] for score in result["scores"].values()] == [0, 0, 0, 0]
    for _, header, rows in tables(result):
        assert all(len(row) == len(header) for row in rows)
    composed = result["composed"]
    assert composed["photographs"] == 20
    assert composed["the meant face taken"] >= 0.9
    with pytest.raises(ConfigError, match=r"benchmark\.root"):
        run(Options())
