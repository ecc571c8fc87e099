"""Folders of photos become folders of faces; what was not used is listed, and an interrupted run goes on."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facenet.data import align_folder as room
from facenet.data.align_folder import COLUMNS, TABLE, USED, Line, align_folder, read_table, skipped
from facenet.data.sources.folder import read_alignment, scan_folder
from facenet.errors import ConfigError, DataError
from facenet.faces.alignment import Alignment
from facenet.faces.options import ALL
from facenet.files import write_sealed

OPTIONS = Alignment(size=64, margin=1.2)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, portrait: Image.Image) -> Path:
    """One face, two faces, none, a turned, a grey, a broken, an empty and a tiny one."""
    root = tmp_path_factory.mktemp("align") / "photos"
    (root / "grace").mkdir(parents=True)
    (root / "others").mkdir()
    portrait.save(root / "grace" / "one.jpg", quality=95)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: stored on its side
    portrait.rotate(90, expand=True).save(root / "grace" / "turned.jpg", exif=exif, quality=95)
    portrait.convert("L").save(root / "grace" / "grey.png")
    portrait.resize((34, 40)).save(root / "grace" / "tiny.png")
    page = Image.new("RGB", (900, 600), "white")
    page.paste(portrait.resize((256, 300)), (0, 0))
    page.paste(portrait, (380, 0))
    page.save(root / "others" / "two.png")
    noise = np.random.default_rng(0).integers(0, 255, (300, 200, 3), np.uint8)
    Image.fromarray(noise).save(root / "others" / "none.png")
    (root / "others" / "broken.jpg").write_bytes(b"\xff\xd8\xff not a picture")
    (root / "others" / "empty.jpg").touch()
    return root


def files(root: Path) -> list[str]:
    return sorted(p.relative_to(root).as_posix() for p in root.rglob("*.jpg"))


def test_every_photo_is_listed_with_its_faces(photos: Path, tmp_path: Path) -> None:
    found = align_folder(scan_folder(photos), tmp_path, OPTIONS)
    assert files(tmp_path) == ["grace/grey.jpg", "grace/one.jpg", "grace/turned.jpg", "others/two.jpg"]
    assert (found["photos"], found["photos_with_face"], found["faces"]) == (8, 4, 4)
    assert found["found"] == 0.5
    assert 0 < found["distance_from_centre"] < 0.2
    listed = skipped(read_table(tmp_path / TABLE))
    reasons = {Path(skip.path).name: skip.reason for skip in listed}
    lost = [skip for skip in listed if Path(skip.path).name in ("none.png", "tiny.png", "broken.jpg", "empty.jpg")]
    assert listed[: len(lost)] == lost, "photos without a face come first"
    assert re.fullmatch(r"another face is meant: \d+ x \d+ pixels at \(\d+, \d+\)", reasons["two.png"])
    assert sum(found["not_used"].values()) == 4, "one reason for each photo without a face"
    assert found["boxes_not_used"]["another face is meant"] == 1
    assert reasons["none.png"] == "no face found"
    assert reasons["tiny.png"].startswith(("no face", "doubtful", "too small"))
    assert "not a readable image" in reasons["broken.jpg"]
    assert str(photos) not in reasons["broken.jpg"]
    with (tmp_path / TABLE).open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    one = next(row for row in rows if row["photo"] == "grace/one.jpg")
    assert (one["width"], one["height"], one["status"], one["file"]) == ("512", "600", USED, "grace/one.jpg")
    assert abs(float(one["left_eye_x"]) - 226) < 9
    assert abs(float(one["left"]) - 178) < 12
    with Image.open(tmp_path / "grace" / "one.jpg") as face:
        assert face.size == (64, 64)
        upright = np.asarray(face, float)
    with Image.open(tmp_path / "grace" / "turned.jpg") as face:
        assert np.abs(np.asarray(face, float) - upright).mean() < 12, "turned by its EXIF tag"


def test_all_faces_of_a_photo_or_the_largest(photos: Path, tmp_path: Path, portrait: Image.Image) -> None:
    records = scan_folder(photos / "others")
    align_folder(records, tmp_path / "largest", OPTIONS)
    align_folder(records, tmp_path / "all", replace(OPTIONS, pick=ALL), kind="png")
    assert read_alignment(tmp_path / "all") == replace(OPTIONS, pick="all")
    assert sorted(p.name for p in (tmp_path / "all").glob("*.png")) == ["two.png", "two_2.png"]
    lines = read_table(tmp_path / "largest" / TABLE)
    taken = next(line for line in lines if line.status == USED)
    assert taken.box[0] > 380, "the larger one on the right"
    assert room.OTHER in [line.status for line in lines]


def test_records_know_how_an_aligned_folder_was_cut(photos: Path, tmp_path: Path) -> None:
    align_folder(scan_folder(photos), tmp_path, OPTIONS)
    records = scan_folder(tmp_path)
    assert records.alignment == OPTIONS == read_alignment(tmp_path)
    assert records.subset([0]).alignment == records.without([(0, "x")]).alignment == OPTIONS
    assert set(records.identities) == {"grace", "others"}
    with pytest.raises(DataError, match="aligned already"):
        align_folder(records, tmp_path / "again", OPTIONS)
    text = (tmp_path / "align.json").read_text()
    write_sealed(tmp_path / "align.json", {"margin": 1})
    with pytest.raises(DataError, match=r"align\.json: alignment: expected the keys"):
        scan_folder(tmp_path)
    (tmp_path / "align.json").write_text(text.replace('"size": 64', '"size": 65'))
    with pytest.raises(DataError, match="SHA-256"):
        scan_folder(tmp_path)


@pytest.mark.parametrize("keep", [0, 1, 3, 6])
def test_an_interrupted_run_goes_on(photos: Path, tmp_path: Path, keep: int, monkeypatch: pytest.MonkeyPatch) -> None:
    records = scan_folder(photos)
    whole, out = tmp_path / "whole", tmp_path / "out"
    expected = align_folder(records, whole, OPTIONS)
    cut, seen = room._cut, []

    def stop(source: object, photo: str, *rest: object) -> list[Line]:
        if len(seen) == keep:
            raise KeyboardInterrupt
        seen.append(photo)
        return cut(source, photo, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(room, "_cut", stop)
    monkeypatch.setattr(room.os, "cpu_count", lambda: 1)
    with pytest.raises(KeyboardInterrupt):
        align_folder(records, out, OPTIONS)
    with (out / TABLE).open("a") as file:
        file.write("grace/one.jpg,512,6")  # killed in the middle of a line
    again: list[str] = []
    monkeypatch.setattr(room, "_cut", lambda source, photo, *rest: again.append(photo) or cut(source, photo, *rest))
    assert align_folder(records, out, OPTIONS) == expected
    assert not set(again) & set(seen), "nothing is done twice"
    assert len(again) + len(seen) == len(records)
    assert sorted((out / TABLE).read_text().splitlines()) == sorted((whole / TABLE).read_text().splitlines())
    assert files(out) == files(whole)
    assert not list(out.rglob(".*"))


def test_folders_that_can_not_be_used(photos: Path, tmp_path: Path) -> None:
    records = scan_folder(photos)
    with pytest.raises(DataError, match="this is the folder of the photos"):
        align_folder(records, photos, OPTIONS)
    align_folder(records.subset([0]), tmp_path / "a", OPTIONS)
    for changed, told in (
        ({"size": 65}, "size=64, and size=65 is asked for"),
        ({"margin": 1.0}, "margin=1.2, and margin=1.0 is asked for"),
        ({"pick": ALL}, "pick=prominent, and pick=all is asked for"),
        ({"score": 0.7, "pick": "center"}, "pick=prominent score=0.6, and pick=center score=0.7 is asked for"),
    ):
        with pytest.raises(DataError, match=f"a: holds faces cut with {told}; give another out="):
            align_folder(records, tmp_path / "a", replace(OPTIONS, **changed))
    with pytest.raises(DataError, match="format=jpg, and format=png is asked for"):
        align_folder(records, tmp_path / "a", OPTIONS, kind="png")
    assert align_folder(records.subset([0]), tmp_path / "a", OPTIONS)["faces"] == 1, "the same options go on"
    (tmp_path / "a" / "align.json").unlink()
    with pytest.raises(DataError, match=r"no align\.json"):
        align_folder(records, tmp_path / "a", OPTIONS)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / TABLE).write_text("what,is,this\n1,2,3\n")
    with pytest.raises(DataError, match="expected the columns"):
        align_folder(records, tmp_path / "b", OPTIONS)
    (tmp_path / "b" / TABLE).write_text(",".join(COLUMNS) + "\na.jpg,12\n")
    with pytest.raises(DataError, match="damaged"):
        read_table(tmp_path / "b" / TABLE)
    with pytest.raises(ConfigError, match="known: jpg, png"):
        align_folder(records, tmp_path / "c", OPTIONS, kind="gif")


def test_names_that_would_meet_keep_their_suffix(tmp_path: Path, portrait: Image.Image) -> None:
    small = portrait.resize((256, 300))
    for name in ("a.png", "a.jpg"):
        small.save(tmp_path / name)
    align_folder(scan_folder(tmp_path), tmp_path / "out", OPTIONS)
    assert files(tmp_path / "out") == ["a.jpg", "a.png.jpg"]


@pytest.mark.parametrize(
    "line",
    [
        "a.jpg,100,80,used,../a.jpg,1,2,3,4,0.9" + ",1" * 10,
        "a.jpg,100,80,used,/a.jpg,1,2,3,4,0.9" + ",1" * 10,
        "a.jpg,100,80,used,a.jpg,nan,2,3,4,0.9" + ",1" * 10,
        "a.jpg,100,80,used,a.jpg,1,2,3,4,inf" + ",1" * 10,
        "a.jpg,100,80,used,a.jpg,,,,," + "," * 10,
        f"a.jpg,{'9' * 5000},80,no face found,,,,,," + "," * 10,
        f"a.jpg,{10**9},80,no face found,,,,,," + "," * 10,
        "a.jpg,0,0,used,a.jpg,1,2,3,4,0.9" + ",1" * 10,
        '"a.jpg,100',
        "x" * 200_000,
    ],
)
def test_a_table_of_faces_that_can_not_be_is_one_line(tmp_path: Path, line: str) -> None:
    good = "b.jpg,100,80,used,b.jpg,1,2,3,4,0.9" + ",1" * 10
    (tmp_path / TABLE).write_text(f"{','.join(COLUMNS)}\n{good}\n")
    assert len(read_table(tmp_path / TABLE)) == 1
    (tmp_path / TABLE).write_text(f"{','.join(COLUMNS)}\n{good}\n{line}\n")
    with pytest.raises(DataError, match="damaged") as raised:
        read_table(tmp_path / TABLE)
    assert "\n" not in str(raised.value)
    (tmp_path / TABLE).write_bytes(b"\xff\xfe\n")
    with pytest.raises(DataError, match="damaged"):
        read_table(tmp_path / TABLE)
