"""Indexes of databases: made and tuned when asked, searched with and without filters, dropped, unused if they miss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from facenet.gallery.engines import tuning
from facenet.gallery.gallery import Gallery
from facenet.gallery.search import Hit
from tests.helpers.galleries import as_queries, clustered, numbered
from tests.helpers.servers import MilvusServer

pytestmark = pytest.mark.engines
PEOPLE, EACH = 500, 6


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let kinds be approximate from 1,000 items on."""
    monkeypatch.setattr(tuning, "LEAST", 1000)
    monkeypatch.setattr(tuning, "EXACT", 2000)


def nearest(gallery: Gallery, queries: np.ndarray, **how: Any) -> list[list[Hit]]:
    return [[hit._replace(number=0) for hit in hits] for hits in gallery.hits(as_queries(queries), 3, **how)]


@pytest.mark.usefixtures("small")
def test_an_index_is_made_tuned_searched_and_dropped(server: Any, new_name: Callable[[], str]) -> None:
    vectors, names = clustered(PEOPLE, EACH)
    queries = clustered(PEOPLE, 1, noise=1)[0][:300]
    with Gallery.open(server.address(new_name()), create=True) as gallery:
        gallery.add(numbered(vectors, names), metadata=[{"door": i % 500} for i in range(len(vectors))])
        exact, filtered = nearest(gallery, queries), nearest(gallery, queries[:20], where={"door": 7})
        assert {len(hits) for hits in filtered} == {3}
        assert not gallery.save_cache()  # by itself a database makes none
        gallery.configure("hnsw", recall_target=0.9)
        assert gallery.save_cache(force=True)
        assert not gallery.save_cache(force=True)  # it is not due again
        (tuned,) = [gallery.info()["index"]] if isinstance(server, MilvusServer) else gallery.info()["index"].values()
        assert tuned["parameter"] > 0
        assert (tuned["kind"], tuned["faces"]) == ("hnsw", len(vectors))
        found = nearest(gallery, queries)
        same = [ours[0] == true[0] for ours, true in zip(found, exact, strict=True)]  # to the bit
        assert np.mean(same) >= 0.9
        assert nearest(gallery, queries[:20], where={"door": 7}) == filtered
        radius = float(np.median([hits[0].sq_dist for hits in exact]))
        within = gallery.hits_within(as_queries(queries[:5]), radius)
        for hits, true in zip(within, exact, strict=False):
            assert [hit.id for hit in hits][:3] == [hit.id for hit in true if hit.sq_dist <= radius]
        gallery.remove("f0", by="id")
        gallery.add(numbered(vectors[:1], names[:1]))
        assert nearest(gallery, vectors[:1])[0][0].sq_dist == 0
        gallery.configure("flat")
        assert gallery.save_cache(force=True)
        assert gallery.info()["index"] == {}
        assert nearest(gallery, queries[1:]) == exact[1:]
        assert gallery.check() == []


@pytest.mark.usefixtures("small")
def test_an_index_that_misses_its_target_is_not_used(
    server: Any, new_name: Callable[[], str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    vectors, names = clustered(PEOPLE, EACH)
    with Gallery.open(server.address(new_name()), create=True) as gallery:
        gallery.add(numbered(vectors, names))
        exact = nearest(gallery, vectors[:50])
        monkeypatch.setattr(tuning, "interval", lambda share, n: (0.0, 1.0))
        gallery.configure("hnsw", recall_target=0.9)
        monkeypatch.setattr(tuning, "enough", lambda queries, target: True)
        gallery.save_cache(force=True)
        assert "every face is compared instead" in caplog.text
        assert nearest(gallery, vectors[:50]) == exact
        assert not gallery.save_cache(force=True)  # nor is it tried again
