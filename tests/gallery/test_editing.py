"""Items come in and go: all of a call or nothing, every id once, no number twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facenet.errors import ConfigError, DataError
from facenet.gallery.gallery import Gallery
from facenet.types import EmbeddingSet
from tests.helpers.galleries import (
    OURS,
    THEIRS,
    D,
    as_queries,
    assert_answers,
    faces,
    people,
    state_of,
    unit,
    vector_of,
)


def test_metadata_and_root_come_back(tmp_path: Path) -> None:
    names = people(1)
    given = EmbeddingSet(faces(names).vectors, names, ["Žofie", "", "a\n'b", "x"], OURS, root="/photos")
    with Gallery.open(tmp_path / "odd name #1?%20", create=True) as gallery:
        gallery.add(given, ids=["č", "b", "c", "d"], metadata=[{"camera": 1, "tags": ["é"]}, {}, {}, {}])
        found = gallery.search(as_queries(given.vectors), 1).rows[:, 0]
        item = gallery.items(found)[0]
    assert (item.id, item.identity, item.path, item.root) == ("č", "Žofie", "p0/0", "/photos")
    assert item.metadata == {"camera": 1, "tags": ["é"]}


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


def test_renamed_faces_keep_their_numbers_and_the_index(folder: Path) -> None:
    asked = as_queries(faces(people(10)).vectors)
    with Gallery.open(folder) as gallery:
        rows = gallery.search(asked, 3).rows
        means = gallery.hits(asked, 1, by_identity=True, identity_by="mean")
        assert gallery.rename("p3", "Ann", by="identity") == 4
        assert gallery.rename(["p5", "p6/0"], "Ann") == 5, "a person who is there"
        assert gallery.rename("p7/1", "") == 1
        assert gallery.identities() == {f"p{i}" for i in (0, 1, 2, 4, 6, 7, 8, 9)} | {"Ann"}
        np.testing.assert_array_equal(gallery.search(asked, 3).rows, rows)
        found = gallery.hits(as_queries(vector_of("p5/2")[None]), 1)[0][0]
        assert (found.id, found.identity, found.metadata) == ("p5/2", "Ann", {"camera": 22})
        now = gallery.hits(asked, 1, by_identity=True, identity_by="mean")
        assert now[20][0].sq_dist != means[20][0].sq_dist, "nine faces have another mean than four"
        assert (gallery.check(), gallery.info()["cache"], gallery.info()["identities"]) == ([], "current", 9)
        before = state_of(folder)
        for names, identity, by, said in (
            ("p5", "x", "identity", "no identity 'p5'"),
            ("p6", "b\udc80", "any", "no storable identity"),
            (["p6", "no"], "x", "any", "'no' in the gallery; nothing was renamed"),
        ):
            with pytest.raises(DataError, match=said):
                gallery.rename(names, identity, by=by)
        with pytest.raises(ConfigError, match="by:"):
            gallery.rename("p6", "x", by="name")
        assert state_of(folder) == before
    index = (folder / "index.faiss").stat().st_mtime_ns
    with Gallery.open(folder) as gallery:
        assert gallery.search(asked, 1).rows[0, 0] == rows[0, 0]
        gallery.remove("p9")
    assert (folder / "index.faiss").stat().st_mtime_ns > index
    with Gallery.open(folder) as gallery:
        assert gallery.check() == []


def test_numbers_are_never_used_again(folder: Path) -> None:
    with Gallery.open(folder) as gallery:
        query = faces(["p9/3"])
        row = gallery.search(as_queries(query.vectors), 1).rows[0]
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
        found = gallery.hits(as_queries(moved.vectors), 1)
        assert [(hits[0].id, hits[0].identity) for hits in found] == [("p1/0", "x"), ("new/0", "y"), ("p2/2", "z")]
        assert gallery.hits(as_queries(vector_of("p1/0")[None]), 1)[0][0].sq_dist > 0.01  # the old one is gone
        twice = EmbeddingSet(unit(2, 5), ["t", "t"], ["first", "last"], OURS)
        assert gallery.add(twice, on_duplicate="replace") == (1, 0, 1)
        assert gallery.hits(as_queries(unit(2, 5)), 1)[1][0].identity == "last"
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


def test_metadata_that_no_json_text_can_hold_are_refused(tmp_path: Path) -> None:
    """Every reader of a gallery could stumble over them: they are refused when they come."""
    good: dict[str, Any] = {"é": ["\U0001f600", None, {"x": [1.5]}]}
    for _ in range(28):
        good = {"in": good}
    endless: dict[str, Any] = {}
    endless["self"] = endless
    nested: Any = []
    for _ in range(10_000):
        nested = [nested]
    with Gallery.open(tmp_path, create=True) as gallery:
        for bad in ({"a": "\ud800"}, {"\ud800": 1}, {"in": good}, endless, {"a": nested}, {"a": float("nan")}):
            with pytest.raises(DataError, match="no storable id, identity, path or metadata"):
                gallery.add(faces(["a/1"]), metadata=[bad])
        gallery.add(faces(["a/1"]), metadata=[good])
        assert gallery.items([1])[0].metadata == good
        with pytest.raises(ConfigError, match="by: expected any, id or identity, got 'typo'"):
            gallery.find(["a"], by="typo")
