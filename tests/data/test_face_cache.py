"""Faces of a batch: each stands at its place, and images in larger files are read in the order in which they lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from facenet.data.face_cache import FaceCache
from facenet.data.index import index_folder
from facenet.data.preprocess import Preprocess
from facenet.data.records import Records
from facenet.data.scan import scan_set
from facenet.data.sources.kinds import scan_usable
from tests.helpers.sets import faces, write_tar


@pytest.mark.parametrize("threads", [1, 2])
def test_a_batch_is_read_as_it_lies_and_keeps_its_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    """Four people with three images each are shuffled over two tar files; one of them is left out."""
    shuffled = [faces()[place] for place in np.random.default_rng(0).permutation(12)]
    for number in range(2):
        write_tar(tmp_path / "set" / f"{number}.tar", shuffled[number::2])
    scan_set("folder", str(tmp_path / "set"), index_folder(tmp_path / "set"))
    everybody = scan_usable("folder", str(tmp_path / "set"), max_bad_share=0)[1]
    records = everybody.of_people(everybody.names[1:])
    cache = FaceCache(records, Preprocess(size=(16, 16)), 1.0, keep=False)
    rows = [7, 0, 3, 8, 1, 5]
    alone = [cache.batch([row])[0][0] for row in rows]
    read: list[str] = []
    source = Records.source

    def noting(self: Records, row: int) -> object:
        read.append(self.paths[row])
        return source(self, row)

    monkeypatch.setattr(Records, "source", noting)
    monkeypatch.setattr("torch.get_num_threads", lambda: threads)
    images, found = cache.batch(rows)
    np.testing.assert_array_equal(images, alone)
    assert found.tolist() == rows
    if threads == 1:
        assert read == [f"{face.name}.jpg" for face in (*shuffled[::2], *shuffled[1::2]) if f"{face.name}.jpg" in read]
    assert sorted(read) == sorted(records.paths[row] for row in rows)
    assert read != [records.paths[row] for row in rows]
