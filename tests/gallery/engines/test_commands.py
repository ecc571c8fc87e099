"""Commands and the service take the address of a database where they take a gallery's folder."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facenet.data.sources.folder import scan_folder
from facenet.encoders.bundle import save_bundle
from facenet.encoders.embedding import embed_records
from facenet.errors import ConfigError
from facenet.gallery.gallery import Gallery
from facenet.service.service import Allowed, Service
from tests.helpers.commands import play
from tests.helpers.encoders import make
from tests.helpers.galleries import faces, people
from tests.helpers.pictures import write_tree
from tests.helpers.services import ask, enrol, service_at, small_encoder

pytestmark = pytest.mark.engines


def test_index_search_and_copy_at_an_address(server: Any, new_name: Callable[[], str], tmp_path: Path) -> None:
    place, encoder = server.address(new_name()), make()
    pictures = write_tree(tmp_path / "faces", 5, 3)
    embed_records(encoder, scan_folder(pictures))[0].save(tmp_path / "embeddings")
    save_bundle(encoder, tmp_path / "encoder")
    given = [f"gallery={place}", f"encoder={tmp_path / 'encoder'}"]
    added = play("index", *given, f"add={tmp_path / 'embeddings'}", out=tmp_path / "add")
    assert (added.code, added.metrics["added"], added.metrics["count"]) == (0, 15, 15), added.errors
    query = next(pictures.rglob("*.png"), None) or next(pictures.rglob("*.jpg"))
    found = play("search", *given, f"query={query}", "threshold=0.01", "k=1", out=tmp_path / "search")
    assert found.code == 0, found.errors
    assert found.metrics["results"][0]["neighbours"][0]["sq_dist"] == pytest.approx(0, abs=1e-5)
    kinds = play("index", given[0], "kind=ivf_sq8", out=tmp_path / "kind")
    assert kinds.code == 2
    assert "kind: unknown name 'ivf_sq8'" in kinds.errors
    copied = play("index", given[0], f"copy={tmp_path / 'copy'}", out=tmp_path / "run")
    assert (copied.code, copied.metrics["copied"]) == (0, 15), copied.errors
    with Gallery.open(tmp_path / "copy") as gallery:
        assert len(gallery) == 15


def test_a_service_of_a_database(server: Any, new_name: Callable[[], str]) -> None:
    place = server.address(new_name())
    with pytest.raises(ConfigError, match="thumbnails=kept: they lie in a gallery's folder"):
        Service(place, small_encoder(), Allowed(thumbnails="kept"))
    with service_at(place) as (client, _):
        assert enrol(client, 1, identity="Ada").status_code == 201
        assert [match["identity"] for match in ask(client, 1, threshold=0.01)["faces"][0]["matches"]] == ["Ada"]
        told = [client.get("/v1/items/nobody")]
        server.kill()
        told.append(client.get("/v1/items"))
        server.start()
        assert [answer.status_code for answer in told] == [404, 503]
        for answer in told:
            assert all(secret not in answer.text for secret in ("://", str(server.port), "127.0.0.1", "postgres"))
        ends = time.monotonic() + 60
        while enrol(client, 2, identity="Ben").status_code != 201:  # 503 until the server has loaded its faces
            assert time.monotonic() < ends
            time.sleep(0.2)
    with Gallery.open(place) as gallery:
        assert gallery.identities() == {"Ada", "Ben"}


def test_thresholds_of_a_gallerys_own_people_are_kept(server: Any, new_name: Callable[[], str]) -> None:
    place = server.address(new_name())
    with Gallery.open(place, create=True) as gallery:
        gallery.add(faces(people(25)))
        found = gallery.threshold(fpir=0.05)
    with Gallery.open(place) as again:
        assert np.isclose(again.threshold(fpir=0.05).sq_dist, found.sq_dist)
        with again._engine.reading():
            assert again._engine.remembered("strangers") is not None
