"""The gallery: right answers, no lost face, nothing wrong let in, and a cache that is never trusted blindly."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.faults.kinds import reseal_rows
from benchmarks.gallery import corrupted, kill_writer
from facenet.errors import ConfigError, DataError
from facenet.files import read_sealed, write_sealed
from facenet.gallery.faiss.file import FIELDS
from facenet.gallery.faiss.layers import Layers
from facenet.gallery.gallery import Gallery, Hit
from facenet.types import EmbeddingSet, Neighbours
from facenet.vectors import normalise
from tests.helpers import ROOT
from tests.helpers.galleries import OURS, THEIRS, D, brute, faces, people, unit, vector_of


def assert_answers(gallery: Gallery, names: list[str], k: int = 5, queries: int = 6) -> None:
    """The gallery holds exactly `names`, and its hits are those of a double precision loop."""
    assert len(gallery) == len(names)
    asked = unit(queries, 99)
    found = gallery.hits(asked, k, fingerprint=OURS)
    if not names:
        assert found == [[]] * queries
        return
    exact = brute(faces(names).vectors, asked)
    for hits, row in zip(found, exact, strict=True):
        assert [hit.rank for hit in hits] == list(range(1, min(k, len(names)) + 1))
        assert [hit.id for hit in hits] == [names[i] for i in np.argsort(row, kind="stable")[:k]]
        np.testing.assert_allclose([hit.sq_dist for hit in hits], np.sort(row)[:k], atol=2e-6)
        assert all(hit.identity == hit.id.split("/")[0] and hit.path == hit.id for hit in hits)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A gallery of ten people with four images, cache included."""
    with Gallery.open(tmp_path / "gallery", create=True) as gallery:
        gallery.add(faces(people(10)))
    return tmp_path / "gallery"


def state_of(folder: Path) -> tuple[object, ...]:
    with contextlib.closing(sqlite3.connect(folder / "items.sqlite")) as db:
        return tuple(
            tuple(db.execute(f"SELECT * FROM {t}")) for t in ("items", "writes", "encoders", "removed", "meta")
        )


# search


def test_search_equals_brute_force(folder: Path) -> None:
    with Gallery.open(folder) as gallery:
        assert_answers(gallery, people(10))
        assert_answers(gallery, people(10), k=100, queries=30)
        found = gallery.search(unit(3, 5), 50, fingerprint=OURS)
        assert (found.rows[:, 40:] == -1).all()
        assert np.isinf(found.sq_dist[:, 40:]).all()
        items = gallery.items(found.rows[0, :40])
        assert sorted(item.id for item in items) == sorted(people(10))
        assert items[0].fingerprint == OURS
        assert [item.number for item in items] == found.rows[0, :40].tolist()
        with pytest.raises(DataError, match="no item number -1"):
            gallery.items(found.rows[0])


def test_metadata_and_root_come_back(tmp_path: Path) -> None:
    names = people(1)
    given = EmbeddingSet(faces(names).vectors, names, ["Žofie", "", "a\n'b", "x"], OURS, root="/photos")
    with Gallery.open(tmp_path / "odd name #1?%20", create=True) as gallery:
        gallery.add(given, ids=["č", "b", "c", "d"], metadata=[{"camera": 1, "tags": ["é"]}, {}, {}, {}])
        found = gallery.search(given.vectors, 1, fingerprint=OURS).rows[:, 0]
        item = gallery.items(found)[0]
    assert (item.id, item.identity, item.path, item.root) == ("č", "Žofie", "p0/0", "/photos")
    assert item.metadata == {"camera": 1, "tags": ["é"]}


def test_by_identity_answers_once_for_each(tmp_path: Path) -> None:
    """Crowded: one person has 60 of the 100 images and lies nearest to the query."""
    vectors = unit(100, 3)
    vectors[:60] = normalise(vectors[:1] + 0.05 * vectors[:60])
    identities = ["crowd"] * 60 + [f"p{i // 4}" for i in range(30)] + [""] * 10
    with Gallery.open(tmp_path, create=True) as gallery:
        gallery.add(EmbeddingSet(vectors, [str(i) for i in range(100)], identities, OURS))
        queries = np.concatenate([vectors[:1], unit(4, 8)])
        for k in (1, 5, 18, 25):
            found = gallery.hits(queries, k, fingerprint=OURS, by_identity=True)
            for hits, row in zip(found, brute(vectors, queries), strict=True):
                groups: dict[str, int] = {}
                for i in np.argsort(row, kind="stable"):
                    groups.setdefault(identities[i] or f"#{i}", int(i))
                assert [hit.id for hit in hits] == [str(i) for i in groups.values()][:k]


