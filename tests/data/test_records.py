from __future__ import annotations

import csv
import dataclasses
import hashlib
import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from facenet.data.records import NothingUsable, Records, Skipped, scan, scan_csv, scan_folder, scan_lfw, write_skipped
from facenet.errors import DataError
from tests.conftest import write_tree


def test_folder_lists_sorted_paths_and_skips_empty_files(face_tree: Path, tmp_path: Path) -> None:
    records = scan_folder(face_tree)
    assert len(records) == 120
    assert records.paths[0] == "p000/p000_0001.png"
    assert records.identities[-1] == "p029"
    np.testing.assert_array_equal(records.labels, np.repeat(np.arange(30), 4))
    (tmp_path / "a").mkdir()
    for name in ("1.jpg", ".2.jpg", "note.txt"):
        (tmp_path / "a" / name).write_bytes(b"x")
    (tmp_path / "a" / "empty.png").write_bytes(b"")
    found = scan_folder(tmp_path)
    assert found.paths == ("a/1.jpg",)
    assert found.skipped == (("a/empty.png", "the file is empty"),)


def test_csv(face_tree: Path, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("path,identity,more\np000/p000_0001.png,Ada,1\nnone.png,Bob,2\n", encoding="utf-8-sig")
    records = scan_csv(table, face_tree)
    assert (records.paths, records.identities) == (("p000/p000_0001.png",), ("Ada",))
    assert records.skipped[0].reason == "no such file"
    table.write_text("file,identity\na,b\n")
    with pytest.raises(DataError, match=r"missing: path"):
        scan_csv(table, face_tree)
    table.write_text("path,identity\n../../etc/passwd,b\n")
    with pytest.raises(DataError, match="leads outside"):
        scan_csv(table, face_tree)
    table.write_text("path,identity\nnone.png,b\n")
    with pytest.raises(DataError, match="none of its 1 rows"):
        scan_csv(table, face_tree)


def test_bad_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        scan_folder(tmp_path / "none")
    with pytest.raises(DataError, match="no usable image"):
        scan_folder(tmp_path)
    (tmp_path / "x").write_text("")
    with pytest.raises(DataError, match="a file, not a folder"):
        scan_folder(tmp_path / "x")


def test_scan_takes_what_it_is_given(face_tree: Path) -> None:
    assert len(scan(face_tree)) == 120
    one = scan(face_tree / "p000" / "p000_0001.png")
    assert (one.paths, one.identities) == (("p000_0001.png",), ("",))


def test_subset_people_without(tmp_path: Path) -> None:
    images = np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1).repeat(3, 3)
    records = Records(("a/1.png", "a/2.png", "b/1.png", "c/1.png"), ("a", "a", "b", "c"), "", images)
    people = records.of_people(["c", "a"])
    assert people.paths == ("a/1.png", "a/2.png", "c/1.png")
    assert people.images is not None
    assert people.images[2, 0, 0, 0] == 3
    left = records.without([(1, "broken")])
    assert left.paths == ("a/1.png", "b/1.png", "c/1.png")
    assert left.skipped == (("a/2.png", "broken"),)
    write_skipped(tmp_path / "s.csv", left.skipped)
    assert (tmp_path / "s.csv").read_text() == "path,reason\na/2.png,broken\n"


@pytest.mark.lfw
def test_lfw_tree(lfw_root: Path) -> None:
    records = scan_lfw(lfw_root)
    assert len(records) == 13233
    assert len(records.names) == 5749
    assert records.paths[0] == "AJ_Cook/AJ_Cook_0001.jpg"


@pytest.mark.parametrize("path", ["", ".", "..", "/etc/passwd", "../a.png", "a/../../b.png", "a\0b.png"])
def test_a_table_can_not_lead_outside(face_tree: Path, tmp_path: Path, path: str) -> None:
    (tmp_path / "t.csv").write_text(f"path,identity\n{path},Ada\n")
    with pytest.raises(DataError, match="leads outside"):
        scan_csv(tmp_path / "t.csv", face_tree)


