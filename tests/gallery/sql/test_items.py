"""Items that were changed behind the gallery's back are found, and never served."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks.faults.kinds import reseal_rows
from facenet.errors import DataError
from facenet.gallery.gallery import Gallery
from facenet.types import EmbeddingSet
from tests.helpers.galleries import (
    as_queries,
    faces,
    people,
    tables_of,
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