def test_within_a_radius(folder: Path) -> None:
    vectors, queries = faces(people(10)).vectors, np.concatenate([faces(people(1)).vectors, unit(30, 4)])
    exact = brute(vectors, queries)
    with Gallery.open(folder) as gallery:
        for radius in (0.0, 1.0, 1.7, 4.0):
            for found, row in zip(gallery.within(queries, radius, fingerprint=OURS), exact, strict=True):
                want = np.flatnonzero(row <= radius + 1e-5)
                assert abs(len(found.rows) - len(want)) <= (radius == 0)  # 0 itself is a matter of rounding
                assert (np.diff(found.sq_dist) >= 0).all()
                if radius:
                    assert sorted(found.rows - 1) == want.tolist()
        with pytest.raises(DataError, match="max_sq_dist"):
            gallery.within(queries, float("nan"), fingerprint=OURS)


def test_unknown_faces_are_no_match() -> None:
    hit = Hit(1, "a", "A", "a.jpg", 1.1, "", {})
    assert hit.accepted(1.1)
    assert not hit.accepted(1.0999)


def test_empty_gallery_answers_nobody(tmp_path: Path) -> None:
    with Gallery.open(tmp_path, create=True, fingerprint=OURS, dim=D) as gallery:
        assert (gallery.dim, gallery.fingerprint, len(gallery)) == (D, OURS, 0)
        assert gallery.hits(unit(2), 3, fingerprint=OURS) == [[], []]
        assert gallery.hits(unit(2), 3, fingerprint=OURS, by_identity=True) == [[], []]
        assert (gallery.search(unit(2), 3, fingerprint=OURS).rows == -1).all()
        assert [len(found.rows) for found in gallery.within(unit(2), 4.0, fingerprint=OURS)] == [0, 0]
        assert gallery.check() == []
    with Gallery.open(tmp_path) as gallery:
        assert (gallery.dim, gallery.fingerprint) == (D, OURS)


# add and remove


def test_remove_by_id_and_identity(folder: Path) -> None:
    with Gallery.open(folder) as gallery:
        assert_answers(gallery, people(10))
        assert gallery.remove("p3/1") == 1
        assert gallery.remove("p5") == 4
        left = [name for name in people(10) if name != "p3/1" and not name.startswith("p5/")]
        assert_answers(gallery, left, k=40)
        assert gallery.remove(["p0", "p1/2", "p1/3"]) == 6
        left = [name for name in left if not name.startswith("p0/") and name not in ("p1/2", "p1/3")]
        assert_answers(gallery, left, k=40)
        assert gallery.identities() == {f"p{i}" for i in range(10)} - {"p0", "p5"}
        assert gallery.check() == []
        before = state_of(folder)
        with pytest.raises(DataError, match="no id or identity 'p5'"):
            gallery.remove(["p6", "p5"])
        with pytest.raises(ConfigError, match="by:"):
            gallery.remove("p6", by="name")
        assert state_of(folder) == before
    with Gallery.open(folder) as gallery:
        assert_answers(gallery, left, k=40)


def test_a_name_that_is_both_must_be_told_apart(tmp_path: Path) -> None:
    with Gallery.open(tmp_path, create=True) as gallery:
        gallery.add(faces(["ada/1", "ada/2", "bob/1"]), ids=["1", "2", "ada"])
        with pytest.raises(DataError, match="by=id or identity"):
            gallery.remove("ada")
        assert gallery.remove("ada", by="id") == 1
        assert gallery.remove("ada", by="identity") == 2
        assert len(gallery) == 0


def test_numbers_are_never_used_again(folder: Path) -> None:
    with Gallery.open(folder) as gallery:
        query = faces(["p9/3"])
        row = gallery.search(query.vectors, 1, fingerprint=OURS).rows[0]
        gallery.remove("p9/3")
        gallery.add(faces(["new/0"]))
        with pytest.raises(DataError, match="removed since the search"):
            gallery.items(row)


