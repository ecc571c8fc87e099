"""Items that were changed behind the gallery's back are found, and never served."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks.faults.kinds import reseal_rows
from facenet.errors import ConfigError, DataError
from facenet.gallery.gallery import Gallery
from facenet.types import EmbeddingSet
from tests.helpers.galleries import (
    as_queries,
    faces,
    numbered,
    people,
    tables_of,
    unit,
    vector_of,
)


def test_changed_items_are_found_by_check(folder: Path) -> None:
    for statement, said in (
        ("UPDATE items SET identity = 'mallory' WHERE id = 'p1/1'", "p1/1: its digest"),
        (
            "UPDATE items SET vector = (SELECT vector FROM items WHERE id = 'p2/2') WHERE id = 'p3/3'",
            "p3/3: its digest",
        ),
        ("DELETE FROM items WHERE id = 'p4/0'", "39 items, its last write says 40"),
        ("UPDATE encoders SET fingerprint = 'ee'", "p0/0: its digest"),
        ("UPDATE items SET vector = x'00' WHERE id = 'p5/0'", "p5/0: its digest"),
    ):
        shutil.copytree(folder, folder.parent / "copy", dirs_exist_ok=True)
        with tables_of(folder.parent / "copy") as db:
            db.execute(statement)
        with Gallery.open(folder.parent / "copy") as gallery:
            assert any(said in problem for problem in gallery.check()), gallery.check()


def test_pages_of_items_and_people(tmp_path: Path) -> None:
    names = ["b_x", "", "b%", "b", "a", "b", "c", "b_", "b%x", "ž", "b\U0010ffff", "b\U0010ffffz", "bz", "\U0010ffff"]
    given = numbered(unit(len(names)), names)
    with Gallery.open(tmp_path, create=True) as gallery:
        gallery.add(given)
        pages = [gallery.page(0, 5), gallery.page(5, 9), gallery.page(14)]
        assert [[item.number for item in page] for page in pages] == [[1, 2, 3, 4, 5], list(range(6, 15)), []]
        assert [item.id for item in gallery.page(identity="b")] == ["f3", "f5"]
        assert [item.id for item in gallery.page(4, identity="b")] == ["f5"]
        assert [item.id for item in gallery.page(identity="")] == ["f1"]
        everybody = sorted(set(names) - {""})
        assert [person.identity for person in gallery.people()] == everybody
        assert gallery.people("a", 1) == [("b", 2, "f3", 4)]
        for prefix in ("b", "b%", "b_", "%", "", "z", "\ud7ff", "\U0010ffff", "b\U0010ffff"):
            expected = [name for name in everybody if name.startswith(prefix)]
            assert [person.identity for person in gallery.people(prefix=prefix)] == expected
            after, found = "", []
            while page := gallery.people(after, 2, prefix=prefix):
                found, after = found + [person.identity for person in page], page[-1].identity
            assert found == expected
        for wrong in (lambda: gallery.page(limit=0), lambda: gallery.people(limit=0)):
            with pytest.raises(ConfigError, match="limit: expected at least 1"):
                wrong()
        for odd in (lambda: gallery.page(1 << 70), lambda: gallery.people("\ud800"), lambda: gallery.remove("\ud800")):
            with pytest.raises(DataError, match="no gallery can hold"):
                odd()


def test_a_page_reads_its_own_items_only(folder: Path) -> None:
    with Gallery.open(folder) as gallery, tables_of(folder) as db:
        seen: list[str] = []
        gallery._truth.database._connection.set_trace_callback(seen.append)
        gallery.page(8, 3, identity="p2")
        gallery.people("p1", 3, prefix="p")
        plans = [row[3] for sql in seen if sql.startswith("SELECT") for row in db.execute(f"EXPLAIN QUERY PLAN {sql}")]
    assert plans
    assert all(plan.startswith("SEARCH") for plan in plans), plans


def test_damaged_metadata_is_told(folder: Path) -> None:
    with tables_of(folder) as db:
        db.execute("UPDATE items SET metadata = '{' WHERE id = 'p1/1'")
    with Gallery.open(folder) as gallery, pytest.raises(DataError, match="the content of item 6"):
        gallery.hits(as_queries(vector_of("p1/1")[None]), 1)


@pytest.mark.parametrize("column", ["identity", "path", "root", "metadata", "vector", "id"])
def test_an_item_that_was_changed_is_not_served(folder: Path, column: str) -> None:
    with tables_of(folder) as db:
        other = faces(people(1)).vectors[1].tobytes() if column == "vector" else "{}" if column == "metadata" else "q"
        (before,) = db.execute(f"SELECT {column} FROM items WHERE number = 6").fetchone()
        db.execute(f"UPDATE items SET {column} = ? WHERE number = 6", (other if before != other else '{"a": 1}',))
    with Gallery.open(folder) as gallery, pytest.raises(DataError, match="the content of item 6"):
        gallery.items([6])
    (folder / "index.faiss").unlink()
    with Gallery.open(folder) as gallery, pytest.raises(DataError, match="the content of item 6"):
        gallery.hits(as_queries(faces(people(1)).vectors[:1], gallery.fingerprint or ""), 1)


def test_paths_out_of_their_root_are_neither_taken_nor_served(folder: Path) -> None:
    one = faces(people(1)).subset([0])
    with Gallery.open(folder) as gallery, pytest.raises(DataError, match="leads outside its root"):
        gallery.add(EmbeddingSet(one.vectors, ["../x"], ["x"], one.fingerprint), ids=["x"])
    with tables_of(folder) as db:
        db.execute("UPDATE items SET path = '../x' WHERE number = 6")
        reseal_rows(db)
    with Gallery.open(folder) as gallery, pytest.raises(DataError, match="texts, metadata or encoder of item 6"):
        gallery.items([6])
