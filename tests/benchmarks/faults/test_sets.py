"""A small sample of the campaign of damaged face sets, drawn by a fixed seed."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from benchmarks.faults.options import SetFaults
from benchmarks.faults.sets import SETS, damaged, run
from facenet.data.sources import recordio

pytest.importorskip("pyarrow", reason="pyarrow is not installed (the extra parquet)")
FAILURES = ("crashes", "hangs", "executions")


def test_damaged_sets_are_refused_or_read(tmp_path: Path) -> None:
    told = run(SetFaults(each=12, pickles=20), folder=str(tmp_path), apart=False)
    assert set(told) == {*SETS, "pickles"}
    assert sum(row[what] for row in told.values() for what in FAILURES) == 0, told
    assert sum(row["refused"] for row in told.values()) > 40
    assert sum(told[name]["as_written"] for name in SETS) > 20, "some damage can not be told by the structure"


def test_a_reader_that_trusts_lengths_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recordio, "read_index", lambda path: (_ for _ in ()).throw(IndexError("x")))
    with pytest.raises(IndexError):
        run(SetFaults(each=1, pickles=0), folder=str(tmp_path), apart=False)


@pytest.mark.parametrize("name", ["a.rec", "a.tar", "a.zip", "a.parquet", "a.idx"])
def test_changes_are_named_by_the_seed(tmp_path: Path, name: str) -> None:
    kind = {"a.rec": "rec", "a.idx": "rec", "a.tar": "tar_labels", "a.zip": "zip_stored", "a.parquet": "parquet_flat"}
    SETS[kind[name]].make(tmp_path)
    content = next(tmp_path.glob(f"*{Path(name).suffix}")).read_bytes()
    made = [damaged(name, content, random.Random(seed)) for seed in range(100)]
    assert made == [damaged(name, content, random.Random(seed)) for seed in range(100)]
    assert len(set(made)) > 50
    assert any(len(one) == len(content) != one for one in made)