def test_duplicates(folder: Path) -> None:
    again = faces(["p1/0", "new/0", "p2/2"])
    moved = EmbeddingSet(unit(3, 77), again.paths, ["x", "y", "z"], OURS)
    with Gallery.open(folder) as gallery:
        assert_answers(gallery, people(10))
        before = state_of(folder)
        with pytest.raises(DataError, match=r"'p1/0', 'p2/2' are in the gallery already; nothing was added"):
            gallery.add(again)
        with pytest.raises(DataError, match=r"'new/1' is given twice"):
            gallery.add(faces(["new/1", "new/2", "new/1"]))
        with pytest.raises(ConfigError, match="on_duplicate"):
            gallery.add(again, on_duplicate="replcae")
        assert state_of(folder) == before
        assert gallery.add(again, on_duplicate="skip") == (1, 0, 2)
        assert_answers(gallery, [*people(10), "new/0"])
        assert gallery.add(again, on_duplicate="skip") == (0, 0, 3)
        assert gallery.add(moved, on_duplicate="replace") == (0, 3, 0)
        assert len(gallery) == 41
        found = gallery.hits(moved.vectors, 1, fingerprint=OURS)
        assert [(hits[0].id, hits[0].identity) for hits in found] == [("p1/0", "x"), ("new/0", "y"), ("p2/2", "z")]
        assert gallery.hits(vector_of("p1/0")[None], 1, fingerprint=OURS)[0][0].sq_dist > 0.01  # the old one is gone
        twice = EmbeddingSet(unit(2, 5), ["t", "t"], ["first", "last"], OURS)
        assert gallery.add(twice, on_duplicate="replace") == (1, 0, 1)
        assert gallery.hits(unit(2, 5), 1, fingerprint=OURS)[1][0].identity == "last"
        assert gallery.check() == []


def spoiled(row: int, value: float | np.ndarray) -> EmbeddingSet:
    new = faces(people(2, start=20))
    new.vectors[row] = value
    return new


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (spoiled(3, np.nan), r"row 3 \(p20/3\): is NaN"),
        (spoiled(0, np.inf), r"row 0 \(p20/0\): is NaN, infinite"),
        (spoiled(5, 0.0), r"row 5 \(p21/1\): is zero"),
        (spoiled(7, 1.01 * unit(1)[0]), r"row 7 \(p21/3\): is not of unit length \(norm 1.01\)"),
        (EmbeddingSet(unit(2, dim=8), ["a", "b"], ["", ""], OURS), "expected width 16.* got 8"),
        (EmbeddingSet(np.empty((0, D), np.float32), [], [], OURS), "shape"),
        (faces(people(1, start=20), ""), "no encoder fingerprint"),
        (
            faces(people(1, start=20), THEIRS),
            f"encoder {OURS[:12]}, got vectors of encoder {THEIRS[:12]}.*compatible_with",
        ),
        (EmbeddingSet(unit(2), ["a", ""], ["", ""], OURS), "an empty id"),
        (EmbeddingSet(unit(2), ["a", "b\udc80"], ["", ""], OURS), "no storable id"),
    ],
)
def test_add_refuses_and_leaves_the_old_state(folder: Path, bad: EmbeddingSet, said: str) -> None:
    before = state_of(folder)
    with Gallery.open(folder) as gallery:
        with pytest.raises(DataError, match=said) as caught:
            gallery.add(bad)
        assert "\n" not in str(caught.value)
        assert state_of(folder) == before
        assert_answers(gallery, people(10))


def test_add_refuses_odd_ids_and_metadata(folder: Path) -> None:
    new = faces(people(1, start=20))
    before = state_of(folder)
    with Gallery.open(folder) as gallery:
        for options in (
            {"ids": ["a"]},
            {"ids": [1, 2, 3, 4]},
            {"metadata": [{}]},
            {"metadata": [{}, {}, {"x": float("nan")}, {}]},
            {"metadata": [{}, {}, {"x": object()}, {}]},
        ):
            with pytest.raises(DataError, match="embeddings: "):
                gallery.add(new, **options)
    assert state_of(folder) == before


