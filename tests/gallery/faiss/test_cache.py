"""The cache: lost, stale, foreign or damaged, it is built again or brought up to date, and never believed."""

from __future__ import annotations

import hashlib
import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks.gallery import corrupted
from facenet.errors import DataError
from facenet.files import read_sealed, write_sealed
from facenet.gallery.faiss.file import read_index
from facenet.gallery.faiss.kinds import Limits, factory_of
from facenet.gallery.gallery import Gallery
from facenet.gallery.items import Recipe
from tests.helpers.galleries import (
    FACTORIES,
    as_queries,
    assert_answers,
    clustered,
    faces,
    filled,
    numbered,
    people,
)


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
        if "index.faiss" in lost:
            with Gallery.open(folder) as gallery:
                assert gallery.check() == [], "a lost index is no problem, whether its header is left or not"
                assert gallery.info()["cache"] == "missing"
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


def test_cache_of_an_earlier_version_is_built_again_in_silence(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    header = read_sealed(folder / "index.json")
    write_sealed(folder / "index.json", {k: v for k, v in header.items() if k != "beside"} | {"schema": 2})
    with Gallery.open(folder) as gallery:
        assert gallery.check() == []
    rebuilt(folder, people(10))
    assert not caplog.text


def test_an_index_whose_sample_is_not_there_is_built_again(tmp_path: Path) -> None:
    vectors, identities = clustered()
    filled(tmp_path, "HNSW16", vectors, identities)
    header = read_sealed(tmp_path / "index.json")
    write_sealed(tmp_path / "index.json", header | {"beside": [*header["beside"][:-1], 10**6]})
    with Gallery.open(tmp_path) as gallery:
        assert "delete it, the next search builds it again" in gallery.check()[0]
        found = gallery.search(as_queries(vectors), 1)
        assert (found.sq_dist[:, 0] < 1e-5).mean() > 0.98
    with Gallery.open(tmp_path) as gallery:
        assert gallery.check() == []


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
    for _ in range(20):
        (folder / name).write_bytes(corrupted(sound, rng))
        with Gallery.open(folder) as gallery:
            told += gallery.check() != []
            assert_answers(gallery, people(10))
        (folder / name).write_bytes(sound)
    assert told >= (18 if name == "index.faiss" else 8)  # a zeroed zero or white space in JSON harms nothing


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
                as_queries(faces(people(1)).vectors[:1], gallery.fingerprint or ""), 1, by_identity=by_identity
            )


def test_a_graph_keeps_few_holes_and_is_built_again_with_many(tmp_path: Path) -> None:
    vectors, identities = clustered()
    filled(tmp_path, "HNSW16", vectors, identities)
    stored, _ = read_index(tmp_path)
    assert stored is not None
    inside = 18 - sum(number <= 18 for number in stored.built.beside)
    for gone, holes in ((["p0", "p1", "p2"], inside), ([f"p{i}" for i in range(3, 33)], 0)):
        with Gallery.open(tmp_path) as gallery:
            gallery.remove(gone)
            assert gallery.save_cache(force=True)
            assert len(read_sealed(tmp_path / "index.json")["holes"]) == holes
            found = gallery.search(as_queries(vectors), 3)
            there = {item.number for items, _ in gallery.blocks() for item in items}
            assert set(found.rows[found.rows >= 0].tolist()) <= there
            assert gallery.check() == []


def test_an_exact_index_in_use_drops_what_was_replaced(tmp_path: Path) -> None:
    """A search asks for as many more answers as items of the base are gone: after a backfill, for all of them."""
    vectors, identities = clustered()
    filled(tmp_path, "Flat", vectors, identities)
    with Gallery.open(tmp_path) as gallery:
        gallery.hits(as_queries(vectors[:1]), 1)
        for start in range(0, 600, 50):
            rows = [f"f{row}" for row in range(start, start + 50)]
            gallery.remove(rows, by="id")
            gallery.add(numbered(vectors[start : start + 50], identities[start : start + 50], f"new {start} "))
            (hits,) = gallery.hits(as_queries(vectors[start : start + 1]), 1)
            assert hits[0].id == f"new {start} 0"
            layers = gallery._engine.cache.layers
            assert layers is not None
            assert len(layers.gone) <= 60


