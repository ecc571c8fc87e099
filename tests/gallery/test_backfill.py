"""Old vectors follow an upgrade: in place, batch by batch, searchable before, during and after, whoever is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facenet.errors import ConfigError, DataError
from facenet.gallery.gallery import BackfillResult, Gallery
from facenet.types import EmbeddingSet
from tests.helpers.galleries import OURS, THEIRS, D, as_queries, brute, faces, joining, people, unit

THIRD = "ef" * 32
OLD = [OURS]


def upgraded(names: list[str], seed: int = 7, fingerprint: str = THEIRS, root: str = "") -> EmbeddingSet:
    """The same images by a newer encoder: near the old vectors, but not the same."""
    old = faces(names)
    vectors = old.vectors + 0.2 * unit(len(names), seed)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return EmbeddingSet(vectors.astype(np.float32), names, old.identities, fingerprint, root)


def held(gallery: Gallery) -> dict[str, tuple[str, bytes]]:
    """The encoder and the vector of every item, by id."""
    blocks = list(gallery.blocks())
    return {
        item.id: (item.fingerprint, row.tobytes())
        for items, rows in blocks
        for item, row in zip(items, rows, strict=True)
    }


def assert_answers(gallery: Gallery, queries: np.ndarray) -> None:
    """The new encoder's queries find what a loop over the stored vectors, old and new, finds."""
    stored = held(gallery)
    names, vectors = list(stored), np.array([np.frombuffer(raw, np.float32) for _, raw in stored.values()])
    found = gallery.hits(as_queries(queries, THEIRS, OLD), 5)
    for hits, row in zip(found, brute(vectors, queries), strict=True):
        assert [hit.id for hit in hits] == [names[i] for i in np.argsort(row, kind="stable")[:5]]
        np.testing.assert_allclose([hit.sq_dist for hit in hits], np.sort(row)[:5], atol=2e-6)


@pytest.mark.parametrize("kind", ["flat", "hnsw"])
def test_search_works_before_during_and_after(folder: Path, kind: str) -> None:
    names, new = people(10), upgraded(people(10))
    queries = np.concatenate([new.vectors[::7], unit(4, 99)])
    shares: list[tuple[int, int]] = []
    with Gallery.open(folder) as gallery:
        gallery.configure(kind)
        assert_answers(gallery, queries)
        assert gallery.info()["fingerprints"] == {OURS: 40}

        def watch(done: int, total: int) -> None:
            with Gallery.open(folder) as other:  # as another process would
                assert_answers(other, queries)
                shares.append((done, other.info()["fingerprints"][THEIRS]))
            assert total == 40

        assert gallery.backfill(joining(new, OLD), batch=9, progress=watch) == BackfillResult(40, 0, 40, 0)
        assert shares == [(9, 9), (18, 18), (27, 27), (36, 36), (40, 40)]
        assert_answers(gallery, queries)
        assert gallery.info()["fingerprints"] == {OURS: 0, THEIRS: 40}
        assert gallery.info()["count"] == 40
        assert held(gallery) == {name: (THEIRS, row.tobytes()) for name, row in zip(names, new.vectors, strict=True)}
    with Gallery.open(folder) as gallery:
        assert gallery.check() == []
        items = gallery.items(gallery.search(as_queries(new.vectors, THEIRS), 1).rows[:, 0])
        assert [(item.id, item.identity, item.metadata) for item in items] == [
            (name, name.split("/")[0], {"camera": i}) for i, name in enumerate(names)
        ]
        again = gallery.info()["generation"]
        assert gallery.backfill(joining(new, OLD)) == BackfillResult(0, 0, 40, 0)
        assert gallery.info()["generation"] == again, "nothing to do writes nothing"


