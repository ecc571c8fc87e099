"""The server process: a socket, connections that may not dawdle, and an end that answers what was taken."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import sys
from collections.abc import Callable
from typing import ClassVar

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from facenet.errors import ConfigError
from facenet.service.guard import is_loopback
from facenet.service.options import LimitOptions
from facenet.service.problems import Problem

HEADER_SECONDS = 10.0  # within which a connection has to send the head of a request
HEADER_BYTES = 16_384
KEEP_ALIVE = 15  # seconds that an idle connection stays open
GRACE = 30  # seconds for the requests that are in work at the end


def open_socket(host: str, port: int, *, keys: bool) -> socket.socket:
    """Bind a socket; port 0 is any free one.

    Raises:
        ConfigError: an address of other machines without keys, or one that can not be bound.
    """
    if not keys and not is_loopback(host):
        raise ConfigError(
            f"host={host}: other machines may ask there, and there are no keys; make one with facenet serve"
            " keys=FILE new_key=NAME role=read and pass keys=FILE, or leave host out"
        )
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))  # the server listens once it can answer
        return bound
    except OSError as error:
        bound.close()
        raise ConfigError(f"{host}:{port}: can not be bound ({error.strerror}); choose another port=") from error


def most_connections(limits: LimitOptions) -> int:
    """Return how many connections may be open: as asked, or half of the files that this process may open."""
    if limits.connections is not None:
        return limits.connections
    if sys.platform == "win32":
        return 500
    import resource

    return max(16, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)


def make_server(app: ASGIApp, limits: LimitOptions, *, ready: Callable[[], None]) -> Server:
    """Return a server that is not started; SIGTERM and SIGINT end it after what it has taken is answered."""

    class Connection(PatientProtocol):
        most = most_connections(limits)
        waiting: ClassVar[dict[PatientProtocol, None]] = {}

    config = uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=GRACE,
        h11_max_incomplete_event_size=HEADER_BYTES,
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    return Server(config, ready)


class Server(uvicorn.Server):
    """A server that says when it answers."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        await super().startup(sockets)
        self._ready()


class PatientProtocol(H11Protocol):
    """A connection that has ten seconds for the head of a request, and gives way if too many are open."""

    most = 1000
    waiting: ClassVar[dict[PatientProtocol, None]] = {}  # those without a request in work, the longest first

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection; if too many are open, the one that has waited longest for its request is closed."""
        super().connection_made(transport)
        # asyncio does this only for sockets that were made with the protocol TCP, not 0: answers would wait 40 ms
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._timer: asyncio.TimerHandle | None = None
        self._expect_head()
        if len(self.connections) > self.most:
            oldest = next(iter(self.waiting))  # looking through all would let a flood of connections hold others up
            del self.waiting[oldest]
            oldest.transport.abort()

    @property
    def is_idle(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def data_received(self, data: bytes) -> None:
        """Take a part of a request."""
        super().data_received(data)
        if not self.is_idle:
            self._stop_timer()
            self.waiting.pop(self, None)
        elif self._timer is None:  # the head of a next request has begun
            self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a connection."""
        self._stop_timer()
        self.waiting.pop(self, None)
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """Wait for the next request, unless it is there."""
        super().on_response_complete()
        if self.is_idle and not self.transport.is_closing():
            self._wait()

    def _wait(self) -> None:
        """Stand at the end of those that wait."""
        self.waiting.pop(self, None)
        self.waiting[self] = None

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection, also if the other side does not read the rest of an answer."""
        super().timeout_keep_alive_handler()
        self.loop.call_later(HEADER_SECONDS, self.transport.abort)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP in the one form of errors."""
        body = json.dumps(Problem(400, "bad_request", msg).body("none")).encode()
        kind = [(b"content-type", b"application/json"), (b"connection", b"close")]
        answer = h11.Response(status_code=400, headers=[*kind, (b"content-length", str(len(body)).encode())])
        events = (answer, h11.Data(data=body), h11.EndOfMessage())
        self.transport.write(b"".join(self.conn.send(event) or b"" for event in events))
        self.transport.close()

    def _expect_head(self) -> None:
        self._wait()
        self._timer = self.loop.call_later(HEADER_SECONDS, self._close_if_idle)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _close_if_idle(self) -> None:
        self._timer = None
        if self.is_idle and not self.transport.is_closing():
            self.transport.abort()