@pytest.mark.parametrize(
    ("queries", "k", "fingerprint", "said"),
    [
        (unit(2), 0, OURS, "k: expected at least 1"),
        (unit(2, dim=8), 1, OURS, "expected width 16, got 8"),
        (2 * unit(2), 1, OURS, "queries: .*not of unit length"),
        (0 * unit(2), 1, OURS, "queries: .*zero"),
        (np.nan * unit(2), 1, OURS, "queries: .*NaN"),
        (unit(2)[:0], 1, OURS, "shape"),
        (unit(2), 1, THEIRS, f"{OURS[:12]}.*{THEIRS[:12]}"),
        (unit(2), 1, "", "no encoder fingerprint"),
    ],
)
def test_search_refuses(folder: Path, queries: np.ndarray, k: int, fingerprint: str, said: str) -> None:
    with Gallery.open(folder) as gallery:
        for search in (gallery.search, gallery.hits):
            with pytest.raises(DataError, match=said):
                search(queries, k, fingerprint=fingerprint)
        assert_answers(gallery, people(10))


def test_a_compatible_encoder_is_let_in(folder: Path) -> None:
    new = faces(people(1, start=20), THEIRS)
    with pytest.raises(DataError, match="belongs to encoder"):
        Gallery.open(folder, fingerprint=THEIRS)
    with pytest.raises(DataError, match="expected width 16"):
        Gallery.open(folder, fingerprint=OURS, dim=8)
    with Gallery.open(folder, fingerprint=OURS, dim=D) as gallery:
        assert gallery.hits(unit(1), 1, fingerprint=THEIRS, compatible_with=[OURS])
        assert gallery.info()["fingerprints"] == {OURS: 40}  # asking records nothing
        with pytest.raises(DataError, match="belongs to encoder"):
            gallery.add(new, compatible_with=["ef" * 32])
        gallery.add(new, compatible_with=["ef" * 32, OURS])
        assert gallery.info()["fingerprints"] == {OURS: 40, THEIRS: 4}
        assert gallery.fingerprint == OURS
        assert gallery.hits(new.vectors[:1], 1, fingerprint=THEIRS)[0][0].id == "p20/0"
        assert_answers(gallery, people(10) + people(1, start=20))


def test_a_failed_first_add_leaves_the_gallery_unclaimed(tmp_path: Path) -> None:
    with Gallery.open(tmp_path, create=True) as gallery:
        with pytest.raises(DataError, match="no storable"):
            gallery.add(faces(people(1), THEIRS), metadata=[{"x": object()}] * 4)
        with pytest.raises(DataError, match="twice"):
            gallery.add(faces(["a/1", "a/1"], THEIRS))
        assert gallery.fingerprint is None
        gallery.add(faces(people(1)))
        assert gallery.fingerprint == OURS


# the cache


def test_info_and_the_cache_that_lags(folder: Path) -> None:
    with Gallery.open(folder) as gallery:
        info = gallery.info()
        assert {name: info[name] for name in ("count", "identities", "dim", "fingerprint", "generation", "cache")} == {
            "count": 40, "identities": 10, "dim": D, "fingerprint": OURS, "generation": 1, "cache": "current",
        }  # fmt: skip
        assert info["bytes"]["items.sqlite"] > 0
        assert info["bytes"]["index.faiss"] >= 40 * D * 4
        gallery.add(faces(people(30, start=10)))
        assert gallery.info()["cache"] == "behind"
    with Gallery.open(folder) as gallery:
        assert gallery.info()["cache"] == "current"
        gallery.add(faces(["one/0"]))
    with Gallery.open(folder) as gallery:
        assert gallery.info()["cache"] == "behind"  # one of 160 is not worth writing it again
        assert_answers(gallery, [*people(40), "one/0"])
        assert gallery.save_cache(force=True)
        assert not gallery.save_cache()
        assert gallery.info()["cache"] == "current"
        assert gallery.check() == []


def rebuilt(folder: Path, names: list[str]) -> None:
    """Whatever lies there as a cache, answers are right, and afterwards the cache is whole."""
    with Gallery.open(folder) as gallery:
        assert_answers(gallery, names)
    with Gallery.open(folder) as gallery:
        assert gallery.check() == []
        assert gallery.info()["cache"] == "current"


