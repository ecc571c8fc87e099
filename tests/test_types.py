from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from facenet.errors import DataError
from facenet.files import read_sealed, sha256_file, write_sealed
from facenet.types import EmbeddingSet, Pairs, image_key
from facenet.vectors import normalise


def example(n: int = 5, dim: int = 8) -> EmbeddingSet:
    vectors = normalise(np.random.default_rng(0).normal(size=(n, dim)))
    paths = [f"a,b/{'é' if i else 'x'}_{i:04d}.jpg" for i in range(n)]
    return EmbeddingSet(vectors, paths, [f"p{i % 2}" for i in range(n)], "f" * 64, "/somewhere")


@pytest.mark.parametrize("mmap", [False, True])
def test_round_trip(tmp_path: Path, mmap: bool) -> None:
    saved = example()
    saved.save(tmp_path / "e")
    loaded = EmbeddingSet.load(tmp_path / "e", mmap=mmap)
    np.testing.assert_array_equal(loaded.vectors, saved.vectors)
    assert (loaded.paths, loaded.identities) == (saved.paths, saved.identities)
    assert (loaded.fingerprint, loaded.root, loaded.dim, len(loaded)) == (saved.fingerprint, "/somewhere", 8, 5)


@pytest.mark.parametrize("name", ["vectors.npy", "items.csv", "meta.json"])
def test_a_changed_or_missing_file_does_not_load(tmp_path: Path, name: str) -> None:
    example().save(tmp_path)
    data = bytearray((tmp_path / name).read_bytes())
    data[len(data) // 2] ^= 1
    if name != "meta.json":
        (tmp_path / name).write_bytes(bytes(data))
        with pytest.raises(DataError, match="SHA-256"):
            EmbeddingSet.load(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(DataError, match="no such file"):
        EmbeddingSet.load(tmp_path)


def test_wrong_shapes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="do not fit"):
        EmbeddingSet(np.zeros((3, 4), np.float32), ["a"], ["b"], "f")
    with pytest.raises(DataError, match="float32"):
        EmbeddingSet(np.zeros((1, 4)), ["a"], ["b"], "f")
    with pytest.raises(DataError, match="facenet embed"):
        EmbeddingSet.load(tmp_path / "none")


def test_subset_keeps_order() -> None:
    chosen = example().subset([3, 1])
    assert chosen.paths == [example().paths[3], example().paths[1]]
    np.testing.assert_array_equal(chosen.vectors[1], example().vectors[1])


def test_encoders_that_go_together_stay_with_the_rows_but_not_on_disk(tmp_path: Path) -> None:
    queries = EmbeddingSet.unnamed(example().vectors, "f" * 64, compatible_with=["a" * 64])
    assert (len(queries), set(queries.paths), queries.compatible_with) == (5, {""}, ("a" * 64,))
    assert queries.subset([2]).compatible_with == ("a" * 64,)
    replace(example(), compatible_with=("a" * 64,)).save(tmp_path)
    assert EmbeddingSet.load(tmp_path).compatible_with == ()


def test_image_key_and_pairs_length() -> None:
    assert image_key("J.R._X/J.R._X_0001.jpeg") == "J.R._X/J.R._X_0001"
    assert len(Pairs(("a",), ("b",), np.array([True]), np.array([0]))) == 1


def resaved(folder: Path, **changes: object) -> None:
    meta = read_sealed(folder / "meta.json")
    sums = {name: sha256_file(folder / name) for name in ("vectors.npy", "items.csv")}
    write_sealed(folder / "meta.json", {**meta, "sha256": sums, **changes})


@pytest.mark.parametrize("key", ["fingerprint", "root", "count", "schema", "model"])
def test_a_changed_record_is_noticed(tmp_path: Path, key: str) -> None:
    EmbeddingSet(np.eye(3, dtype=np.float32), ["a", "b", "c"], ["", "", ""], "f", "/x", {"model": "m"}).save(tmp_path)
    content = json.loads((tmp_path / "meta.json").read_text())
    (tmp_path / "meta.json").write_text(json.dumps({**content, key: 7 if key in ("count", "schema") else "g"}))
    with pytest.raises(DataError, match="SHA-256"):
        EmbeddingSet.load(tmp_path)


@pytest.mark.parametrize(
    "items",
    [
        "",
        "row,path\n0,a\n",
        "row,path,identity\n0,a,x\n1,b\n2,c,z\n",
        "row,path,identity\n1,a,x\n0,b,y\n2,c,z\n",
        "row,path,identity\n0,a,x\n1,b,y\n",
        'row,path,identity\n0,"a,x\n',
        "row,path,identity\n0,a," + "x" * 200_000,
        *(
            f"row,path,identity\n0,a,x\n1,{bad},y\n2,c,z\n"
            for bad in ("", ".", "../b", "/etc/passwd", "a/../../b", "a\0b")
        ),
    ],
)
def test_items_are_checked_whatever_the_sum(tmp_path: Path, items: str) -> None:
    EmbeddingSet(np.eye(3, dtype=np.float32), ["a", "b", "c"], ["", "", ""], "f").save(tmp_path)
    (tmp_path / "items.csv").write_text(items)
    resaved(tmp_path)
    with pytest.raises(DataError) as raised:
        EmbeddingSet.load(tmp_path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("vectors", "changes", "said"),
    [
        (np.full((3, 3), np.nan, np.float32), {}, "not finite"),
        (np.eye(3, dtype=np.float32), {"count": 4}, "not of the vectors"),
        (np.eye(3, dtype=np.float32), {"dim": 2}, "not of the vectors"),
        (np.eye(3, dtype=np.float32), {"fingerprint": None}, "not of the vectors"),
        (np.zeros((3, 3), np.float64), {}, "expected float32"),
        (np.zeros((9,), np.float32), {}, "not of the vectors"),
    ],
)
def test_vectors_are_checked_whatever_the_sum(
    tmp_path: Path, vectors: np.ndarray, changes: dict[str, object], said: str
) -> None:
    EmbeddingSet(np.eye(3, dtype=np.float32), ["a", "b", "c"], ["", "", ""], "f").save(tmp_path)
    np.save(tmp_path / "vectors.npy", vectors)
    resaved(tmp_path, **changes)
    with pytest.raises(DataError, match=said):
        EmbeddingSet.load(tmp_path)


def test_a_path_that_would_not_load_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="leads outside its root"):
        EmbeddingSet(np.eye(1, dtype=np.float32), ["/a"], [""], "f").save(tmp_path)


def test_files_beside_are_checked_too(tmp_path: Path) -> None:
    (tmp_path / "more.csv").write_text("a\n")
    example().save(tmp_path, beside=["more.csv"])
    EmbeddingSet.load(tmp_path)
    (tmp_path / "more.csv").write_text("b\n")
    with pytest.raises(DataError, match=r"more\.csv: its SHA-256"):
        EmbeddingSet.load(tmp_path)
