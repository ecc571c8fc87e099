"""Requests to a service, with the standard library alone: connections stay open, errors are the library's own."""

from __future__ import annotations

import contextlib
import http.client
import json
import selectors
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

from facenet.errors import Busy, ConfigError, DataError, FacenetError, NotThere, OtherEncoder, Taken

IDLE = 5.0  # seconds after which a request that can not be repeated gets a new connection: the service closes old ones
WAITED = ("busy", "rate_limited")  # codes of requests that were not begun
DROPPED = (ConnectionResetError, BrokenPipeError, http.client.IncompleteRead, http.client.BadStatusLine)
ERRORS: dict[str, type[FacenetError]] = {
    "other_encoder": OtherEncoder,
    "duplicate_id": Taken,
    "not_found": NotThere,
    "invalid": ConfigError,
    **dict.fromkeys((*WAITED, "too_late"), Busy),
}
REMEDIES = {
    "no_key": "; pass key=, or set FACENET_KEY",
    "too_large": "; send fewer vectors or names at once, or raise limits.bytes of facenet serve",
}


class Answer(NamedTuple):
    """What came back."""

    status: int
    wait: float | None  # seconds, of Retry-After
    data: bytes

    def told(self) -> Any:
        """Return the JSON of the answer, None for anything else."""
        try:
            return json.loads(self.data)
        except ValueError:
            return None


class Wire:
    """The connections to one service; any number of threads may use them."""

    def __init__(self, url: str, key: str | None, timeout: float) -> None:
        """Check the address; nothing is asked yet.

        Raises:
            ConfigError: no address of a service, or a key with characters that no key has.
        """
        parts = urlsplit(url)
        try:
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
        if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment or parts.username:
            raise ConfigError(f"url: expected an address such as http://127.0.0.1:8000, got {url!r}")
        if key and not (key.isascii() and key.isprintable()):
            raise ConfigError("key: it has characters that no key has; copy it again")
        if not timeout > 0:
            raise ConfigError(f"timeout: expected seconds above 0, got {timeout}")
        self.url, self.timeout = url.rstrip("/"), timeout
        self._kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._place, self._prefix = (host, port), parts.path.rstrip("/")
        self._headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        self._idle: list[tuple[http.client.HTTPConnection, float]] = []  # open connections, and when they were used

    def close(self) -> None:
        """Close all connections; the next request opens one again."""
        while self._idle:
            self._idle.pop()[0].close()

    def get(self, path: str, **query: Any) -> Any:
        """Return the answer to GET; values of None are left out."""
        given = {name: value for name, value in query.items() if value is not None}
        return self._ask("GET", f"{quote(path)}?{urlencode(given, doseq=True)}" if given else quote(path), None, True)

    def post(self, path: str, body: Mapping[str, Any], *, safe: bool = True) -> Any:
        """Return the answer to POST of JSON; a request that is not `safe` to repeat is sent once."""
        try:
            data = json.dumps(body, allow_nan=False, ensure_ascii=False).encode()
        except (TypeError, ValueError) as error:
            raise DataError(f"{self.url}{path}: what is sent is no JSON ({error}); leave it out") from error
        return self._ask("POST", path, data, safe)

    def _ask(self, method: str, target: str, data: bytes | None, safe: bool) -> Any:
        """Ask until there is an answer: once more after a dropped connection, and for as long as the service is busy.

        Raises:
            FacenetError: what the service answered, by `ERRORS`; DataError if it does not answer.
        """
        end, again = time.monotonic() + self.timeout, safe
        while True:
            try:
                answer = self._exchange(method, target, data, end, safe)
            except TimeoutError:
                raise Busy(
                    f"{self.url}: no answer within {self.timeout:g} seconds; try again, or raise timeout="
                ) from None
            except DROPPED as error:
                if not again:
                    raise DataError(
                        f"{self.url}: the connection was lost; look whether the request was done"
                    ) from error
                again = False
                continue
            except (OSError, http.client.HTTPException) as error:
                reason = getattr(error, "strerror", None) or error
                raise DataError(f"{self.url}: no service answers ({reason}); start facenet serve there") from error
            if 200 <= answer.status < 300:
                return self._json(answer)
            problem, code = self._problem(answer)
            if code not in WAITED or answer.wait is None or time.monotonic() + answer.wait > end:
                raise problem
            time.sleep(answer.wait)

    def _exchange(self, method: str, target: str, data: bytes | None, end: float, safe: bool) -> Answer:
        """Send one request and read the answer."""
        connection = self._connection(fresh=not safe)
        left = max(end - time.monotonic(), 0.001)
        connection.timeout = left
        if connection.sock is not None:
            connection.sock.settimeout(left)
        headers = self._headers if data is None else {**self._headers, "Content-Type": "application/json"}
        try:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # refused before all was sent: read why
                connection.request(method, self._prefix + target, data, headers)
            answer = connection.getresponse()
            wait = answer.headers.get("Retry-After", "")
            found = Answer(answer.status, float(wait) if wait.isdecimal() else None, answer.read())
        except BaseException:
            connection.close()
            raise
        if connection.sock is not None:
            self._idle.append((connection, time.monotonic()))
        return found

    def _connection(self, *, fresh: bool) -> http.client.HTTPConnection:
        """Return a connection that no other thread uses; a `fresh` one is not about to be closed by the service."""
        try:
            connection, used = self._idle.pop()  # the one used last
        except IndexError:
            return self._kind(*self._place)
        if (fresh and time.monotonic() - used > IDLE) or _is_ended(connection):
            connection.close()  # and opened again by the request
        return connection

    def _json(self, answer: Answer) -> Any:
        told = answer.told()
        if not isinstance(told, dict):
            raise DataError(f"{self.url}: its answer is no JSON; is the address that of facenet serve?")
        return told

    def _problem(self, answer: Answer) -> tuple[FacenetError, str]:
        """Return the error that an answer tells, and its code."""
        told = answer.told()
        try:
            code, message = str(told["error"]["code"]), str(told["error"]["message"])
        except (KeyError, TypeError):
            line = f"{self.url}: status {answer.status}, and no answer of facenet serve; check the address"
            return DataError(line), ""
        return ERRORS.get(code, DataError)(f"{message}{REMEDIES.get(code, '')}"), code


def _is_ended(connection: http.client.HTTPConnection) -> bool:
    """Whether the service has closed a connection: there is something to read, although nothing was asked."""
    with selectors.DefaultSelector() as selector:
        selector.register(connection.sock, selectors.EVENT_READ)
        return bool(selector.select(0))


def batches(sizes: Sequence[int], most: int, most_bytes: int) -> list[slice]:
    """Cut rows of these sizes into stretches of at most `most` rows and about `most_bytes`; each has a row at least.

    >>> batches([4, 4, 4, 4, 9], 3, 10)
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    found, start, total = [], 0, 0
    for row, size in enumerate(sizes):
        if row > start and (row - start >= most or total + size > most_bytes):
            found.append(slice(start, row))
            start, total = row, 0
        total += size
    return [*found, slice(start, len(sizes))] if len(sizes) > start else found