def test_lost_cache(folder: Path) -> None:
    for lost in (["index.faiss"], ["index.json"], ["index.faiss", "index.json"]):
        for name in lost:
            (folder / name).unlink()
        rebuilt(folder, people(10))


def test_stale_cache_is_replayed(folder: Path) -> None:
    old = {name: (folder / name).read_bytes() for name in ("index.faiss", "index.json")}
    with Gallery.open(folder) as gallery:
        gallery.remove(["p0", "p7/2"])
        gallery.add(faces(people(10, start=30)))
        gallery.remove("p31")
        gallery.add(faces(["p30/0"]), on_duplicate="replace")
    for name, content in old.items():
        (folder / name).write_bytes(content)
    names = [n for n in people(10) + people(10, start=30) if n.split("/")[0] not in ("p0", "p31") and n != "p7/2"]
    rebuilt(folder, names)


def test_cache_of_another_history(tmp_path: Path, folder: Path) -> None:
    """A backup restored beside a newer cache: same counts and generation, other faces."""
    shutil.copytree(folder, tmp_path / "backup")
    for where, new in ((folder, people(10, start=50)), (tmp_path / "backup", people(10, start=70))):
        with Gallery.open(where) as gallery:
            gallery.add(faces(new))
    for name in ("index.faiss", "index.json"):
        shutil.copy(folder / name, tmp_path / "backup" / name)
    with Gallery.open(tmp_path / "backup") as gallery:
        assert gallery.info()["cache"] == "missing"
    rebuilt(tmp_path / "backup", people(10) + people(10, start=70))


@pytest.mark.parametrize("name", ["index.faiss", "index.json"])
def test_corrupted_cache_is_never_served(folder: Path, name: str) -> None:
    sound, rng, told = (folder / name).read_bytes(), random.Random(5), 0
    for _ in range(50):
        (folder / name).write_bytes(corrupted(sound, rng))
        with Gallery.open(folder) as gallery:
            told += gallery.check() != []
            assert_answers(gallery, people(10))
        (folder / name).write_bytes(sound)
    assert told >= (45 if name == "index.faiss" else 20)  # a zeroed zero or white space in JSON harms nothing


def test_temporary_files_of_dead_writers_are_swept(folder: Path) -> None:
    old, young = folder / ".index.faiss.abc.tmp", folder / ".index.faiss.def.tmp"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    with Gallery.open(folder) as gallery:
        gallery.save_cache(force=True)
    assert not old.exists()
    assert young.exists()


# the truth


def test_foreign_and_missing_folders(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(DataError, match="no gallery there"):
        Gallery.open(tmp_path / "nowhere")
    for name, content in (("text", b"not a database, but long enough to look like one\n" * 50), ("empty", b"")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "items.sqlite").write_bytes(content)
        with pytest.raises(DataError, match="not a gallery") as caught:
            Gallery.open(tmp_path / name)
        assert "\n" not in str(caught.value)
    with contextlib.closing(sqlite3.connect(tmp_path / "empty" / "items.sqlite")) as db:
        db.execute("CREATE TABLE items (a)")
    with pytest.raises(DataError, match="not a gallery"):
        Gallery.open(tmp_path / "empty", create=True)
    with contextlib.closing(sqlite3.connect(folder / "items.sqlite")) as db:
        db.execute("PRAGMA user_version=9")
    with pytest.raises(DataError, match="schema 9, this version reads 1"):
        Gallery.open(folder)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match="can not be made"):
        Gallery.open(tmp_path / "file", create=True)


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
        with contextlib.closing(sqlite3.connect(folder.parent / "copy" / "items.sqlite", isolation_level=None)) as db:
            db.execute(statement)
        with Gallery.open(folder.parent / "copy") as gallery:
            assert any(said in problem for problem in gallery.check()), gallery.check()


def test_damaged_metadata_is_told(folder: Path) -> None:
    with contextlib.closing(sqlite3.connect(folder / "items.sqlite", isolation_level=None)) as db:
        db.execute("UPDATE items SET metadata = '{' WHERE id = 'p1/1'")
    with Gallery.open(folder) as gallery, pytest.raises(DataError, match="the content of item 6"):
        gallery.hits(vector_of("p1/1")[None], 1, fingerprint=OURS)


