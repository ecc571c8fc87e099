from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from facenet.data import scan as scanning
from facenet.data.index import Index, index_folder
from facenet.data.pictures import Unreadable
from facenet.data.records import NothingUsable
from facenet.data.scan import scan_set, summary
from facenet.data.sources import kinds
from facenet.data.sources.kinds import scan_usable
from facenet.errors import DataError
from facenet.files import read_sealed
from tests.helpers.pictures import write_tree
from tests.helpers.sets import Face, faces, jpeg, write_folder, write_parquet, write_recordio, write_tar, write_zip


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Six people with four images each, of which two are broken, one is there twice and one under two names."""
    root = write_tree(tmp_path / "faces", 6, 4)
    (root / "p000" / "p000_0001.png").write_bytes(b"broken")
    (root / "p001" / "p001_0003.png").write_bytes(b"")
    shutil.copy(root / "p002" / "p002_0001.png", root / "p002" / "copy.png")
    shutil.copy(root / "p003" / "p003_0001.png", root / "p004" / "other.png")
    return root


def test_a_scan_says_what_a_set_holds_and_leaves_out_what_training_leaves_out(tree: Path) -> None:
    _, before = scan_usable("folder", str(tree), max_bad_share=1)
    found = scan_set("folder", str(tree), index_folder(tree))
    told = summary(found)
    assert (told["form"], told["images"], told["identities"], told["unreadable"]) == ("folder", 21, 6, 1)
    assert told["duplicates"] == 3
    assert told["sides"] == {"width": [48, 48, 48], "height": [48, 48, 48]}
    assert told["images_a_person"]["2"] == 6
    _, after = scan_usable("folder", str(tree), max_bad_share=1)
    left = [path for path in before.paths if path != "p000/p000_0001.png"]  # training finds it when it meets it
    assert (list(after.paths), after.root) == (left, before.root)
    assert {one.kind for one in after.skipped} == {one.kind for one in before.skipped} | {"not a readable image"}
    assert isinstance(after.source(3), bytes)


def test_a_scan_that_was_stopped_goes_on(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanning, "ROWS", 5)
    looked: list[int] = []
    look_at = scanning.look_at

    def stopping(images: object, rows: range, **options: object) -> object:
        looked.append(rows.start)
        if rows.start == 10 and looked.count(10) == 1:
            raise KeyboardInterrupt
        return look_at(images, rows, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(scanning, "look_at", stopping)
    with pytest.raises(KeyboardInterrupt):
        scan_set("folder", str(tree), index_folder(tree))
    first = summary(scan_set("folder", str(tree), index_folder(tree)))
    assert looked == [0, 5, 10, 10, 15, 20]
    assert first == summary(scan_set("folder", str(tree), index_folder(tree)))
    assert not (index_folder(tree) / "parts").exists()


def test_an_image_that_changes_after_the_scan_is_refused_before_it_is_decoded(tree: Path) -> None:
    scan_set("folder", str(tree), index_folder(tree))
    records = kinds.scan_kind("folder", str(tree))
    file = tree / records.paths[2]
    data = bytearray(file.read_bytes())
    data[-20] ^= 1
    file.write_bytes(data)
    with pytest.raises(Unreadable, match="its bytes are not those that were scanned"):
        records.source(2)


def test_an_index_that_is_damaged_or_old_is_one_line(tree: Path) -> None:
    place = index_folder(tree)
    scan_set("folder", str(tree), place)
    whole = (place / "labels.npy").read_bytes()
    (place / "labels.npy").write_bytes(whole[:-1] + b"!")
    with pytest.raises(DataError, match=r"labels\.npy: missing or damaged .*; delete it, or run facenet scan again"):
        kinds.scan_kind("folder", str(tree))
    (place / "labels.npy").write_bytes(whole)
    (tree / "p005" / "new.png").write_bytes((tree / "p005" / "p005_0001.png").read_bytes())
    with pytest.raises(DataError, match=r"have changed since the scan; delete it, or run facenet scan again"):
        kinds.scan_kind("folder", str(tree))
    (place / "index.json").write_text("{")
    with pytest.raises(DataError, match=r"index\.json"):
        kinds.scan_kind("folder", str(tree))


def test_an_index_keeps_names_in_order_and_what_they_hash_to(tree: Path) -> None:
    found = scan_set("folder", str(tree), index_folder(tree)).index
    again = Index.open(index_folder(tree), tree)
    assert again.columns.paths == found.columns.paths
    assert [*again.columns.names] == sorted(again.columns.names)
    assert (np.diff(again.columns.labels) >= 0).all()
    assert again.skipped == found.skipped
    assert read_sealed(index_folder(tree) / "index.json")["images"] == 21


def test_a_set_without_a_usable_image_is_one_line(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "faces", 2, 2)
    for file in root.rglob("*.png"):
        file.write_bytes(b"x")
    with pytest.raises(NothingUsable, match="no image could be read"):
        scan_set("folder", str(root), index_folder(root))
    assert not (index_folder(root) / "index.json").exists()


def test_a_large_set_without_an_index_is_scanned_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "MOST_UNSCANNED", 5)
    file = tmp_path / "set.tar"
    write_tar(file, faces())
    with pytest.raises(DataError, match=r"12 images, which are many .*; run facenet scan data\.root="):
        kinds.scan_kind("folder", str(file))
    scan_set("folder", str(file), index_folder(file))
    assert len(kinds.scan_kind("folder", str(file))) == 12


@pytest.mark.parametrize("scanned", [False, True])
def test_every_form_of_a_set_gives_the_same_rows_and_bytes(tmp_path: Path, scanned: bool) -> None:
    """Also where names and labels have several widths: order is by number, as that of names written with zeros."""
    people = [
        Face(f"{person:03d}_{number:02d}", str(person), jpeg(person * 100 + number))
        for person in range(12)
        for number in range(1 + person % 3)
    ]
    sets = {form: tmp_path / form / f"set.{form}" for form in ("rec", "tar", "zip", "parquet")}
    write_recordio(sets["rec"], people)
    write_tar(sets["tar"], people)
    padded = [one._replace(identity=f"{int(one.identity):02d}") for one in people]
    write_zip(sets["zip"], padded)
    write_parquet(sets["parquet"], people)
    write_folder(tmp_path / "folder", padded)
    found = []
    for root in (tmp_path / "folder", *sets.values()):
        if scanned:
            scan_set("folder", str(root), index_folder(root))
        records = scan_usable("folder", str(root), max_bad_share=0)[1]
        sources = [records.source(row) for row in range(len(records))]
        read = [source.read_bytes() if isinstance(source, Path) else source for source in sources]
        found.append((records.labels.tolist(), [*records.names], read))
    assert found[0][0] == sorted(found[0][0])
    assert all(other == found[0] for other in found[1:])
