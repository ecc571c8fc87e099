"""A service in this process, with a small encoder that takes every picture for a face."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from starlette.testclient import TestClient

from facenet.encoders.encoder import Encoder
from facenet.service.app import make_app
from facenet.service.options import RateOptions
from facenet.service.server import make_server, open_socket
from facenet.service.service import Allowed, Service
from tests.helpers.encoders import make

RATES = {1e-3: 0.001, 1e-2: 0.002, 1e-1: 0.004}


def small_encoder(seed: int = 0, compatible_with: tuple[str, ...] = ()) -> Encoder:
    encoder = make(seed)
    encoder.thresholds.update(RATES)
    encoder.compatible_with.extend(compatible_with)
    return encoder


def png(seed: int, side: int = 40) -> bytes:
    """A picture that follows from its number."""
    squares = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(squares.repeat(side // 4, 0).repeat(side // 4, 1)).save(buffer, "PNG")
    return buffer.getvalue()


@contextmanager
def service_at(
    folder: Path | str, allowed: Allowed | None = None, encoder: Encoder | None = None
) -> Iterator[tuple[TestClient, Service]]:
    """A client of a running service, and the service."""
    service = Service(str(folder), encoder or small_encoder(), allowed or Allowed(), threads=1)
    try:
        with TestClient(make_app(service), base_url="http://localhost") as client:
            yield client, service
    finally:
        service.close()


@contextmanager
def listening_at(folder: Path, allowed: Allowed | None = None, encoder: Encoder | None = None) -> Iterator[str]:
    """The address of a service that listens at a port of this machine, in threads of this process."""
    allowed = allowed or Allowed(rate=RateOptions(per_second=None))
    service = Service(str(folder), encoder or small_encoder(), allowed, threads=1)
    ready = threading.Event()
    with open_socket("127.0.0.1", 0, keys=allowed.keys is not None) as listening:
        server = make_server(make_app(service), allowed.limits, ready=ready.set)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            assert ready.wait(10)
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
            service.close()


def enrol(client: TestClient, *seeds: int, **fields: Any) -> Any:
    """Enrol pictures by number; returns the response."""
    headers = fields.pop("headers", {})
    images = [("image", (f"{seed}.png", png(seed), "image/png")) for seed in seeds]
    return client.post("/v1/items", files=images, data=fields, headers=headers)


def ask(client: TestClient, seed: int, **fields: Any) -> Any:
    """Search with a picture by number; returns the JSON of the answer."""
    answer = client.post("/v1/search", files={"image": png(seed)}, data=fields)
    assert answer.status_code == 200, answer.text
    return answer.json()
