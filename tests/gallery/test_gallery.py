"""The gallery as a whole: encoders that go together, readers and writers side by side, any history of edits."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facenet.errors import DataError
from facenet.gallery.gallery import Gallery
from tests.helpers import ROOT
from tests.helpers.galleries import (
    OURS,
    THEIRS,
    D,
    as_queries,
    assert_answers,
    clustered,
    faces,
    filled,
    joining,
    numbered,
    people,
    state_of,
    tables_of,
    unit,
)


def test_a_compatible_encoder_is_let_in(folder: Path) -> None:
    new = faces(people(1, start=20), THEIRS)
    with pytest.raises(DataError, match="belongs to encoder"):
        Gallery.open(folder, fingerprint=THEIRS)
    with pytest.raises(DataError, match="expected width 16"):
        Gallery.open(folder, fingerprint=OURS, dim=8)
    with Gallery.open(folder, fingerprint=OURS, dim=D) as gallery:
        assert gallery.hits(as_queries(unit(1), THEIRS, [OURS]), 1)
        assert gallery.info()["fingerprints"] == {OURS: 40}  # asking records nothing
        with pytest.raises(DataError, match="belongs to encoder"):
            gallery.add(joining(new, ["ef" * 32]))
        gallery.add(joining(new, ["ef" * 32, OURS]))
        assert gallery.info()["fingerprints"] == {OURS: 40, THEIRS: 4}
        assert gallery.fingerprint == OURS
        assert gallery.hits(as_queries(new.vectors[:1], THEIRS), 1)[0][0].id == "p20/0"
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


def test_readers_beside_a_writer(folder: Path) -> None:
    with Gallery.open(folder) as reader, Gallery.open(folder) as writer:
        assert_answers(reader, people(10))
        with tables_of(folder) as db:
            db.execute("BEGIN IMMEDIATE")
            db.execute("DELETE FROM items WHERE number < 4")
            assert_answers(reader, people(10))  # not committed: not seen
            db.execute("ROLLBACK")
        writer.remove("p0")
        assert_answers(reader, people(9, start=1))
        writer.add(faces(people(2, start=10)))
        assert_answers(reader, people(11, start=1))


def test_a_second_writer_is_told(folder: Path) -> None:
    with Gallery.open(folder, timeout=0.05) as gallery, tables_of(folder) as db:
        db.execute("BEGIN IMMEDIATE")
        with pytest.raises(DataError, match="another process is writing"):
            gallery.add(faces(["new/0"]))
        db.execute("ROLLBACK")
        gallery.add(faces(["new/0"]))


ADD_BATCHES = """
import sys, time
from facenet.gallery.gallery import Gallery
from tests.helpers.galleries import faces
with Gallery.open(sys.argv[1]) as gallery:
    for batch in range(6):
        gallery.add(faces([f"{sys.argv[2]}{batch}/{i}" for i in range(40)]))
        time.sleep(0.05)  # lets the reader see states in between
"""


def test_two_writing_processes_and_a_reader(folder: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}
    command = [sys.executable, "-c", ADD_BATCHES, str(folder)]
    children = [subprocess.Popen([*command, name], env=environment) for name in "ab"]
    seen = set()
    with Gallery.open(folder) as gallery:
        while any(child.poll() is None for child in children):
            hits = gallery.hits(as_queries(unit(2)), 10**4)
            seen.add(len(hits[0]))
            assert {hit.id for hit in hits[0]} == {hit.id for hit in hits[1]}
            time.sleep(0.02)
        assert [child.returncode for child in children] == [0, 0]
        assert len(gallery) == 40 * 13
        assert gallery.check() == []
    assert all(count % 40 == 0 for count in seen)  # whole batches only
    assert len(seen) > 3


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
            gallery._engine.truth.database.execute("PRAGMA synchronous=OFF")  # durability has its own test
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


def test_compacting_gives_space_back_and_loses_nothing(tmp_path: Path) -> None:
    vectors, identities = clustered(150, 4)
    filled(tmp_path, "IVF32,SQ8", vectors, identities)
    with Gallery.open(tmp_path) as gallery, Gallery.open(tmp_path) as reader:
        reader.search(as_queries(vectors[:1]), 1)
        gallery.remove([f"p{i}" for i in range(100)])
        done = gallery.compact()
        assert done["bytes_after"] < 0.6 * done["bytes_before"]
        assert gallery.check() == []
        for one in (gallery, reader):
            found = one.hits(as_queries(vectors[400:]), 1)
            assert np.mean([hits[0].sq_dist < 1e-5 for hits in found]) > 0.98
            assert not any(hits[0].identity in {f"p{i}" for i in range(100)} for hits in found)
        assert state_of(tmp_path)[3] == (), "nothing is kept of the removed ones"
        reader.add(numbered(*clustered(1, seed=5), "new"))
        assert len(gallery) == 206


def test_a_vector_is_found_by_its_id(tmp_path: Path) -> None:
    vectors, identities = clustered(5)
    filled(tmp_path, "SQ8", vectors, identities)
    with Gallery.open(tmp_path) as gallery:
        assert [len(gallery) for _ in gallery.blocks()] == [30], "a block can be looked at while it is read"
        item, vector = gallery.vector("f7")
        assert (item.identity, item.number) == ("p1", 8)
        np.testing.assert_array_equal(vector, vectors[7])
        with pytest.raises(DataError, match="no id 'f99'"):
            gallery.vector("f99")
        blocks = list(gallery.blocks())
    assert [item.id for items, _ in blocks for item in items] == [f"f{i}" for i in range(30)]
    np.testing.assert_array_equal(np.concatenate([block for _, block in blocks]), vectors)
