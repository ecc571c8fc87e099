"""The time to the first batch, of a small made set: what it returns, and that what it reads is what the index says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import ready
from benchmarks.ready import STAGES, Options, make_set, run, tables
from facenet.data.sources.kinds import scan_usable


def in_this_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function as a fresh process would, without its imports: what goes in and comes out travels as JSON."""
    return json.loads(json.dumps(function(*json.loads(json.dumps(arguments)))))


def test_a_training_begins_on_a_made_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ready, "in_fresh_process", in_this_process)
    result = run(Options(images=(3000,), batch_size=60, size=32, later=3, folder=str(tmp_path)))
    entry = result["images"]["3000"]
    assert entry["train"] + entry["held_out"] + entry["reported"] == 3000
    assert entry["faces"] == 60
    assert set(entry["stages"]) == set(STAGES)
    assert min(entry["stages"].values()) >= 0
    assert entry["same"] is True, "a resumed training takes the same batch"
    (table,) = tables(result)
    assert (table.rows[0][0], table.rows[0][-1]) == ("3,000", "yes")


def test_the_made_set_is_read_as_its_index_says(tmp_path: Path) -> None:
    make_set(tmp_path / "faces.tar", 1000)
    _, records = scan_usable("folder", str(tmp_path / "faces.tar"), max_bad_share=0)
    assert len(records) == 1000
    assert (np.diff(records.labels) >= 0).all()
    assert isinstance(records.source(999), bytes)