def used(folder: Path) -> list[str]:
    """What a damaged gallery says when checked and searched."""
    try:
        with Gallery.open(folder) as gallery:
            problems = gallery.check()
            gallery.info()
            gallery.hits(unit(3), 40, fingerprint=OURS)
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
    assert silent < 25


@pytest.mark.parametrize("factory", ["", "IVF1,Flat"])  # another kind, exact too, as the answers are compared
def test_killed_writers_lose_nothing(tmp_path: Path, factory: str) -> None:
    rng, added, removed = random.Random(1), set(), set()
    for run in range(6):
        lines = kill_writer(tmp_path / "gallery", run, rng, factory=factory)
        new = [name for line in lines if line.startswith("+") for name in line[1:].split()]
        gone = [line[1:] for line in lines if line.startswith("-")]
        added.update(new)
        removed.update(gone)
        with Gallery.open(tmp_path / "gallery") as gallery:
            assert [line for line in gallery.check() if "index." not in line] == []
            with gallery._reading():
                there = set(gallery._column("SELECT id FROM items"))
            assert added - removed - there <= {f"r{run}b{b}/0" for b in range(10**3)}, "an acknowledged face is lost"
            assert len(added - removed - there) <= 1  # a removal done but not yet acknowledged
            assert not removed & there
            assert len(there - added) in (0, 19, 20), "half a batch"
            removed |= added - there
            added |= there
            assert_answers(gallery, sorted(there))
    assert len(added) > 200


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


def test_full_disk_leaves_the_old_cache(folder: Path) -> None:
    before, limits = (folder / "index.faiss").read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    with Gallery.open(folder) as gallery:
        gallery.search(unit(1), 1, fingerprint=OURS)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        try:
            with pytest.raises(DataError, match="the old file, if any, is unchanged"):
                gallery.save_cache(force=True)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert (folder / "index.faiss").read_bytes() == before
        assert gallery.check() == []


@contextlib.contextmanager
def no_rights(folder: Path) -> Iterator[None]:
    """Take the right to write `folder` away, from root too (who becomes nobody meanwhile)."""
    root = os.geteuid() == 0
    folder.chmod(0o555)
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o755)


def test_read_only_folder() -> None:
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        folder = Path(name) / "gallery"
        with Gallery.open(folder, create=True) as gallery:
            gallery.add(faces(people(10)))
        (folder / "index.faiss").unlink()
        before = state_of(folder)
        with no_rights(folder):
            with Gallery.open(folder) as gallery:
                assert_answers(gallery, people(10))
                with pytest.raises(DataError, match="folder you may write to"):
                    gallery.add(faces(["new/0"]))
                with pytest.raises(DataError, match="can not be written"):
                    gallery.save_cache(force=True)
            with pytest.raises(DataError, match="can not be made"):
                Gallery.open(folder / "inner", create=True)
        assert state_of(folder) == before


def test_readers_beside_a_writer(folder: Path) -> None:
    with Gallery.open(folder) as reader, Gallery.open(folder) as writer:
        assert_answers(reader, people(10))
        with writer._writing() as state:
            writer._remove([1, 2, 3], state)
            assert_answers(reader, people(10))  # not committed: not seen
            writer._db.execute("ROLLBACK")
            writer._db.execute("BEGIN")
        writer.remove("p0")
        assert_answers(reader, people(9, start=1))
        writer.add(faces(people(2, start=10)))
        assert_answers(reader, people(11, start=1))


