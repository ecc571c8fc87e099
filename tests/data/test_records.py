from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import numpy as np
import pytest

from facenet.data import records as records_module
from facenet.data.records import Records, Skipped, write_skipped
from facenet.data.sources.folder import scan_folder
from facenet.errors import DataError


def test_subset_people_without(tmp_path: Path) -> None:
    images = np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1).repeat(3, 3)
    records = Records.of(("a/1.png", "a/2.png", "b/1.png", "c/1.png"), ("a", "a", "b", "c"), "", images)
    people = records.of_people(["c", "a"])
    assert people.paths == ("a/1.png", "a/2.png", "c/1.png")
    assert people.images is not None
    assert people.images[2, 0, 0, 0] == 3
    left = records.without([(1, "broken")])
    assert left.paths == ("a/1.png", "b/1.png", "c/1.png")
    assert left.skipped == (("a/2.png", "broken"),)
    write_skipped(tmp_path / "s.csv", left.skipped)
    assert (tmp_path / "s.csv").read_text() == "path,reason\na/2.png,broken\n"


def test_rows_are_taken_by_blocks_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records_module, "BLOCK", 4)
    people = [f"p{number}" for number in np.random.default_rng(0).integers(6, size=23)]
    images = np.arange(23, dtype=np.uint8).reshape(23, 1, 1, 1)
    records = Records.of([f"{row}.png" for row in range(23)], people, "", images)
    rows = np.random.default_rng(1).permutation(23)[:11]
    some = records.subset(rows)
    wanted = {"p4", "p1", "p5"}
    for found, kept in ((some, rows), (some.of_people(wanted), [row for row in rows if people[row] in wanted])):
        assert found.paths == [f"{row}.png" for row in kept]
        assert found.identities == [people[row] for row in kept]
        assert found.names == sorted({people[row] for row in kept})
        assert found.images is not None
        assert found.images.ravel().tolist() == [*kept]
    assert 0 < len(some.of_people(wanted)) < len(some), "some are left out"
    assert some.counts.tolist() == [[*some.identities].count(name) for name in some.names]


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
    gone = Records.of(("none.png", *records.paths[1:]), records.identities, records.root)
    one, two = hashlib.sha256(), hashlib.sha256()
    records.mark(one)
    gone.mark(two)
    assert one.digest() != two.digest()