def test_a_link_out_of_the_folder_is_not_followed_and_odd_names_are_skipped(tmp_path: Path) -> None:
    write_tree(tmp_path / "in", 1, 1)
    (tmp_path / "out.png").write_bytes(b"x")
    (tmp_path / "in" / "link.png").symlink_to(tmp_path / "out.png")
    (tmp_path / "t.csv").write_text("path,identity\nlink.png,Ada\n")
    with pytest.raises(DataError, match="link that leads outside"):
        scan_csv(tmp_path / "t.csv", tmp_path / "in")
    (tmp_path / "in" / "loop.png").symlink_to(tmp_path / "in" / "loop.png")
    whole = tmp_path / "in" / "p000" / "p000_0001.png"
    (tmp_path / "t.csv").write_text(f"path,identity\n{'long' * 2000},Ada\nloop.png,Bo\n{whole},Cy\n")
    found = scan_csv(tmp_path / "t.csv", tmp_path / "in")
    assert found.paths == ("p000/p000_0001.png",), "an absolute path below the root is one below the root"
    assert [skip.path[:4] for skip in found.skipped] == ["long", "loop"]


def test_people_are_told_apart_as_they_look(tmp_path: Path) -> None:
    for form in ("NFC", "NFD"):
        folder = tmp_path / unicodedata.normalize(form, "José")
        folder.mkdir()
        (folder / f"{form}.jpg").write_bytes(b"x")
    found = scan_folder(tmp_path)
    assert len(found) == 2
    assert found.names == [unicodedata.normalize("NFC", "José")]
    table = tmp_path / "t.csv"
    table.write_text("path,identity\n" + "".join(f"{path},{Path(path).parent}\n" for path in found.paths))
    assert scan_csv(table).names == found.names


def test_a_folder_of_nothing_usable_says_what_is_there(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.jpg").touch()
    (tmp_path / "4.heic").touch()
    with pytest.raises(NothingUsable, match=r"no usable image .*; 3 the file is empty, 1 \.heic is not read") as caught:
        scan_folder(tmp_path)
    assert len(caught.value.skipped) == 4


def test_a_table_may_name_anything(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder").mkdir()
    table = tmp_path / "t.csv"
    long = "x" * 300
    table.write_text(f"path,identity\na.jpg,A\npipe.jpg,A\nfolder,A\n{long},A\n")
    reasons = [one.reason for one in scan_csv(table).skipped]
    assert reasons == [
        "a pipe, socket or device, not a file",
        "a folder, not a file",
        "not accessible (File name too long)",
    ]
    table.write_text("path,identity\na\0.jpg,A\n")
    with pytest.raises(DataError, match=r"leads outside|not readable"):
        scan_csv(table)
    with pytest.raises(DataError, match=r"none\.csv: no such file"):
        scan_csv(tmp_path / "none.csv")


def test_the_list_takes_every_name_and_is_whole_or_not_there(tmp_path: Path) -> None:
    names = ['a,"b\nc\r.jpg', "Ren\udce9.jpg", "顔.jpg"]
    write_skipped(tmp_path / "s.csv", [Skipped(name, f"of {name}") for name in names])
    with (tmp_path / "s.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    told = [name.replace("\udce9", "\\xe9") for name in names]
    assert rows[1:] == [[name, f"of {name}"] for name in told]
    assert [path.name for path in tmp_path.iterdir()] == ["s.csv"]
    with pytest.raises(DataError, match="can not be written"):
        write_skipped(tmp_path / "s.csv" / "s.csv", [])


def test_a_file_that_has_gone_changes_the_mark(face_tree: Path) -> None:
    records = scan_folder(face_tree)
    gone = dataclasses.replace(records, paths=("none.png", *records.paths[1:]))
    one, two = hashlib.sha256(), hashlib.sha256()
    records.mark(one)
    gone.mark(two)
    assert one.digest() != two.digest()