def test_hits_and_their_names_are_of_one_state(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A removal between the search and the look-up of names has to wait."""
    search = Layers.search

    def interrupted(*args: Any, **options: Any) -> Neighbours:
        with pytest.raises(DataError, match="another process"):
            writer.remove("p0")
        return search(*args, **options)

    with Gallery.open(folder) as reader, Gallery.open(folder, timeout=0.05) as writer:
        monkeypatch.setattr(Layers, "search", interrupted)
        assert_answers(reader, people(10), k=40)
        monkeypatch.undo()
        assert writer.remove("p0") == 4
        assert_answers(reader, people(9, start=1))


def test_a_second_writer_is_told(folder: Path) -> None:
    with (
        Gallery.open(folder) as first,
        Gallery.open(folder, timeout=0.05) as second,
        first._writing(),
        pytest.raises(DataError, match="another process is writing"),
    ):
        second.add(faces(["new/0"]))
    with Gallery.open(folder) as gallery:
        gallery.add(faces(["new/0"]))


def add_batches() -> None:
    """The child of the test below."""
    with Gallery.open(sys.argv[1]) as gallery:
        for batch in range(12):
            time.sleep(0.04)  # lets the reader see states in between
            gallery.add(faces([f"{sys.argv[2]}{batch}/{i}" for i in range(40)]))


def test_two_writing_processes_and_a_reader(folder: Path) -> None:
    command = [sys.executable, "-c", "import tests.gallery.test_gallery as t; t.add_batches()", str(folder)]
    children = [subprocess.Popen([*command, name], cwd=ROOT) for name in "ab"]
    seen = set()
    with Gallery.open(folder) as gallery:
        while any(child.poll() is None for child in children):
            hits = gallery.hits(unit(2), 10**4, fingerprint=OURS)
            seen.add(len(hits[0]))
            assert {hit.id for hit in hits[0]} == {hit.id for hit in hits[1]}
            time.sleep(0.005)
        assert [child.returncode for child in children] == [0, 0]
        assert len(gallery) == 40 * 25
        assert gallery.check() == []
    assert all(count % 40 == 0 for count in seen)  # whole batches only
    assert len(seen) > 3


def test_needs_no_torch_and_no_faiss_at_import() -> None:
    code = "import sys, facenet.gallery.gallery; print([m for m in ('torch', 'faiss', 'pandas') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    code = """if True:
        import sys, numpy as np
        from facenet.neighbours import knn_search
        print(knn_search(np.eye(3), np.eye(3), 1).rows.ravel().tolist(), "torch" in sys.modules)"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[0, 1, 2] False\n"


NAMES = st.lists(st.integers(0, 11).map(lambda i: f"p{i // 3}/{i % 3}"), min_size=1, max_size=6, unique=True)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["error", "skip", "replace", "remove"]), NAMES),
        st.tuples(st.just("person"), st.integers(0, 3).map("p{}".format)),
        st.tuples(st.sampled_from(["search", "reopen", "save", "lose"]), st.none()),
    ),
    max_size=12,
)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(STEPS)
def test_any_history_equals_a_dict(steps: list[tuple[str, object]]) -> None:
    model: list[str] = []  # in the order of their numbers
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:

        def opened() -> Gallery:
            gallery = stack.enter_context(Gallery.open(name, create=True))
            gallery._db.execute("PRAGMA synchronous=OFF")  # durability has its own test
            return gallery

        gallery = opened()
        gallery.add(faces(["p0/0"]))
        model.append("p0/0")
        for step, what in steps:
            if step in ("error", "skip", "replace"):
                clash = [n for n in what if n in model]
                if step == "error" and clash:
                    with pytest.raises(DataError, match="already"):
                        gallery.add(faces(what))
                    continue
                gallery.add(faces(what), on_duplicate=step)
                model = [n for n in model if step != "replace" or n not in what]
                model += [n for n in what if n not in model]
            elif step in ("remove", "person"):
                names = what if step == "remove" else [n for n in model if n.split("/")[0] == what]
                if not names or not set(names) <= set(model):
                    with pytest.raises(DataError, match="nothing was removed"):
                        gallery.remove(what)
                    continue
                assert gallery.remove(what) == len(names)
                model = [n for n in model if n not in names]
            elif step == "reopen":
                gallery.close()
                gallery = opened()
            elif step == "save":
                gallery.save_cache(force=True)
            elif step == "lose":
                (Path(name) / "index.faiss").unlink(missing_ok=True)
            else:
                assert_answers(gallery, model)
        assert_answers(gallery, model, k=20)
        assert [p for p in gallery.check() if "index.faiss can not be read" not in p] == []


def test_header_is_plain_json(folder: Path) -> None:
    header = json.loads((folder / "index.json").read_text())
    assert set(header) == {"schema", "digest", *FIELDS}
    assert header["recipe"] == ["auto", "", 0.99]


