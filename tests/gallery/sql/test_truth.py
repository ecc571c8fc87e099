"""The truth: foreign, damaged, full or locked files are one line, and no acknowledged face is lost."""

from __future__ import annotations

import random
import resource
import tempfile
from pathlib import Path

import pytest

from benchmarks.faults.rights import close_folder
from benchmarks.gallery import ids, kill_writer
from facenet.errors import DataError
from facenet.gallery.gallery import Gallery
from tests.helpers.galleries import (
    as_queries,
    assert_answers,
    faces,
    people,
    state_of,
    tables_of,
    unit,
)


def test_foreign_and_missing_folders(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(DataError, match="no gallery there"):
        Gallery.open(tmp_path / "nowhere")
    for name, content in (("text", b"not a database, but long enough to look like one\n" * 50), ("empty", b"")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "items.sqlite").write_bytes(content)
        with pytest.raises(DataError, match="not a gallery") as caught:
            Gallery.open(tmp_path / name)
        assert "\n" not in str(caught.value)
    with tables_of(tmp_path / "empty") as db:
        db.execute("CREATE TABLE items (a)")
    with pytest.raises(DataError, match="not a gallery"):
        Gallery.open(tmp_path / "empty", create=True)
    with tables_of(folder) as db:
        db.execute("PRAGMA user_version=9")
    with pytest.raises(DataError, match="schema 9, this version reads 1"):
        Gallery.open(folder)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match="can not be made"):
        Gallery.open(tmp_path / "file", create=True)


def used(folder: Path) -> list[str]:
    """What a damaged gallery says when checked and searched."""
    try:
        with Gallery.open(folder) as gallery:
            problems = gallery.check()
            gallery.info()
            gallery.hits(as_queries(unit(3)), 40)
            return problems
    except DataError as error:
        return [str(error)]


def test_corrupted_truth_is_told_in_one_line(folder: Path) -> None:
    """Never another kind of error; and where a check is silent, every item is as it was (it hit free space)."""
    path, rng, silent, before = folder / "items.sqlite", random.Random(6), 0, state_of(folder)
    sound = path.read_bytes()
    for round_ in range(40):
        at = rng.randrange(len(sound))
        path.write_bytes(sound[:at] + rng.randbytes(200) + sound[at + 200 :])
        (folder / ("index.faiss" if round_ % 2 else "unused")).unlink(missing_ok=True)
        told = used(folder)
        silent += not told
        assert told or state_of(folder)[:3:2] == before[:3:2]
        assert not any("\n" in line for line in told)
    assert silent < 36, "a lost index alone is not told"


# Another kind, exact too, as the answers are compared: six more processes.
@pytest.mark.parametrize("factory", ["", pytest.param("IVF1,Flat", marks=pytest.mark.slow)])
def test_killed_writers_lose_nothing(tmp_path: Path, factory: str) -> None:
    rng, added, removed = random.Random(1), set(), set()
    for run in range(3):
        lines = kill_writer(tmp_path / "gallery", run, rng, factory=factory)
        new = [name for line in lines if line.startswith("+") for name in line[1:].split()]
        gone = [line[1:] for line in lines if line.startswith("-")]
        added.update(new)
        removed.update(gone)
        with Gallery.open(tmp_path / "gallery") as gallery:
            assert [line for line in gallery.check() if "index." not in line] == []
            there = ids(gallery)
            assert added - removed - there <= {f"r{run}b{b}/0" for b in range(10**3)}, "an acknowledged face is lost"
            assert len(added - removed - there) <= 1  # a removal done but not yet acknowledged
            assert not removed & there
            assert len(there - added) in (0, 19, 20), "half a batch"
            removed |= added - there
            added |= there
            assert_answers(gallery, sorted(there))
    assert len(added) > 80


def test_full_disk(folder: Path) -> None:
    """A file may not grow: as on a full disk, the write fails in the middle."""
    before, limits = state_of(folder), resource.getrlimit(resource.RLIMIT_FSIZE)
    with Gallery.open(folder) as gallery:
        resource.setrlimit(resource.RLIMIT_FSIZE, ((folder / "items.sqlite").stat().st_size + 4096, limits[1]))
        try:
            with pytest.raises(DataError, match="nothing was changed; free some space"):
                gallery.add(faces(people(100, start=20)))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert state_of(folder) == before
        assert_answers(gallery, people(10))
        gallery.add(faces(people(1, start=20)))
        assert gallery.check() == []


def test_read_only_folder() -> None:  # not below tmp_path, which only its owner may enter
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        folder = Path(name) / "gallery"
        with Gallery.open(folder, create=True) as gallery:
            gallery.add(faces(people(10)))
        (folder / "index.faiss").unlink()
        before = state_of(folder)
        reopen = close_folder(folder)
        try:
            with Gallery.open(folder) as gallery:
                assert_answers(gallery, people(10))
                with pytest.raises(DataError, match="folder you may write to"):
                    gallery.add(faces(["new/0"]))
                with pytest.raises(DataError, match="can not be written"):
                    gallery.save_cache(force=True)
            with pytest.raises(DataError, match="can not be made"):
                Gallery.open(folder / "inner", create=True)
        finally:
            reopen()
        assert state_of(folder) == before


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER t AFTER INSERT ON items BEGIN DELETE FROM items; END",
        "CREATE VIEW v AS SELECT * FROM items",
        "CREATE TABLE other (x)",
        "DROP TABLE removed",
        "DROP INDEX items_identity",
        "ALTER TABLE writes RENAME TO w; CREATE VIEW writes AS WITH RECURSIVE c(x, t, y, z) AS"
        " (SELECT 1, '', 1, 1 UNION ALL SELECT x + 1, '', 1, 1 FROM c) SELECT x AS generation, t AS token,"
        " y AS last, z AS items FROM c",
    ],
)
def test_other_tables_than_a_gallerys_are_refused(folder: Path, statement: str) -> None:
    with tables_of(folder) as db:
        db.executescript(statement)
    with pytest.raises(DataError, match="other tables than a gallery has"):
        Gallery.open(folder)


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE meta SET value = 'wide'", "its width"),
        ("UPDATE meta SET value = '1000000000'", "its width"),
        ("UPDATE writes SET token = x'00'", "no write on record"),
        ("UPDATE writes SET items = 'many'", "no write on record"),
        ("UPDATE writes SET items = 0", "40 items where 0 should be"),
        ("DELETE FROM items WHERE number = 1", "items where|items that the index knows"),
        ("INSERT INTO meta VALUES ('index', '" + "[" * 5000 + "')", "kind of its index"),
    ],
)
def test_values_that_no_gallery_has_are_one_line(folder: Path, statement: str, said: str) -> None:
    with tables_of(folder) as db:
        db.execute(statement)
    with Gallery.open(folder) as gallery, pytest.raises(DataError, match=said) as raised:
        gallery.hits(as_queries(faces(people(1)).vectors[:1], gallery.fingerprint or ""), 1)
    assert "\n" not in str(raised.value)
