from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest

from facenet.data.records import NothingUsable
from facenet.data.sources.folder import scan_folder, scan_lfw
from facenet.data.sources.table import scan_csv
from facenet.errors import DataError


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


def test_bad_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        scan_folder(tmp_path / "none")
    with pytest.raises(DataError, match="no usable image"):
        scan_folder(tmp_path)
    (tmp_path / "x").write_text("")
    with pytest.raises(DataError, match="a file, not a folder"):
        scan_folder(tmp_path / "x")


@pytest.mark.lfw
def test_lfw_tree(lfw_root: Path) -> None:
    records = scan_lfw(lfw_root)
    assert len(records) == 13233
    assert len(records.names) == 5749
    assert records.paths[0] == "AJ_Cook/AJ_Cook_0001.jpg"


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
