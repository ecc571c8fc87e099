"""What goes into a gallery comes out of it in every form: ids, people, paths, metadata, encoder and vectors."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from facenet.errors import ConfigError, DataError
from facenet.gallery.exchange import read_embeddings, read_metadata, write_items
from facenet.gallery.gallery import Gallery
from facenet.types import EmbeddingSet
from facenet.vectors import normalise
from tests.helpers.galleries import OURS, THEIRS, as_queries, joining

D = 8


@pytest.fixture
def gallery(tmp_path: Path) -> Gallery:
    vectors = normalise(np.random.default_rng(0).normal(size=(30, D)))
    paths = [f"p{i // 3}/č{i}.jpg" for i in range(30)]
    given = EmbeddingSet(vectors, paths, [f"p{i // 3}" if i % 4 else "" for i in range(30)], OURS, root="/photos")
    gallery = Gallery.open(tmp_path / "gallery", create=True)
    gallery.add(
        given, ids=[f"id{i}" for i in range(30)], metadata=[{"camera": i % 2, "tags": ["ž"]} for i in range(30)]
    )
    gallery.remove("id5")
    yield gallery
    gallery.close()


def contents(gallery: Gallery) -> dict[str, tuple[object, ...]]:
    return {
        item.id: (item.identity, item.root, item.path, item.metadata, item.fingerprint, vector.tolist())
        for items, vectors in gallery.blocks()
        for item, vector in zip(items, vectors, strict=True)
    }


def test_an_embeddings_folder_makes_the_same_gallery_again(gallery: Gallery, tmp_path: Path) -> None:
    told = []
    assert write_items(gallery, "npy", tmp_path / "out", progress=lambda done, total: told.append((done, total))) == 29
    assert told == [(29, 29)]
    embeddings = EmbeddingSet.load(tmp_path / "out")
    ids, metadata = read_metadata(tmp_path / "out" / "metadata.jsonl", embeddings.paths)
    with Gallery.open(tmp_path / "again", create=True) as again:
        again.add(embeddings, ids=ids, metadata=metadata)
        assert contents(again) == contents(gallery)


def test_vectors_of_two_encoders_go_into_two_folders(gallery: Gallery, tmp_path: Path) -> None:
    other = EmbeddingSet(normalise(np.ones((1, D))), ["x.jpg"], ["x"], THEIRS, root="/elsewhere")
    gallery.add(joining(other, [OURS]))
    assert write_items(gallery, "npy", tmp_path / "out") == 30
    parts = {path.name: EmbeddingSet.load(path) for path in (tmp_path / "out").iterdir()}
    assert {name: (len(part), part.fingerprint) for name, part in parts.items()} == {
        OURS[:12]: (29, OURS),
        THEIRS[:12]: (1, THEIRS),
    }


def test_a_parquet_file(gallery: Gallery, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed (the extra parquet)")
    write_items(gallery, "parquet", tmp_path / "faces.parquet")
    rows = parquet.read_table(tmp_path / "faces.parquet").to_pylist()
    assert {
        row["id"]: (
            row["identity"],
            row["root"],
            row["path"],
            json.loads(row["metadata"]),
            row["fingerprint"],
            row["vector"],
        )
        for row in rows
    } == contents(gallery)
    assert [row["number"] for row in rows] == [i for i in range(1, 31) if i != 6]


@pytest.mark.slow  # starts an engine of others
def test_a_qdrant_collection_answers_as_the_gallery_does(gallery: Gallery, tmp_path: Path) -> None:
    qdrant = pytest.importorskip("qdrant_client", reason="qdrant-client is not installed (the extra qdrant)")
    write_items(gallery, "qdrant", tmp_path / "qdrant", collection="people")
    queries = normalise(np.random.default_rng(1).normal(size=(5, D)))
    client = qdrant.QdrantClient(path=str(tmp_path / "qdrant"))
    for query, hits in zip(queries, gallery.hits(as_queries(queries), 4), strict=True):
        points = client.query_points("people", query=query.tolist(), using=OURS, limit=4).points
        assert [point.payload["id"] for point in points] == [hit.id for hit in hits]
        np.testing.assert_allclose([point.score**2 for point in points], [hit.sq_dist for hit in hits], rtol=1e-4)
    point = client.retrieve("people", [1], with_vectors=True)[0]
    client.close()
    assert point.payload == {
        "id": "id0", "identity": "", "path": "p0/č0.jpg", "root": "/photos", "metadata": {"camera": 0, "tags": ["ž"]},
        "fingerprint": OURS,
    }  # fmt: skip
    np.testing.assert_allclose(point.vector[OURS], contents(gallery)["id0"][-1], rtol=1e-6)
    with pytest.raises(DataError, match="'people' is there already; give another"):
        write_items(gallery, "qdrant", tmp_path / "qdrant", collection="people")


def test_a_server_that_is_not_there_is_one_line(gallery: Gallery) -> None:
    pytest.importorskip("qdrant_client", reason="qdrant-client is not installed (the extra qdrant)")
    with pytest.raises(DataError, match=r"http://127\.0\.0\.1:9: not exported to Qdrant") as caught:
        write_items(gallery, "qdrant", "http://127.0.0.1:9")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("form", "package"), [("parquet", "pyarrow"), ("qdrant", "qdrant_client")])
def test_a_missing_package_is_named(
    gallery: Gallery, tmp_path: Path, form: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"pip install 'facenet-triplet\[{form}\]'"):
        write_items(gallery, form, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_to_export_and_nowhere_to_put_it(gallery: Gallery, tmp_path: Path) -> None:
    with Gallery.open(tmp_path / "empty", create=True) as empty, pytest.raises(DataError, match="empty"):
        write_items(empty, "npy", tmp_path / "out")
    with pytest.raises(ConfigError, match="did you mean 'parquet'"):
        write_items(gallery, "parqet", tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="can not be written"):
        write_items(gallery, "npy", tmp_path / "file" / "out")
    write_items(gallery, "npy", tmp_path / "there")
    for form, out in (("npy", "there"), ("npy", "file"), ("parquet", "file")):
        with pytest.raises(DataError, match="it is there already; give another path"):
            write_items(gallery, form, tmp_path / out)


def test_items_without_a_picture_are_named_by_their_number(gallery: Gallery, tmp_path: Path) -> None:
    unseen = EmbeddingSet.unnamed(normalise(np.ones((2, D))), OURS)
    gallery.add(unseen, ids=["a", "b"])
    write_items(gallery, "npy", tmp_path / "out")
    found = EmbeddingSet.load(tmp_path / "out")
    assert (found.root, list(found.paths[-2:])) == ("/photos", ["item/31", "item/32"])


def test_a_table_of_metadata(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('path,id,camera\nx.jpg,one,3\n"y,z.jpg",,4\n')
    assert read_metadata(tmp_path / "a.csv", ["x.jpg", "y,z.jpg", "w.jpg"]) == (
        ["one", "y,z.jpg", "w.jpg"],
        [{"camera": "3"}, {"camera": "4"}, {}],
    )
    (tmp_path / "a.jsonl").write_text('{"path": "x.jpg", "id": 0}\n{"path": "y.jpg", "id": ""}\n')
    assert read_metadata(tmp_path / "a.jsonl", ["x.jpg", "y.jpg"])[0] == ["0", "y.jpg"]
    (tmp_path / "a.jsonl").write_text('{"path": "x.jpg", "camera": 3, "old": null}\n')
    assert read_metadata(tmp_path / "a.jsonl", ["x.jpg"]) == (["x.jpg"], [{"camera": 3, "old": None}])


def test_embeddings_may_join_what_their_encoder_lists(tmp_path: Path) -> None:
    EmbeddingSet(normalise(np.ones((1, D))), ["x.jpg"], ["x"], THEIRS).save(tmp_path)
    assert read_embeddings(tmp_path, None).compatible_with == ()
    record = {"fingerprint": THEIRS, "compatible_with": [OURS]}
    assert read_embeddings(tmp_path, record).compatible_with == (OURS,)
    with pytest.raises(DataError, match="embedded by another encoder"):
        read_embeddings(tmp_path, {"fingerprint": OURS})


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "name,camera\nx.jpg,3\n", "missing: path"),
        ("a.csv", "path,camera\nx.jpg,3\nx.jpg,4\n", "row 2 names x.jpg again"),
        ("a.csv", "path,camera\nx.jpg,3,4\n", "row 1 has 3 cells for 2 columns"),
        ("a.csv", "path,camera\nx.jpg\n", "row 1 has 1 cells for 2 columns"),
        ("a.csv", "path\nx.jpg\nq.jpg\nr.jpg\n", "q.jpg and 1 more are no images"),
        ("a.jsonl", "[1]\n", "one JSON object a line"),
        ("a.jsonl", "{\n", "not readable"),
        ("a.txt", "path\n", "expected .csv or .jsonl"),
        ("a.csv", "\udcff", "not readable"),
    ],
)
def test_a_table_that_is_none(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=said):
        read_metadata(tmp_path / name, ["x.jpg"])
    with pytest.raises(DataError, match="no such file"):
        read_metadata(tmp_path / "none.csv", ["x.jpg"])


def test_items_of_several_roots_come_back_below_their_common_one(tmp_path: Path) -> None:
    with Gallery.open(tmp_path / "g", create=True) as gallery:
        for name in ("a", "b/c"):
            gallery.add(
                EmbeddingSet(normalise(np.ones((1, D))), [f"{name[-1]}/x.jpg"], ["x"], OURS, root=f"/all/{name}")
            )
        write_items(gallery, "npy", tmp_path / "out")
    found = EmbeddingSet.load(tmp_path / "out")
    assert (found.root, found.paths) == ("/all", ["a/a/x.jpg", "b/c/c/x.jpg"])
