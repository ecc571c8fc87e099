"""Parquet files of images."""

from __future__ import annotations

import contextlib
import random
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.faults.sets import SETS, damaged
from facenet.data.pictures import Unreadable
from facenet.data.sources.parquet import FORM
from facenet.errors import ConfigError, DataError
from tests.helpers.sets import faces, pictures_of, write_parquet

pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed (the extra parquet)")


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("text", [True, False])
def test_images_read_byte_equal(tmp_path: Path, nested: bool, text: bool) -> None:
    people = faces()
    write_parquet(tmp_path / "data" / "train-0.parquet", people[:7], nested=nested, text=text)
    write_parquet(tmp_path / "data" / "train-1.parquet", people[7:], nested=nested, text=text)
    write_parquet(tmp_path / "data" / "test-0.parquet", people)
    found, pictures = pictures_of(FORM, tmp_path)
    assert found.shards == ("data/train-0.parquet", "data/train-1.parquet")
    assert pictures == [face.picture for face in people]
    assert list(found.identities) == [face.identity if text else int(face.identity) for face in people]
    assert np.asarray(found.names).tolist() == list(range(12))


def test_threads_read_together_from_two_decoded_groups(tmp_path: Path) -> None:
    people = faces(10, 3)
    write_parquet(tmp_path / "a.parquet", people)
    found, shard = FORM.list_images(tmp_path / "a.parquet", None), FORM.open_shard(tmp_path / "a.parquet")
    rows = np.random.default_rng(0).permutation(30).tolist() * 3
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda row: shard.read(int(found.offset[row]), 0), rows))
    assert read == [people[row].picture for row in rows]
    assert len(shard._groups) == 2  # type: ignore[attr-defined]
    for offset in (-1, 30 << 32, 3, 4, 1 << 62):
        if offset not in (3,):
            with pytest.raises(Unreadable):
                shard.read(offset, 0)
    shard.close()
    with pytest.raises(Unreadable):
        shard.read(0, 0)


def test_missing_images_and_labels(tmp_path: Path) -> None:
    from pyarrow import parquet

    image = [{"bytes": b"x", "path": None}, None, {"bytes": None, "path": "a"}]
    parquet.write_table(pyarrow.table({"image": image, "label": [1, None, 2]}), tmp_path / "a.parquet")
    found, shard = FORM.list_images(tmp_path / "a.parquet", None), FORM.open_shard(tmp_path / "a.parquet")
    assert np.asarray(found.identities).tolist() == [1, -1, 2]
    assert shard.read(int(found.offset[0]), 0) == b"x"
    for row in (1, 2):
        with pytest.raises(Unreadable, match="no image in it"):
            shard.read(int(found.offset[row]), 0)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"picture": [b"x"], "label": [1]}, "no column 'image' of bytes"),
        ({"image": ["x"], "label": [1]}, "no column 'image' of bytes"),
        ({"image": [b"x"]}, "no column 'label' or 'identity'"),
        ({"image": [b"x"], "label": [1.5]}, "the column 'label' is of double"),
        ({"image": [b"x"], "label": [-7]}, "a label of -7"),
        ({"image": pyarrow.array([], pyarrow.binary()), "label": pyarrow.array([], pyarrow.int64())}, "no row in it"),
    ],
)
def test_other_tables_are_refused(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    from pyarrow import parquet

    parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=message):
        FORM.list_images(tmp_path / "a.parquet", None)


def test_a_row_group_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("facenet.data.sources.parquet.MOST_GROUP", 1000)
    write_parquet(tmp_path / "a.parquet", faces())
    with pytest.raises(DataError, match="row group 0 holds 0 MB, more than 0; write it with smaller row groups"):
        FORM.list_images(tmp_path / "a.parquet", None)


@pytest.mark.parametrize("seed", [200, 322])
def test_damage_that_ends_the_process_elsewhere(tmp_path: Path, seed: int) -> None:
    """Metadata of columns that pyarrow 26 aborts on, found by the campaign of faults."""
    kind = SETS["parquet_nested"]
    kind.make(tmp_path)
    path = tmp_path / "a.parquet"
    rng = random.Random(f"0 parquet_nested {seed}")
    rng.choice([path])
    path.write_bytes(damaged(path.name, path.read_bytes(), rng))
    with contextlib.suppress(DataError):
        kind.use(tmp_path)


def test_what_is_no_parquet(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no PAR1")
    for path in (tmp_path / "a.parquet", tmp_path / "b.parquet"):
        with pytest.raises(DataError):
            FORM.list_images(path, None)


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_parquet(tmp_path / "a.parquet", faces())
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"needs pyarrow: pip install 'facenet-triplet\[parquet\]'"):
        FORM.list_images(tmp_path / "a.parquet", None)
