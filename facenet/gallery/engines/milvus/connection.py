"""The connection to Milvus: whose address names the collection, tried again while it is lost, its errors in one line.

The token or "user:password" comes from the environment variable ``MILVUS_TOKEN``, never from the address.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar
from urllib.parse import parse_qsl, urlsplit

from facenet.errors import Busy, ConfigError, StorageError, choose, one_line
from facenet.foreign import install_command
from facenet.gallery.items import unholdable

T = TypeVar("T")
SCHEME = "milvus://"
HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9a-fA-F:.]+\])(:[0-9]{1,5})?")
NAME = re.compile("[A-Za-z_][A-Za-z0-9_]{0,99}")
CONSISTENCY = {  # what a search sees, and what that costs
    "strong": "Strong",  # every acknowledged write, after waiting for Milvus' clock: up to 0.2 s a question
    "session": "Session",  # this client's writes at once, those of others within seconds
    "bounded": "Bounded",  # any write within seconds
}
RECOVERING = (
    "not loaded",
    "not available",
    "offline",
    "no available",
    "not ready",
    "node not match",
    "channel not found",
    "Fail connecting",
)
LOADING = 60.0  # seconds that a collection may take to be made ready
PAGE = 8192  # rows of an answer; Milvus gives at most 16,384
Row = dict[str, Any]


class Address(NamedTuple):
    """Where a gallery is."""

    uri: str
    name: str
    consistency: str
    shown: str


def parse(address: str) -> Address:
    """Return the parts of ``milvus://host[:port]/name[?consistency=strong|session|bounded][&secure=true]``.

    Raises:
        ConfigError: a password in it, no name of a collection, or an unknown parameter.
    """
    parts = urlsplit(address)
    options = dict(parse_qsl(parts.query))
    host, name = parts.netloc.rpartition("@")[2], parts.path.strip("/")
    shown = f"{SCHEME}{host}/{name}"
    if "@" in parts.netloc:
        raise ConfigError(f"{shown}: leave user and password out; set MILVUS_TOKEN=user:password")
    if not HOST.fullmatch(host) or not NAME.fullmatch(name):
        raise ConfigError(f"{shown}: expected milvus://host:19530/NAME, a name of letters, digits and _")
    level = choose(CONSISTENCY, options.pop("consistency", "strong"), "consistency")
    scheme = choose({"true": "https", "false": "http"}, options.pop("secure", "false"), "secure")
    if options:
        raise ConfigError(f"{shown}: unknown {', '.join(options)}; known are consistency and secure")
    return Address(f"{scheme}://{host if parts.port else f'{host}:19530'}", name, level, shown)


class Connection:
    """A client of one server. Expressions hold numbers alone: no text of a user becomes part of one."""

    def __init__(self, address: str, timeout: float) -> None:
        """Connect; `timeout` seconds is waited for an answer, with more and more patience between tries.

        Raises:
            ConfigError: as :func:`parse`, or without the client.
            StorageError: the server can not be reached, or refuses.
        """
        self.address = parse(address)
        self.timeout = timeout
        self.consistency = self.address.consistency  # of the present questions
        try:
            import pymilvus
        except ImportError as error:
            raise ConfigError(f"Milvus needs pymilvus; {install_command('milvus')}") from error
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # it logs every error that it also raises
        self.pymilvus = pymilvus
        with self.one_line_errors():
            token = os.environ.get("MILVUS_TOKEN", "")
            uri, apart = self.address.uri, self.address.uri.startswith("https:")  # shared ones may be without TLS
            self.client = pymilvus.MilvusClient(uri=uri, token=token, timeout=timeout, dedicated=apart)

    def close(self) -> None:
        """Close the client."""
        self.client.close()

    def has(self, collection: str) -> bool:
        """Tell whether there is such a collection."""
        return bool(self.client.has_collection(collection, timeout=self.timeout))

    def patiently(self, call: Callable[..., T], *args: Any, **how: Any) -> T:
        """Call the client until a server that is starting again has loaded its collections, for `timeout` seconds."""
        ends, wait = time.monotonic() + self.timeout, 0.05
        while True:
            try:
                return call(*args, **how, timeout=self.timeout)
            except self.pymilvus.MilvusException as error:
                if not any(text in str(error) for text in RECOVERING) or time.monotonic() + wait > ends:
                    raise
            time.sleep(wait)
            wait = min(2 * wait, 2.0)

    def rows(self, collection: str, expression: str, fields: Sequence[str], limit: int | None = None) -> list[Row]:
        """Return at most `limit` rows in the order of their primary keys."""
        how: dict[str, Any] = {} if limit is None else {"limit": limit}
        how["consistency_level"] = self.consistency
        return list(self.patiently(self.client.query, collection, expression, list(fields), **how))

    def count(self, collection: str, expression: str = "") -> int:
        """Return how many rows there are."""
        return int(self.rows(collection, expression, ["count(*)"])[0]["count(*)"])

    def stream(self, collection: str, expression: str, fields: Sequence[str], page: int = PAGE) -> Iterator[list[Row]]:
        """Yield all rows in pages, in the order of their primary keys ``number``."""
        last = -1
        while True:
            only = f"number > {last}" + (f" and ({expression})" if expression else "")
            if not (rows := self.rows(collection, only, ["number", *fields], page)):
                return
            rows.sort(key=lambda row: int(row["number"]))
            yield rows
            last = rows[-1]["number"]
            if len(rows) < page:
                return

    def upsert(self, collection: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write rows, in the place of those with the same primary keys."""
        self.patiently(self.client.upsert, collection, [dict(row) for row in rows])

    def delete(self, collection: str, numbers: Sequence[int]) -> None:
        """Delete the rows of these primary keys."""
        self.patiently(self.client.delete, collection, filter=f"number in {[int(number) for number in numbers]}")

    def search(
        self,
        collection: str,
        queries: Sequence[Any],
        most: int,
        expression: str,
        params: Mapping[str, Any],
        fields: Sequence[str],
    ) -> list[list[Row]]:
        """Return the nearest rows, for each query."""
        found = self.patiently(
            self.client.search, collection, list(queries), expression, limit=most, output_fields=["number", *fields],
            search_params={"metric_type": "L2", "params": dict(params)}, consistency_level=self.consistency,
        )  # fmt: skip
        return [[dict(hit["entity"]) for hit in hits] for hits in found]

    @contextlib.contextmanager
    def strongly(self) -> Iterator[None]:
        """Let the questions inside see every acknowledged write: what is read to be written again has to be new."""
        before, self.consistency = self.consistency, "Strong"
        try:
            yield
        finally:
            self.consistency = before

    def make_ready(self, collection: str) -> None:
        """Load a collection, and give it the exact index if a build that was cut left it without any."""
        state = self.client.get_load_state(collection, timeout=self.timeout).get("state")
        if str(state).rpartition(".")[2].strip(">") in ("Loaded", "Loading"):
            return
        if not self.client.list_indexes(collection):
            self.make_index(collection, "FLAT", {})
        self.client.load_collection(collection, timeout=max(LOADING, self.timeout))

    def make_index(self, collection: str, kind: str, build: Mapping[str, int]) -> None:
        """Make the index of a collection's vectors, and wait for it."""
        self.client.create_index(collection, self.index_of(kind, build))

    def index_of(self, kind: str, build: Mapping[str, int]) -> Any:
        """Return the description of an index of vectors."""
        index = self.client.prepare_index_params()
        index.add_index("vector", index_type=kind, metric_type="L2", params=dict(build))
        return index

    @contextlib.contextmanager
    def one_line_errors(self) -> Iterator[None]:
        """Turn the client's errors into a DataError whose one line says what to do."""
        import grpc

        try:
            yield
        except (UnicodeEncodeError, OverflowError) as error:
            raise unholdable(self.address.shown, error) from error
        except (self.pymilvus.MilvusException, grpc.RpcError, TimeoutError) as error:
            raise self._told(error) from error

    def _told(self, error: BaseException) -> StorageError | Busy:
        place, text = self.address.shown, one_line(ValueError(said_of(error)))
        if "quota" in text or "rate limit" in text:
            return Busy(f"{place}: the server refuses more for now ({text}); try again later")
        if "no space" in text.lower() or "disk" in text.lower():
            return StorageError(f"{place}: writing failed ({text}); free some space, and add again with skip")
        if "auth" in text.lower() or "permission" in text.lower() or "privilege" in text.lower():
            return StorageError(f"{place}: the server refuses ({text}); set MILVUS_TOKEN, or ask the gallery's owner")
        return StorageError(f"{place}: the server can not be reached or failed ({text}); try again")


def said_of(error: BaseException) -> str:
    """Return what the server said; the client may wrap that into a guess of its own."""
    cause = error.__cause__
    if cause is not None and hasattr(cause, "details") and "Fail connecting" in str(error):
        error = cause
    said = error.details() if hasattr(error, "details") else getattr(error, "message", "")  # of gRPC, of Milvus
    return str(said or error)
