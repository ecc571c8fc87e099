"""Files with the same bytes: what is kept, and how little is read to find them."""

from __future__ import annotations

from pathlib import Path

import pytest

from facenet.data.sources import duplicates
from facenet.data.sources.duplicates import same_files, without_duplicates
from facenet.data.sources.folder import scan_folder
from tests.helpers.pictures import write_tree


def copy(root: Path, source: str, target: str) -> None:
    (root / target).write_bytes((root / source).read_bytes())


def test_one_of_a_person_is_kept_and_none_of_two(tmp_path: Path) -> None:
    write_tree(tmp_path, 4, 3)
    copy(tmp_path, "p000/p000_0001.png", "p000/z.png")
    copy(tmp_path, "p001/p001_0002.png", "p002/z.png")
    copy(tmp_path, "p001/p001_0002.png", "p001/z.png")
    for person in ("p000", "p003"):
        (tmp_path / person / "page.jpg").write_bytes(b"<html>not found</html>")
    kept = without_duplicates(scan_folder(tmp_path))
    assert dict(kept.skipped) == {
        "p000/z.png": "the same file twice: p000/p000_0001.png is used",
        "p001/p001_0002.png": "the same file under another identity: p002/z.png",
        "p001/z.png": "the same file under another identity: p002/z.png",
        "p002/z.png": "the same file under another identity: p001/p001_0002.png",
    }
    assert len(kept) == 3 * 4 - 1 + 2, "the two pages are no image, which is told elsewhere"


def test_hardly_anything_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of one size that differ in their middle are not hashed; one that differs only at its end is."""
    (tmp_path / "a").mkdir()
    for number in range(6):
        (tmp_path / "a" / f"{number}.jpg").write_bytes(bytes(5000) + bytes([number]) * 100 + bytes(5000))
        (tmp_path / "a" / f"size{number}.jpg").write_bytes(bytes(20_000 + number))
    (tmp_path / "a" / "end.jpg").write_bytes(bytes(5000) + bytes([2]) * 100 + bytes(4999) + b"x")
    hashed, looked = [], []
    whole, middle = duplicates.sha256_file, duplicates._middle
    monkeypatch.setattr(duplicates, "sha256_file", lambda path: (hashed.append(path.name), whole(path))[1])
    monkeypatch.setattr(duplicates, "_middle", lambda path: (looked.append(path.name), middle(path))[1])
    assert same_files(scan_folder(tmp_path)) == []
    assert sorted(hashed) == ["2.jpg", "end.jpg"]
    assert sorted(looked) == [*(f"{number}.jpg" for number in range(6)), "end.jpg"]


def test_what_has_gone_is_alone(tmp_path: Path) -> None:
    write_tree(tmp_path, 1, 2)
    copy(tmp_path, "p000/p000_0001.png", "p000/z.png")
    records = scan_folder(tmp_path)
    (tmp_path / "p000" / "z.png").unlink()
    assert same_files(records) == []
    assert without_duplicates(records) is records