def test_a_changed_header_is_not_believed(folder: Path) -> None:
    header = json.loads((folder / "index.json").read_text())
    for name, value in (("fetch", 0), ("generation", 0), ("holes", [3]), ("recall", {"at_1": 1.0}), ("digest", "")):
        (folder / "index.json").write_text(json.dumps(header | {name: value}))
        with Gallery.open(folder) as gallery:
            assert "index.json" in gallery.check()[0]
            assert_answers(gallery, people(10))


# hostile files


@pytest.mark.parametrize("column", ["identity", "path", "root", "metadata", "vector", "id"])
def test_an_item_that_was_changed_is_not_served(folder: Path, column: str) -> None:
    with contextlib.closing(sqlite3.connect(folder / "items.sqlite", isolation_level=None)) as db:
        other = faces(people(1)).vectors[1].tobytes() if column == "vector" else "{}" if column == "metadata" else "q"
        (before,) = db.execute(f"SELECT {column} FROM items WHERE number = 6").fetchone()
        db.execute(f"UPDATE items SET {column} = ? WHERE number = 6", (other if before != other else '{"a": 1}',))
    with Gallery.open(folder) as gallery, pytest.raises(DataError, match="the content of item 6"):
        gallery.items([6])
    (folder / "index.faiss").unlink()
    with Gallery.open(folder) as gallery, pytest.raises(DataError, match="the content of item 6"):
        gallery.hits(faces(people(1)).vectors[:1], 1, fingerprint=gallery.fingerprint or "")


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
    with contextlib.closing(sqlite3.connect(folder / "items.sqlite", isolation_level=None)) as db:
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
    with contextlib.closing(sqlite3.connect(folder / "items.sqlite", isolation_level=None)) as db:
        db.execute(statement)
    with Gallery.open(folder) as gallery, pytest.raises(DataError, match=said) as raised:
        gallery.hits(faces(people(1)).vectors[:1], 1, fingerprint=gallery.fingerprint or "")
    assert "\n" not in str(raised.value)


def test_paths_out_of_their_root_are_neither_taken_nor_served(folder: Path) -> None:
    one = faces(people(1)).subset([0])
    with Gallery.open(folder) as gallery, pytest.raises(DataError, match="leads outside its root"):
        gallery.add(EmbeddingSet(one.vectors, ["../x"], ["x"], one.fingerprint), ids=["x"])
    with contextlib.closing(sqlite3.connect(folder / "items.sqlite", isolation_level=None)) as db:
        db.execute("UPDATE items SET path = '../x' WHERE number = 6")
        reseal_rows(db)
    with Gallery.open(folder) as gallery, pytest.raises(DataError, match="texts, metadata or encoder of item 6"):
        gallery.items([6])


@pytest.mark.parametrize(
    "change",
    [
        {"parameter": "speed=1"},
        {"parameter": "nprobe=many"},
        {"fetch": 10**9},
        {"error": -1.0},
        {"generation": 10**30},
        {"holes": [10**30]},
        {"holes": ["x"]},
    ],
)
def test_a_sealed_header_is_checked_too(folder: Path, change: dict[str, Any]) -> None:
    write_sealed(folder / "index.json", read_sealed(folder / "index.json") | change)
    with Gallery.open(folder) as gallery:
        assert "index." in gallery.check()[0]
        assert_answers(gallery, people(10))


def test_a_sealed_index_of_other_items_is_one_line(folder: Path) -> None:
    import faiss

    header, other = read_sealed(folder / "index.json"), faiss.IndexIDMap(faiss.IndexFlatL2(faces(people(1)).dim))
    other.add_with_ids(faces(people(10)).vectors, np.arange(1000, 1040))
    faiss.write_index(other, str(folder / "index.faiss"))
    content = (folder / "index.faiss").read_bytes()
    sums = {"bytes": len(content), "sha256": [hashlib.sha256(content).hexdigest()]}
    write_sealed(folder / "index.json", header | sums)
    for by_identity in (False, True):
        with Gallery.open(folder) as gallery, pytest.raises(DataError, match=r"[14] items that the index knows"):
            gallery.hits(
                faces(people(1)).vectors[:1], 1, fingerprint=gallery.fingerprint or "", by_identity=by_identity
            )