def test_another_kind_is_built_and_remembered(tmp_path: Path) -> None:
    limits = Limits(trained=500)
    vectors, identities = clustered()
    with Gallery.open(tmp_path, create=True) as gallery:
        gallery.add(numbered(vectors, identities))
        assert gallery.info()["kind"] == "auto"
    for kind in ("ivf_sq8", "hnsw", "ivf_pq", "flat", "auto"):
        with Gallery.open(tmp_path, limits=limits) as gallery:
            gallery.configure(kind)
        with Gallery.open(tmp_path, limits=limits) as gallery:
            info = gallery.info()
            assert (info["kind"], info["cache"]) == (kind, "current")
            assert info["index"]["factory"] == factory_of(Recipe(kind), 600, 32, limits)
            assert gallery.check() == []
            assert len(gallery.hits(as_queries(vectors[:3]), 2)[0]) == 2


def test_a_growing_gallery_changes_its_index_by_itself(tmp_path: Path) -> None:
    limits, seen = Limits(exact=350, trained=200), []
    vectors, identities = clustered()
    for start in range(0, 600, 150):
        with Gallery.open(tmp_path, create=True, limits=limits) as gallery:
            gallery.configure(recall_target=0.8)  # of which few faces can be sure
            block = slice(start, start + 150)
            gallery.add(numbered(vectors[block], identities[block], f"b{start}_"))
            gallery.search(as_queries(vectors[:1]), 1)
        with Gallery.open(tmp_path, limits=limits) as gallery:
            seen.append(gallery.info()["index"]["factory"])
            found = gallery.hits(as_queries(vectors[: start + 150]), 1)
            assert np.mean([hit[0].sq_dist < 1e-5 for hit in found]) > 0.98
    assert seen == ["Flat", "Flat", "IVF8,SQ8", "IVF8,SQ8"]


@pytest.mark.parametrize("factory", ["HNSW16", "IVF32,SQ8"])
def test_a_corrupted_index_of_any_kind_is_never_served(tmp_path: Path, factory: str) -> None:
    vectors, identities = clustered(60)
    filled(tmp_path, factory, vectors, identities)
    path, rng = tmp_path / "index.faiss", random.Random(3)
    sound = path.read_bytes()
    for _ in range(4):
        at = rng.randrange(len(sound))
        path.write_bytes(sound[:at] + rng.randbytes(8) + sound[at + 8 :])
        with Gallery.open(tmp_path) as gallery:
            assert "SHA-256" in gallery.check()[0]
            found = gallery.hits(as_queries(vectors), 1)
            assert np.mean([hits[0].sq_dist < 1e-5 for hits in found]) > 0.98


@pytest.mark.parametrize("factory", FACTORIES)
def test_later_items_are_found_and_removed_ones_are_not(tmp_path: Path, factory: str) -> None:
    """Beside a mapped index, in the process and after opening it again, and once it is merged."""
    vectors, identities = clustered()
    more, names = clustered(20, seed=9)
    names = [f"new {name}" for name in names]
    filled(tmp_path, factory, vectors, identities)
    written = (tmp_path / "index.faiss").read_bytes()
    gallery = Gallery.open(tmp_path)
    gallery.search(as_queries(vectors[:1]), 1)  # maps the file
    gallery.add(numbered(more, names, "g"))
    gallery.remove(["p0", "p7"], by="identity")
    gallery.remove([f"g{i}" for i in range(6)], by="id")
    for force in (False, True):
        hits = gallery.hits(as_queries(np.concatenate([vectors[:6], more])), 8)
        assert not any(hit.identity == "p0" or hit.id in {f"g{i}" for i in range(6)} for row in hits for hit in row)
        assert [row[0].id for row in hits[12:]] == [f"g{i}" for i in range(6, 120)]
        assert len(gallery.search(as_queries(vectors[:1]), len(gallery) + 5).rows[0]) == len(gallery) + 5
        assert gallery.check() == []
        assert ((tmp_path / "index.faiss").read_bytes() == written) is not force
        gallery.save_cache(force=True)
        gallery.close()
        gallery = Gallery.open(tmp_path)
    gallery.close()
