"""The door of the service: who asks, how often, how much, for how long; and what is said and noted of each request.

The guard looks at a request before its body is read. No name of a person, no picture and no vector is logged: a line
has the route's template, not its path.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import secrets
import time
import traceback
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from h11 import LocalProtocolError
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from facenet.service.buckets import TokenBuckets
from facenet.service.keys import WRITE, Keys, Who
from facenet.service.metrics import Metrics
from facenet.service.options import LimitOptions, RateOptions
from facenet.service.problems import Problem, problem_of, too_busy, too_late
from facenet.service.waiting import DEADLINE

HEALTH = "/v1/health"
OPEN = ("/", HEALTH, "/v1/ready", "/openapi.json")  # no key needed; the page asks for one
ASKING = (  # POST that changes nothing
    *("/v1/detect", "/v1/embed", "/v1/compare", "/v1/search"),
    *("/v1/vectors/search", "/v1/vectors/threshold", "/v1/find"),
)
SAFE = ("GET", "HEAD", "OPTIONS")
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), geolocation=(), microphone=()",
}
log = logging.getLogger("facenet.service")


class Guard:
    """An ASGI application around the routes."""

    def __init__(
        self, app: ASGIApp, *, keys: Keys | None, limits: LimitOptions, rate: RateOptions, metrics: Metrics
    ) -> None:
        self.app, self.keys, self.limits, self.metrics = app, keys, limits, metrics
        self.buckets = TokenBuckets(rate)
        self.bytes_in_work = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it with what is wrong."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        exchange = Exchange(scope, receive, send, self)
        try:
            async with asyncio.timeout(self.limits.seconds):
                self._admit(exchange)
                exchange.refuse_long()
                DEADLINE.set(time.monotonic() + self.limits.seconds)
                await self.app(scope, exchange.receive, exchange.send)
        except TimeoutError:
            slow = Problem(408, "too_slow", f"the request took more than {self.limits.seconds:g} seconds to come")
            await exchange.fail(too_late(self.limits.seconds) if exchange.whole else slow)
        except Exception as error:
            problem = problem_of(error)
            if problem.status_code == 500:
                exchange.note_failure(error)
            await exchange.fail(problem)
        finally:
            self.bytes_in_work -= exchange.bytes
            exchange.note()
            self.metrics.count(exchange.route, scope["method"], exchange.status, exchange.seconds)

    def _admit(self, exchange: Exchange) -> None:
        """Find out who asks, which nobody needs to say on an open route, and whether they may."""
        scope, headers = exchange.scope, headers_of(exchange.scope)
        path, method = scope["path"], scope["method"]
        address = str(scope["client"][0]) if scope.get("client") else "unknown"
        who = exchange.who = self._who(headers, address) if path not in OPEN else None
        scope["state"]["who"] = who
        if path != HEALTH:
            wait = self.buckets.take(who.name if who and self.keys else address)
            if wait:
                raise Problem(429, "rate_limited", f"too many requests; try again in {wait:.2f} s", retry_after=wait)
        if method not in SAFE:
            _refuse_foreign(headers)
        if who and method not in SAFE and path not in ASKING and not who.may_write:
            raise Problem(403, "forbidden", "this key may read only; use a key with role=write")

    def _who(self, headers: Mapping[str, str], address: str) -> Who:
        if self.keys is None:
            _refuse_other_hosts(headers)
            return Who(address, WRITE)
        kind, _, key = headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not key:
            raise Problem(401, "no_key", "this service needs a key; send the header Authorization: Bearer KEY")
        who = self.keys.find(key.strip())
        if who is None:
            wait = self.buckets.take(f"unknown {address}")
            if wait:
                raise Problem(429, "rate_limited", "too many wrong keys from this address", retry_after=wait)
            raise Problem(401, "unknown_key", "this key is not known; ask who runs the service for one")
        return who


class Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, guard: Guard) -> None:
        self.scope, self._receive, self._send = scope, receive, send
        self.guard, self.limits = guard, guard.limits
        self.id = secrets.token_hex(8)
        self.started = time.monotonic()
        self.who: Who | None = None
        self.bytes, self.status = 0, 0
        headers = headers_of(scope)
        self._length, self._chunked = headers.get("content-length", "0"), "transfer-encoding" in headers
        self._has_body = self._length != "0" or self._chunked
        self.whole = not self._has_body  # the body has come
        scope.setdefault("state", {})["request_id"] = self.id

    @property
    def route(self) -> str:
        """The template of the route, "-" for none."""
        return getattr(self.scope.get("route"), "path", "-")

    @property
    def seconds(self) -> float:
        """How long the exchange has taken."""
        return time.monotonic() - self.started

    def refuse_long(self) -> None:
        """Refuse a body that says that it is too long."""
        if self._chunked and self._length != "0":  # a proxy in front may read another end of the body
            raise Problem(400, "bad_request", "Content-Length and Transfer-Encoding exclude each other; send one")
        if not self._length.isdecimal() or int(self._length) > self.limits.bytes:
            raise self._too_large()

    async def receive(self) -> Message:
        """Return the next part of the body, as far as it is allowed."""
        message = await self._receive()
        if message["type"] == "http.request":
            more = len(message.get("body", b""))
            self.bytes += more
            self.guard.bytes_in_work += more
            self.whole = not message.get("more_body", False)
            if self.bytes > self.limits.bytes:
                raise self._too_large()
            if self.guard.bytes_in_work > self.limits.bytes_in_work:
                raise too_busy("too many bytes are in work")
        return message

    async def send(self, message: Message) -> None:
        """Send a part of the answer, with the headers that every answer has."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            given = {name.lower() for name, _ in message["headers"]}
            extra = {**HEADERS, "X-Request-ID": self.id}
            if self._has_body and not self.whole:
                extra["Connection"] = "close"  # what is left of the body is not read
            added = [(name.encode(), value.encode()) for name, value in extra.items()]
            message["headers"] = [*message["headers"], *(one for one in added if one[0].lower() not in given)]
        try:
            await self._send(message)
        except LocalProtocolError:  # what came was no HTTP: the server has answered that, and closes
            while (await self._receive())["type"] == "http.request":
                pass

    async def fail(self, problem: Problem) -> None:
        """Answer with a problem, unless an answer has begun."""
        if self.status:
            return
        answer = JSONResponse(problem.body(self.id), problem.status_code, problem.headers)
        await answer(self.scope, self._receive, self.send)

    def note(self) -> None:
        """Log one line of JSON."""
        line = {
            "request_id": self.id,
            "method": self.scope["method"],
            "route": self.route,
            "status": self.status,
            "ms": round(self.seconds * 1000, 1),
            "bytes": self.bytes,
            "key": self.who.name if self.who else None,
        }
        log.info("%s", json.dumps(line))

    def note_failure(self, error: Exception) -> None:
        """Log where an error that nobody expected was raised; its text may hold names, and is left out."""
        frames = "".join(traceback.format_tb(error.__traceback__))
        log.error("%s", json.dumps({"request_id": self.id, "error": type(error).__name__, "at": frames}))

    def _too_large(self) -> Problem:
        return Problem(413, "too_large", f"a request may have {self.limits.bytes} bytes; make the pictures smaller")


def headers_of(scope: Scope) -> dict[str, str]:
    """Return the headers by lower-case name; of one that comes twice, the last."""
    pairs: Sequence[tuple[bytes, bytes]] = scope["headers"]
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in pairs}


def is_loopback(host: str) -> bool:
    """Whether a host, without its port, is this machine itself."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _refuse_other_hosts(headers: Mapping[str, str]) -> None:
    """Without keys, refuse a request for another name: a page elsewhere may let its own name point to this machine."""
    if not is_loopback(_host(f"//{headers.get('host', '')}")):
        raise Problem(403, "forbidden", "without keys the service answers to localhost only; ask for http://localhost")


def _refuse_foreign(headers: Mapping[str, str]) -> None:
    """Refuse what a page of another origin sends: a browser says where a request comes from."""
    origin = headers.get("origin")
    if origin is not None and origin.partition("://")[2] != headers.get("host"):
        raise Problem(403, "forbidden", "the request comes from a page of another origin")


def _host(address: str) -> str:
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""
