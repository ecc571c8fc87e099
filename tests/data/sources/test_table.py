from __future__ import annotations

import os
from pathlib import Path

import pytest

from facenet.data.sources.table import scan_csv
from facenet.errors import DataError
from tests.helpers.pictures import write_tree


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