def test_missing_images_stay_old_and_are_counted(folder: Path) -> None:
    some = upgraded([f"{name}.png" for name in people(10)][4:12])
    with Gallery.open(folder) as gallery:
        assert gallery.backfill(joining(some, OLD), batch=3) == BackfillResult(8, 32, 8, 0)
        assert gallery.info()["fingerprints"] == {OURS: 32, THEIRS: 8}
        stored = held(gallery)
        assert {name for name, (encoder, _) in stored.items() if encoder == THEIRS} == set(people(10)[4:12])
        assert_answers(gallery, unit(5, 3))
        rest, listed = upgraded(people(10)), [THEIRS, OURS]  # a bundle that lists itself, which says nothing
        assert gallery.backfill(joining(rest, listed)) == BackfillResult(32, 0, 40, 0)
        assert held(gallery)["p1/0"] == stored["p1/0"], "what is new already is left alone"


def test_images_are_found_by_path_or_id_and_root(tmp_path: Path) -> None:
    names = ["a/1.jpg", "a/2.jpg"]
    with Gallery.open(tmp_path / "g", create=True) as gallery:
        gallery.add(EmbeddingSet(unit(2), names, ["a", "a"], OURS, "/one"), ids=["x", "y"])
        gallery.add(EmbeddingSet(unit(2, 1), names, ["b", "b"], OURS, "/two"), ids=["v", "w"])
        gallery.add(EmbeddingSet(unit(1, 2), [""], ["c"], OURS, "/two"), ids=["a/3.jpg"])
        found = gallery.backfill(joining(upgraded([*names, "a/3.png"], root="/two"), OLD))
        assert found == BackfillResult(3, 2, 3, 0)
        assert {name for name, (encoder, _) in held(gallery).items() if encoder == THEIRS} == {"v", "w", "a/3.jpg"}
    with Gallery.open(tmp_path / "moved", create=True) as gallery:
        gallery.add(EmbeddingSet(unit(2), names, ["a", "a"], OURS, "/one"), ids=["x", "y"])
        assert gallery.backfill(joining(upgraded(names, root="/new"), OLD)).replaced == 2


def test_an_incompatible_encoder_is_refused_with_the_command_to_run(folder: Path) -> None:
    new = upgraded(people(10))
    with Gallery.open(folder) as gallery:
        before = held(gallery)
        for call in (
            lambda: gallery.backfill(new),
            lambda: gallery.backfill(joining(new, [THIRD])),
            lambda: gallery.add(upgraded(["z/1"])),
            lambda: gallery.hits(as_queries(unit(1), THEIRS), 1),
        ):
            with pytest.raises(DataError, match=r"compatible_with; run facenet compat old=.* encoder=") as error:
                call()
            assert "\n" not in str(error.value)
        narrow = EmbeddingSet(unit(40, dim=8), people(10), [""] * 40, THEIRS)
        wrong: list[tuple[EmbeddingSet, dict[str, Any], type, str]] = [
            (upgraded(["x/1", "x/2"]), {}, DataError, "hold none of the images of its 40 items"),
            (upgraded(["a/1.jpg", "a/1.png"]), {}, DataError, "several images have the key 'a/1'"),
            (new, {"batch": 0}, ConfigError, "batch"),
            (narrow, {}, DataError, f"expected width {D}"),
        ]
        for given, options, kind, said in wrong:
            with pytest.raises(kind, match=said):
                gallery.backfill(joining(given, OLD), **options)
        assert held(gallery) == before
        assert gallery.info()["fingerprints"] == {OURS: 40}


def test_the_next_upgrade_answers_to_the_vectors_that_are_there(folder: Path) -> None:
    """A third encoder must go with every encoder that still has vectors, and with no other."""
    third = upgraded(people(10), 9, THIRD)
    with Gallery.open(folder) as gallery:
        gallery.backfill(joining(upgraded(people(5)), OLD))
        for listed in (OLD, [THEIRS]):
            with pytest.raises(DataError, match="belongs to encoder"):
                gallery.hits(as_queries(unit(1), THIRD, listed), 1)
        assert gallery.hits(as_queries(unit(1), THIRD, [OURS, THEIRS]), 1)
        gallery.backfill(joining(upgraded(people(10)), OLD))
        assert gallery.hits(as_queries(unit(1), THIRD, [THEIRS]), 1)
        with pytest.raises(DataError, match=f"belongs to encoder {THEIRS[:12]}"):
            gallery.hits(as_queries(unit(1), THIRD, OLD), 1)
        assert gallery.hits(as_queries(unit(1)), 1), "phones with the old net go on asking"
        gallery.add(faces(["late/1"]))
        assert gallery.backfill(joining(third, [THEIRS, OURS])) == BackfillResult(40, 1, 40, 0)
        assert gallery.info()["fingerprints"] == {OURS: 1, THEIRS: 0, THIRD: 40}


