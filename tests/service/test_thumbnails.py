"""Kept pictures come before their items, and go with them."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from facenet.encoders.photos import SHOWN, network_input, see_photo, shrink
from facenet.errors import StorageError
from facenet.gallery.gallery import Gallery
from facenet.service import thumbnails
from facenet.service.options import LimitOptions, RateOptions
from facenet.service.service import Allowed, Service
from tests.helpers.services import enrol, png, service_at, small_encoder

FREE = RateOptions(per_second=None)


@pytest.fixture
def keeping(tmp_path: Path) -> Iterator[tuple[TestClient, Service]]:
    with service_at(tmp_path / "g", Allowed(thumbnails="kept", rate=FREE)) as found:
        yield found


def kept(service: Service) -> list[str]:
    """The files that are there, but for those that are being written."""
    return [path.name for path in (service.gallery.folder / "faces").glob("*") if not path.name.startswith(".")]


def named(service: Service) -> list[str]:
    with Gallery.open(service.gallery.folder) as gallery:
        return sorted(Path(item.path).name for item in gallery.page() if item.path.startswith("faces/"))


def vector_item(service: Service, name: str, **more: object) -> dict[str, object]:
    vector = np.eye(1, service.encoder.dim).tolist()
    asked = {"vectors": vector, "fingerprint": service.encoder.fingerprint, "identities": ["Vera"], "paths": ["v.png"]}
    return {**asked, "ids": [name], **more}


def test_vectors_in_the_place_of_a_face_take_its_picture_away(keeping: tuple[TestClient, Service]) -> None:
    client, service = keeping
    enrol(client, 1, 2, id=["a", "b"])
    assert client.post("/v1/vectors/items", json=vector_item(service, "a")).status_code == 409
    assert client.post("/v1/vectors/items", json=vector_item(service, "b", on_duplicate="skip")).json()["skipped"] == 1
    assert len(kept(service)) == 2
    done = client.post("/v1/vectors/items", json=vector_item(service, "a", on_duplicate="replace"))
    assert done.json()["replaced"] == 1
    assert kept(service) == named(service)
    assert len(kept(service)) == 1
    assert client.get("/v1/faces/a").status_code == 404
    assert client.delete("/v1/items/a").json() == {"removed": 1}
    assert len(kept(service)) == 1


@pytest.mark.parametrize("how", ["delete", "vectors", "person"])
def test_pictures_go_with_their_items_in_a_service_that_keeps_none(
    keeping: tuple[TestClient, Service], how: str
) -> None:
    client, service = keeping
    enrol(client, 1, id="a", identity="Ann")
    assert len(kept(service)) == 1
    service.thumbnails.mode = "none"
    calls: dict[str, Callable[[], Any]] = {
        "delete": lambda: client.delete("/v1/items/a"),
        "vectors": lambda: client.post("/v1/vectors/items", json=vector_item(service, "a", on_duplicate="replace")),
        "person": lambda: client.delete("/v1/items", params={"identity": "Ann"}),
    }
    assert calls[how]().is_success
    assert kept(service) == []


def test_the_same_request_in_another_mode_is_done_once(keeping: tuple[TestClient, Service]) -> None:
    client, service = keeping
    once = {"Idempotency-Key": "import-secret"}
    for mode in ("kept", "none", "kept"):
        service.thumbnails.mode = mode
        answer = enrol(client, 1, id="a", headers=once)
        assert (answer.status_code, answer.json()["added"]) == (201, 1), answer.text
        other = enrol(client, 1, id="b", headers=once)
        assert other.status_code == 409
        assert "secret" not in other.text
        assert kept(service) == named(service)
        assert len(kept(service)) == 1


def test_a_picture_that_is_missing_is_not_found(keeping: tuple[TestClient, Service]) -> None:
    client, service = keeping
    enrol(client, 1, id="a")
    (service.gallery.folder / "faces" / kept(service)[0]).unlink()
    assert client.get("/v1/faces/a").status_code == 404
    assert client.delete("/v1/items/a").json() == {"removed": 1}


def test_pictures_are_written_beside_the_thread_of_the_gallery(
    keeping: tuple[TestClient, Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, service = keeping
    plain, threads = thumbnails.encode_jpeg, []

    def noted(pixels: np.ndarray) -> bytes:
        threads.append(threading.current_thread().name)
        return plain(pixels)

    monkeypatch.setattr(thumbnails, "encode_jpeg", noted)
    assert enrol(client, 1, 2).status_code == 201
    assert [name.split("_")[0] for name in threads] == ["look", "look"]
    assert service.inference.places.taken == 0


def test_pictures_of_a_write_that_fails_go_again(
    keeping: tuple[TestClient, Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, service = keeping
    enrol(client, 1, id="a")

    def full(*_: object, **__: object) -> None:
        raise StorageError("disk full")

    with monkeypatch.context() as broken:
        broken.setattr(Gallery, "add", full)
        assert enrol(client, 2, id="b").status_code == 503
    service.gallery.places.taken = service.allowed.limits.waiting  # nothing is begun
    assert enrol(client, 2, id="b").status_code == 503
    service.gallery.places.taken = 0
    assert kept(service) == named(service)
    assert len(kept(service)) == 1


def test_a_request_whose_time_is_up_leaves_no_picture(tmp_path: Path) -> None:
    allowed = Allowed(LimitOptions(seconds=0.2), FREE, thumbnails="kept")
    with service_at(tmp_path / "g", allowed) as (client, service):
        held = threading.Event()
        service.gallery._thread.submit(held.wait, 5)
        assert enrol(client, 1).status_code == 503
        held.set()
        deadline = time.monotonic() + 5
        while kept(service) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert kept(service) == named(service) == []


def test_a_start_sweeps_pictures_that_no_item_names(tmp_path: Path) -> None:
    allowed = Allowed(thumbnails="kept", rate=FREE)
    with service_at(tmp_path / "g", allowed) as (client, service):
        enrol(client, 1, 2, id=["a", "b"])
        young = service.thumbnails.keep(np.zeros((8, 8, 3), np.uint8))
    with Gallery.open(tmp_path / "g") as gallery:
        gallery.remove("a")  # by a command, say
    (tmp_path / "g" / "faces" / "notes.jpg").write_bytes(b"of somebody else")
    for path in (tmp_path / "g" / "faces").glob("*"):
        age = 10 if path.name in young else 100
        os.utime(path, (time.time() - age, time.time() - age))
    with service_at(tmp_path / "g", allowed) as (_, service):
        left, deadline = sorted([*named(service), Path(young).name, "notes.jpg"]), time.monotonic() + 5
        while sorted(kept(service)) != left and time.monotonic() < deadline:
            time.sleep(0.01)
        assert sorted(kept(service)) == left
    assert len(left) == 3


def test_a_skipped_face_is_told_as_it_is_stored(keeping: tuple[TestClient, Service]) -> None:
    client, service = keeping
    enrol(client, 1, id="a", identity="Ann")
    told = enrol(client, 2, 3, id=["a", "b"], identity=["Bob", "Ben"], on_duplicate="skip").json()
    assert [one["identity"] for one in told["items"]] == ["Ann", "Ben"]
    assert (told["added"], told["skipped"]) == (1, 1)
    assert sorted(kept(service)) == named(service)


def test_large_pixels_are_not_kept_in_memory(tmp_path: Path) -> None:
    with service_at(tmp_path / "g", Allowed(rate=FREE)) as (client, service):
        photo = service.inference._see(png(1, 1200))[0]
        assert max(photo.faces[0].pixels.shape) == SHOWN
        assert client.post("/v1/detect", files={"image": png(1, 1200)}).json()["faces"][0]["box"] == [0, 0, 1200, 1200]


def test_only_what_is_shown_shrinks() -> None:
    encoder = small_encoder()
    photo = see_photo(encoder, Image.fromarray(np.arange(900 * 400 * 3, dtype=np.uint8).reshape(400, 900, 3)))
    small = shrink(photo)
    assert small.faces[0].pixels.shape == (114, 256, 3)
    assert small.faces[0]._replace(pixels=photo.faces[0].pixels) == photo.faces[0]
    assert network_input(encoder, photo.faces).shape == (1, 3, 32, 32)
