"""An opened index: its rows are those that were saved, and of its files little is mapped into memory."""

from __future__ import annotations

import gc
import pickle
from pathlib import Path

import numpy as np
import pytest

from benchmarks.ready import make_set
from facenet.data import index
from facenet.data.index import Column, index_folder
from facenet.data.options import DataOptions
from facenet.data.splits import split_faces
from facenet.errors import DataError

MAPS = Path("/proc/self/maps")


@pytest.mark.parametrize("few", [1, 1000], ids=["single rows", "a map"])
def test_a_column_has_the_rows_of_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few: int) -> None:
    monkeypatch.setattr(index, "FEW", few)
    array = np.random.default_rng(0).integers(1 << 40, size=50)
    np.save(tmp_path / "a.npy", array)
    column = Column(tmp_path / "a.npy")
    for one in (column, pickle.loads(pickle.dumps(column))):
        assert len(one) == 50
        assert [one[row] for row in range(50)] == array.tolist()
        assert one[7:20].tolist() == array[7:20].tolist()
        assert one[:].tolist() == array.tolist()
        assert one[np.array([3, 3, 49])].tolist() == array[[3, 3, 49]].tolist()
    np.save(tmp_path / "none.npy", array[:0])
    assert Column(tmp_path / "none.npy")[:].tolist() == []
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:-1])
    with pytest.raises(DataError, match=r"a\.npy"):
        Column(tmp_path / "a.npy")


@pytest.mark.skipif(not MAPS.exists(), reason="needs /proc")
def test_a_divided_set_maps_nothing_that_grows_with_its_images(tmp_path: Path) -> None:
    make_set(tmp_path / "faces.tar", 1000)
    splits = split_faces(DataOptions(kind="folder", root=str(tmp_path / "faces.tar")))
    assert all(isinstance(splits.train.source(row), bytes) for row in (0, len(splits.train) - 1))
    gc.collect()
    place = str(index_folder(tmp_path / "faces.tar"))
    mapped = {line.rpartition("/")[2] for line in MAPS.read_text().splitlines() if place in line}
    assert mapped == {"names.npy", "name_ends.npy"}
