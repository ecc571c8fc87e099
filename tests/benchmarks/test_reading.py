"""Reading of a small made set: both orders are timed, cold and warm, and the sets are read as their indexes say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.reading import CACHES, LAYOUTS, ORDERS, Options, make_set, run, tables
from facenet.data.index import digest_of_image
from facenet.data.sources.kinds import scan_usable


def test_both_orders_are_timed(tmp_path: Path) -> None:
    result = run(Options(images=1000, shards=2, batch_size=60, batches=2, folder=str(tmp_path)))
    times = [result["layouts"][layout][cache][order] for layout in LAYOUTS for cache in CACHES for order in ORDERS]
    assert all(0 < entry["least"] <= entry["seconds"] and entry["runs"] == 2 for entry in times)
    (table,) = tables(result)
    assert [row[:2] for row in table.rows] == [(layout, cache) for layout in LAYOUTS for cache in CACHES]


@pytest.mark.parametrize("shuffled", [False, True])
def test_a_made_set_is_read_as_its_index_says(tmp_path: Path, shuffled: bool) -> None:
    make_set(tmp_path / "faces", 1000, 3, shuffled=shuffled)
    _, records = scan_usable("folder", str(tmp_path / "faces"), max_bad_share=0)
    read = [records.source(row) for row in range(1000)]
    assert len({digest_of_image(data) for data in read if isinstance(data, bytes)}) == 240
    order = records.as_they_lie(np.arange(1000)).tolist()
    assert (order == list(range(1000))) is not shuffled