def test_vectors_of_other_encoders_stay(folder: Path) -> None:
    with Gallery.open(folder) as gallery:
        gallery.add(joining(upgraded(["z/1"], fingerprint=THIRD), OLD))
        gallery.add(joining(upgraded(["y/1"]), [OURS, THIRD]))
        found = gallery.backfill(joining(upgraded([*people(10), "z/1"]), OLD))
        assert found == BackfillResult(40, 0, 41, 1)
        assert held(gallery)["z/1"][0] == THIRD


def test_a_backfill_seen_by_an_index_that_lags(folder: Path) -> None:
    """The written cache is older than the backfill, as after a kill: it is replayed, never believed."""
    old = {name: (folder / name).read_bytes() for name in ("index.faiss", "index.json")}
    new = upgraded(people(10))
    with Gallery.open(folder) as gallery:
        gallery.backfill(joining(new, OLD))
    for name, content in old.items():
        (folder / name).write_bytes(content)
    with Gallery.open(folder) as gallery:
        assert_answers(gallery, new.vectors[:6])
        assert gallery.check() == []


CHILD = """
import sys
from dataclasses import replace
from facenet.gallery.gallery import Gallery
from facenet.types import EmbeddingSet
with Gallery.open(sys.argv[1]) as gallery:
    new = replace(EmbeddingSet.load(sys.argv[2]), compatible_with=(sys.argv[3],))
    gallery.backfill(new, batch=5, progress=lambda *told: print(*told, flush=True))
"""


def test_killed_in_the_middle_it_goes_on(tmp_path: Path) -> None:
    names = people(80)
    new = upgraded(names)
    new.save(tmp_path / "new")
    with Gallery.open(tmp_path / "g", create=True) as gallery:
        gallery.add(faces(names))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    line = [sys.executable, "-c", CHILD, str(tmp_path / "g"), str(tmp_path / "new"), OURS]
    so_far, queries = 0, np.concatenate([new.vectors[::101], unit(3, 99)])
    for run in range(3):
        with subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            said = [child.stdout.readline() for _ in range(4 + 3 * run)]
            time.sleep(0.003 * run)
            child.send_signal(signal.SIGKILL)
            said += child.stdout.readlines()
        assert child.returncode == -signal.SIGKILL, "it was killed in the middle"
        done = int([line for line in said if line.endswith("\n")][-1].split()[0])
        with Gallery.open(tmp_path / "g") as gallery:
            assert gallery.check() == []
            counts = gallery.info()["fingerprints"]
            assert counts[OURS] + counts[THEIRS] == 320
            assert so_far + done <= counts[THEIRS] <= so_far + done + 5, (
                "what was acknowledged is there, in whole batches"
            )
            so_far = counts[THEIRS]
            assert so_far % 5 == 0
            assert 0 < so_far < 320
            assert_answers(gallery, queries)
    finished = subprocess.run(line, env=environment, capture_output=True, text=True, check=True)
    assert finished.stdout.splitlines()[-1] == f"{320 - so_far} {320 - so_far}"
    with Gallery.open(tmp_path / "g") as gallery:
        assert held(gallery) == {name: (THEIRS, row.tobytes()) for name, row in zip(names, new.vectors, strict=True)}
        assert gallery.check() == []
        assert_answers(gallery, queries)


def test_a_refused_backfill_records_no_encoder(folder: Path) -> None:
    with Gallery.open(folder) as gallery:
        before = gallery.info()
        with pytest.raises(DataError, match="none of the images"):
            gallery.backfill(joining(faces(["nobody/1"], THEIRS), [OURS]))
        assert gallery.info() == before
