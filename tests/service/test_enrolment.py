"""What comes into a gallery: the gate, photos with many faces, galleries of two encoders, a service that is killed."""

from __future__ import annotations

import http.client
import io
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from PIL import Image, ImageFilter
from starlette.testclient import TestClient

from facenet.data.preprocess import Preprocess
from facenet.encoders.bundle import save_bundle
from facenet.encoders.encoder import Encoder
from facenet.faces.alignment import Alignment
from facenet.faces.options import Gate
from facenet.gallery.gallery import Gallery
from facenet.service.options import LimitOptions, RateOptions
from facenet.service.service import Allowed, Service
from facenet.types import EmbeddingSet
from tests.helpers import ROOT
from tests.helpers.commands import environment
from tests.helpers.services import enrol, png, service_at, small_encoder

FREE = RateOptions(per_second=None)
Serve = Callable[..., AbstractContextManager[tuple[TestClient, Service]]]


def jpeg(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def photos(portrait: Image.Image) -> dict[str, bytes]:
    """A portrait, the same out of focus, and a photo that shows it twice."""
    small, pair = portrait.resize((256, 300)), Image.new("RGB", (448, 300))
    pair.paste(small, (0, 0))
    pair.paste(portrait.resize((192, 225)), (256, 50))
    blurred = small.filter(ImageFilter.GaussianBlur(3))
    return {"one": jpeg(small), "blurred": jpeg(blurred), "pair": jpeg(pair)}


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    """Starts services with an encoder that finds faces."""

    def start(**allowed: object) -> AbstractContextManager[tuple[TestClient, Service]]:
        encoder = small_encoder()
        encoder.preprocess = Preprocess(size=(32, 32), align=Alignment())
        return service_at(tmp_path / "g", Allowed(rate=FREE, **allowed), encoder)  # type: ignore[arg-type]

    return start


def send(client: TestClient, photo: bytes, **fields: object) -> tuple[int, list[str]]:
    """Enrol a photo; returns the status, and the codes of the notes or that of the error and of its details."""
    answer = client.post("/v1/items", files={"image": photo}, data=fields)
    told = answer.json()
    if answer.status_code == 201:
        return 201, [note["code"] for item in told["items"] for note in item["notes"]]
    return answer.status_code, [told["error"]["code"], *(note["code"] for note in told["error"]["details"])]


def test_a_gate_that_refuses(serve: Serve, photos: dict[str, bytes]) -> None:
    with serve(gate=Gate(action="refuse")) as (client, _):
        assert send(client, photos["blurred"]) == (422, ["too_blurred", "too_blurred"])
        assert send(client, photos["pair"]) == (422, ["several_faces"])
        both = client.post("/v1/items", files=[("image", photos["one"]), ("image", photos["blurred"])])
        assert (both.status_code, both.json()["error"]["details"][0]["image"]) == (422, 2)
        assert client.put("/v1/items/a", files={"image": photos["blurred"]}).status_code == 422
        assert client.get("/v1/items").json()["items"] == []
        assert send(client, photos["one"], id="a") == (201, [])
        assert send(client, photos["pair"], id="b", face=0) == (201, [])
        text = client.get("/metrics").text
        assert 'facenet_refused_total{code="too_blurred"} 3.0' in text
        assert 'facenet_refused_total{code="several_faces"} 1.0' in text


@pytest.mark.parametrize(("action", "notes"), [("warn", ["too_small", "too_blurred"]), ("off", [])])
def test_a_gate_that_lets_everybody_in(serve: Serve, photos: dict[str, bytes], action: str, notes: list[str]) -> None:
    with serve(gate=Gate(action=action, min_side=2000)) as (client, _):
        assert send(client, photos["blurred"]) == (201, notes)
        assert send(client, photos["pair"]) == (201, notes[:1])
        seen = client.post("/v1/detect", files={"image": photos["blurred"]}).json()
        assert [note["code"] for note in seen["faces"][0]["notes"]] == notes


def test_faces_beyond_the_limit_are_left_out_and_counted(serve: Serve, photos: dict[str, bytes]) -> None:
    with serve(limits=LimitOptions(faces=1)) as (client, _):
        for route, rate in (("detect", {}), ("embed", {}), ("search", {"threshold": 1})):
            told = client.post(f"/v1/{route}", files={"image": photos["pair"]}, data=rate).json()
            assert len(told["faces"]) == 1
            assert told["notes"] == [
                {"code": "several_faces", "message": "the photo shows 2 faces, of which the 1 clearest are looked at"}
            ]
        assert send(client, photos["pair"], face=1) == (422, ["invalid"])
        assert send(client, photos["pair"], face=0) == (201, [])


# Two encoders in one gallery


@pytest.fixture
def upgraded(tmp_path: Path) -> Iterator[tuple[TestClient, Service, Encoder]]:
    """A service whose gallery has faces of an older encoder, too; and that encoder."""
    old = small_encoder(1)
    with service_at(tmp_path / "g", Allowed(rate=FREE), old) as (client, _):
        assert enrol(client, 0, 1, 2, id=["old/0", "old/1", "old/2"], identity=list("ABC")).status_code == 201
    new = small_encoder(0, (old.fingerprint,))
    new.with_older[old.fingerprint] = {1e-3: 1.1, 1e-2: 1.3, 1e-1: 1.5}
    with service_at(tmp_path / "g", Allowed(rate=FREE), new) as (client, service):
        assert enrol(client, 0, 1, 1, id=["new/0", "new/1", "new/2"], identity=list("AGG")).status_code == 201
        yield client, service, old


def test_each_face_is_judged_by_the_threshold_of_its_encoder(upgraded: tuple[TestClient, Service, Encoder]) -> None:
    client, service, old = upgraded
    new = service.encoder
    with Image.open(io.BytesIO(png(1))) as picture:
        vector = new.embed(picture.convert("RGB"))
    asked = EmbeddingSet.unnamed(vector, new.fingerprint, compatible_with=(old.fingerprint,))
    for rates in ({}, {"far": 0.01}, {"threshold": 1.0}):
        told = client.post("/v1/search", files={"image": png(1)}, data={"k": 9, **rates}).json()["faces"][0]["matches"]
        with Gallery.open(service.gallery.folder) as gallery:
            (hits,) = gallery.hits(asked, 9)
            at = gallery.threshold(new, **rates)
        assert [match["id"] for match in told] == [hit.id for hit in hits]
        assert [match["threshold"] for match in told] == [at.of(hit.fingerprint) for hit in hits]
        assert [match["accepted"] for match in told] == [hit.accepted(at.of(hit.fingerprint)) for hit in hits]
        limits = {match["id"][:3]: match["threshold"] for match in told}
        assert (limits["new"] < limits["old"]) == ("threshold" not in rates)
    assert {match["id"] for match in told[:2]} == {"new/1", "new/2"}


def test_clusters_are_of_one_encoder(upgraded: tuple[TestClient, Service, Encoder]) -> None:
    client, _, _ = upgraded
    told = client.get("/v1/clusters").json()
    assert [cluster["ids"] for cluster in told["clusters"]] == [["new/1", "new/2"]]
    assert told["rule"].endswith("3 faces of older encoders are left out")


# A service that is killed


@pytest.mark.slow  # starts a service in a process of its own, twice
def test_every_face_that_was_acknowledged_has_its_picture_after_a_kill(tmp_path: Path) -> None:
    folder = tmp_path / "g"
    save_bundle(small_encoder(), tmp_path / "encoder")
    command = [sys.executable, str(ROOT / "scripts" / "serve.py"), f"gallery={folder}", "port=0", "thumbnails=kept"]
    command += [f"encoder={tmp_path / 'encoder'}", "rate.per_second=null", f"hydra.run.dir={tmp_path / 'run'}"]
    acknowledged: list[str] = []

    def write(address: str, writer: int) -> None:
        connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=20)
        for step in range(10_000):
            name = f"{writer}-{step}-{len(acknowledged)}"
            parts = {"id": name.encode(), 'image"; filename="a': png(step % 50)}
            body = b"".join(
                b'--x\r\nContent-Disposition: form-data; name="' + key.encode() + b'"\r\n\r\n' + value + b"\r\n"
                for key, value in parts.items()
            )
            headers = {"Content-Type": "multipart/form-data; boundary=x"}
            try:
                connection.request("POST", "/v1/items", body + b"--x--\r\n", headers)
                answer = connection.getresponse()
                answer.read()
            except (OSError, http.client.HTTPException):
                connection.close()
                return
            assert answer.status == 201
            acknowledged.append(name)

    for _ in range(2):
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
        with subprocess.Popen(command, env=environment(), **pipes) as process:
            try:
                assert process.stdout
                address = next(line for line in process.stdout if "serving at" in line).split()[-1]
                writers = [threading.Thread(target=write, args=(address, number)) for number in range(4)]
                for writer in writers:
                    writer.start()
                time.sleep(1.0)
            finally:
                process.kill()
        for writer in writers:
            writer.join()
    assert len(acknowledged) > 30
    with service_at(folder, Allowed(rate=FREE, thumbnails="kept")) as (client, service):
        with Gallery.open(folder) as gallery:
            assert gallery.check() == []
            items = {item.id: item for item in gallery.page(limit=100_000)}
            assert set(acknowledged) <= set(items)
            service.thumbnails.sweep(gallery, time.time() + 100)
        files = {path.name for path in (folder / "faces").glob("*.jpg")}
        assert files == {Path(item.path).name for item in items.values()}
        assert client.get(f"/v1/faces/{acknowledged[-1]}").status_code == 200
