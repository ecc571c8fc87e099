"""Layers: a search for more than there are ends in absent places."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from facenet.gallery.gallery import Gallery
from tests.helpers.galleries import (
    FACTORIES,
    as_queries,
    clustered,
    filled,
)


def test_a_search_for_more_than_there_are_ends_in_absent_places(tmp_path: Path) -> None:
    for i, factory in enumerate(FACTORIES):
        vectors, identities = clustered(60)
        filled(tmp_path / str(i), factory, vectors, identities)
        with Gallery.open(tmp_path / str(i)) as gallery:
            gallery.remove("p3")
            found = gallery.search(as_queries(vectors[:3]), 400)
            assert found.rows.shape == (3, 400)
            there = found.rows >= 0
            assert np.isinf(found.sq_dist[~there]).all()
            assert np.isfinite(found.sq_dist[there]).all()
            assert not there[:, 354:].any()
            for row in found.rows:
                assert len(set(row[row >= 0].tolist())) == (row >= 0).sum(), "one item twice"
