"""A service that listens in a thread of this process, for clients that open connections."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from facenet.encoders.encoder import Encoder
from facenet.service.app import make_app
from facenet.service.server import make_server, open_socket
from facenet.service.service import Allowed, Service


@contextmanager
def listening(folder: Path, encoder: Encoder, allowed: Allowed | None = None) -> Iterator[str]:
    """Yield the address of a service for the gallery in `folder`."""
    allowed = allowed or Allowed()
    service = Service(str(folder), encoder, allowed, threads=1)
    started = threading.Event()
    try:
        with open_socket("127.0.0.1", 0, keys=allowed.keys is not None) as listener:
            server = make_server(make_app(service), allowed.limits, ready=started.set)
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
            thread.start()
            assert started.wait(10)
            try:
                yield f"http://127.0.0.1:{listener.getsockname()[1]}"
            finally:
                server.should_exit = True
                thread.join()
    finally:
        service.close()
