"""A gallery over HTTP: each method answers, and refuses, as the same call on a local gallery of the same content."""

from __future__ import annotations

import inspect
import select
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import facenet
from facenet.encoders.encoder import Encoder
from facenet.errors import Busy, ConfigError, DataError, FacenetError, Taken
from facenet.gallery.gallery import Gallery
from facenet.service.client import RemoteGallery
from facenet.service.keys import Keys, add_key
from facenet.service.options import LimitOptions, RateOptions
from facenet.service.service import Allowed
from facenet.types import EmbeddingSet
from tests.helpers.commands import play
from tests.helpers.encoders import make
from tests.helpers.galleries import clustered
from tests.helpers.services import listening_at

OLD = "0d" * 32
FREE = RateOptions(per_second=None)


class Both(NamedTuple):
    """A local gallery, and a remote one of the same content."""

    local: Gallery
    remote: RemoteGallery
    given: EmbeddingSet  # what is in it
    encoder: Encoder


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    encoder = make()
    encoder.thresholds.update({0.001: 0.5, 0.01: 0.7, 0.1: 0.9})
    encoder.compatible_with.append(OLD)
    encoder.with_older[OLD] = {0.01: 0.8, 0.1: 1.0}
    return encoder


def people(encoder: Encoder, count: int = 24, *, seed: int = 0, prefix: str = "p") -> EmbeddingSet:
    vectors, names = clustered(count, 3, seed=seed, dim=16)
    paths = [f"{prefix}{row}.jpg" for row in range(len(names))]
    return EmbeddingSet(vectors, paths, names, encoder.fingerprint, compatible_with=(OLD,))


def fill(folder: Path, given: EmbeddingSet) -> None:
    ids = [f"{name}/å {row}" for row, name in enumerate(given.identities)]
    with Gallery.open(folder, create=True) as gallery:
        gallery.add(given, ids=ids, metadata=[{"camera": row % 3} for row in range(len(ids))])


def opened(root: Path, encoder: Encoder, given: EmbeddingSet, **allowed: Any) -> Iterator[Both]:
    for name in ("here", "there"):
        fill(root / name, given)
    with (
        Gallery.open(root / "here") as local,
        listening_at(root / "there", Allowed(rate=FREE, **allowed), encoder) as url,
        facenet.connect(url) as remote,
    ):
        yield Both(local, remote, given, encoder)


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory, encoder: Encoder) -> Iterator[Both]:
    """Galleries that no test changes; requests take 7 vectors at most."""
    yield from opened(tmp_path_factory.mktemp("asked"), encoder, people(encoder), limits=LimitOptions(vectors=7))


@pytest.fixture
def changed(tmp_path: Path, encoder: Encoder) -> Iterator[Both]:
    old = replace(people(encoder, 4), fingerprint=OLD, compatible_with=())
    yield from opened(tmp_path, encoder, old, limits=LimitOptions(vectors=5))


def plain(found: Any) -> Any:
    """Return a result as values that can be compared."""
    if isinstance(found, np.ndarray):
        return str(found.dtype), found.tolist()
    if isinstance(found, tuple | list):
        return type(found), [plain(one) for one in found]
    return found


def outcome(call: Callable[[Any], Any], gallery: Any) -> Any:
    """Return what a call returns, or the kind of error and what it says, without the place."""
    try:
        return plain(call(gallery))
    except FacenetError as error:
        return type(error), str(error).replace(str(gallery.folder), "the gallery")


def queries(both: Both, **how: Any) -> EmbeddingSet:
    vectors = clustered(24, 3, noise=1, dim=16)[0][:10]
    return replace(both.given.subset(range(10)), **{"vectors": vectors, "compatible_with": (OLD,), **how})


CALLS: dict[str, Callable[[Both, Any], Any]] = {
    "search": lambda both, gallery: gallery.search(queries(both), 4),
    "more than there are": lambda both, gallery: gallery.search(queries(both), 90),
    "by identity": lambda both, gallery: gallery.search(queries(both), 3, by_identity=True, identity_by="mean"),
    "where": lambda both, gallery: gallery.search(queries(both), 3, where={"camera": [0, 2], "identity": "p1"}),
    "within": lambda both, gallery: gallery.within(queries(both), 0.6),
    "everything within": lambda both, gallery: gallery.within(queries(both).subset([0]), float("inf")),
    "hits": lambda both, gallery: gallery.hits(queries(both), 2),
    "hits of others": lambda both, gallery: gallery.hits(queries(both), 2, by_identity=True, without="p0/å 0"),
    "hits within": lambda both, gallery: gallery.hits_within(queries(both), 0.8, where={"camera": 1}),
    "means within": lambda both, gallery: gallery.hits_within(queries(both), 0.8, means=True),
    "threshold": lambda both, gallery: gallery.threshold(both.encoder),
    "threshold without encoder": lambda both, gallery: gallery.threshold(fpir=0.1, identity_by="mean"),
    "threshold by far": lambda both, gallery: gallery.threshold(both.encoder, far=0.01, where={"camera": 1}),
    "other rates": lambda both, gallery: gallery.threshold(both.encoder).plain_others(),
    "items": lambda both, gallery: gallery.items([5, 3, 3]),
    "no items": lambda both, gallery: gallery.items([]),
    "many items": lambda both, gallery: gallery.items(np.arange(1, 73).repeat(9)),
    "page": lambda both, gallery: gallery.page(4, 30),
    "page of a person": lambda both, gallery: gallery.page(identity="p3"),
    "page of nobody": lambda both, gallery: gallery.page(identity=""),
    "people": lambda both, gallery: gallery.people(limit=5, prefix="p1"),
    "find": lambda both, gallery: gallery.find(["p3", "p1/å 3", "gone"]),
    "find by id": lambda both, gallery: gallery.find(["p3", "p1/å 3"], by="id"),
    "find nothing": lambda both, gallery: gallery.find([]),
    "vectors": lambda both, gallery: gallery.vectors([9, 2, 2]),
    "vector": lambda both, gallery: gallery.vector("p1/å 3"),
    "check": lambda both, gallery: gallery.check(),
    "identities": lambda both, gallery: gallery.identities(),
    "length": lambda both, gallery: len(gallery),
    "width": lambda both, gallery: gallery.dim,
    "fingerprint": lambda both, gallery: gallery.fingerprint,
    "fingerprints": lambda both, gallery: gallery.info()["fingerprints"],
}
REFUSED: dict[str, Callable[[Both, Any], Any]] = {
    "k": lambda both, gallery: gallery.search(queries(both), 0),
    "unknown identity_by": lambda both, gallery: gallery.search(queries(both), 1, identity_by="mean"),
    "width": lambda both, gallery: gallery.hits(EmbeddingSet.unnamed(np.eye(2, dtype="f"), both.given.fingerprint), 1),
    "not finite": lambda both, gallery: gallery.hits(queries(both, vectors=np.full((10, 16), np.nan, "f")), 1),
    "another encoder": lambda both, gallery: gallery.hits(queries(both, fingerprint="ef" * 32, compatible_with=()), 1),
    "no encoder": lambda both, gallery: gallery.hits(queries(both, fingerprint=""), 1),
    "radius": lambda both, gallery: gallery.within(queries(both), -1),
    "two rates": lambda both, gallery: gallery.threshold(both.encoder, far=0.01, fpir=0.1),
    "a rate not calibrated": lambda both, gallery: gallery.threshold(both.encoder, far=0.5),
    "limit": lambda both, gallery: gallery.page(0, 0),
    "a number": lambda both, gallery: gallery.items([1, -1]),
    "an id": lambda both, gallery: gallery.vector("gone"),
    "an empty id": lambda both, gallery: gallery.vector(""),
    "batch": lambda both, gallery: gallery.backfill(both.given, batch=0),
    "removing nobody": lambda both, gallery: gallery.remove("gone"),
    "renaming nobody": lambda both, gallery: gallery.rename(["p1", "gone"], "Ann"),
    "an id that is there": lambda both, gallery: gallery.add(both.given.subset([0]), ids=["p0/å 0"]),
    "an id twice": lambda both, gallery: gallery.add(both.given, ids=["x"] * 72),
    "ids": lambda both, gallery: gallery.add(both.given, ids=["x"]),
    "metadata": lambda both, gallery: gallery.add(both.given.subset([0]), ids=["x"], metadata=[{"a": {1}}]),
    "a path outside": lambda both, gallery: gallery.add(replace(both.given.subset([0]), paths=["../x"]), ids=["x"]),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_answers_as_a_local_one(asked: Both, name: str) -> None:
    expected = outcome(lambda gallery: CALLS[name](asked, gallery), asked.local)
    assert outcome(lambda gallery: CALLS[name](asked, gallery), asked.remote) == expected
    assert not (isinstance(expected, tuple) and isinstance(expected[0], type) and issubclass(expected[0], Exception))


@pytest.mark.parametrize("name", REFUSED)
def test_a_call_is_refused_as_a_local_one(asked: Both, name: str) -> None:
    expected = outcome(lambda gallery: REFUSED[name](asked, gallery), asked.local)
    assert issubclass(expected[0], FacenetError)
    assert outcome(lambda gallery: REFUSED[name](asked, gallery), asked.remote) == expected
    assert len(asked.remote) == len(asked.local) == 72


def test_every_method_has_the_signature_of_the_local_one() -> None:
    names = [name for name in vars(Gallery) if not name.startswith("_") and name != "open"]
    for name in names:
        ours, theirs = getattr(RemoteGallery, name), getattr(Gallery, name)
        assert isinstance(ours, property) == isinstance(theirs, property), name
        if callable(theirs):
            assert inspect.signature(ours) == inspect.signature(theirs), name


def test_blocks_hold_every_item_and_vector(asked: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("facenet.service.client.PAGE", 30)
    blocks = list(asked.remote.blocks())
    ((items, vectors),) = asked.local.blocks()
    assert [len(part) for part, _ in blocks] == [30, 30, 12]
    assert [item for part, _ in blocks for item in part] == items
    np.testing.assert_array_equal(np.concatenate([part for _, part in blocks]), vectors)
    assert asked.remote.identities() == asked.local.identities()


def test_the_index_is_the_services(asked: Both) -> None:
    calls = [lambda: asked.remote.recipe, asked.remote.configure, asked.remote.compact]
    for call in (*calls, lambda: asked.remote.save_cache(force=True)):
        with pytest.raises(ConfigError, match="run there: facenet index gallery=FOLDER"):
            call()
    assert asked.remote.save_cache() is False
    with pytest.raises(ConfigError, match="rescore"):
        asked.remote.search(queries(asked), 1, rescore=False)
    with pytest.raises(ConfigError, match="k: at most 100"):
        asked.remote.search(queries(asked), 101)


# Changes: the same calls on both, then the same content


def content(gallery: Any) -> list[Any]:
    return sorted(
        (*item._replace(number=0), vector.tolist())
        for items, vectors in gallery.blocks()
        for item, vector in zip(items, vectors, strict=True)
    )


def both_do(both: Both, call: Callable[[Any], Any]) -> Any:
    expected = outcome(call, both.local)
    assert outcome(call, both.remote) == expected
    assert content(both.remote) == content(both.local)
    return expected


def test_items_come_and_go_as_in_a_local_gallery(changed: Both) -> None:
    old = replace(people(changed.encoder, 3, seed=1, prefix="new"), fingerprint=OLD, compatible_with=())
    ids = [f"{row}" for row in range(9)]
    more = [{"a": [row, None, "å"]} for row in range(9)]
    assert both_do(changed, lambda gallery: gallery.add(old.subset(range(4))))[1] == [4, 0, 0]
    assert both_do(changed, lambda gallery: gallery.add(old, on_duplicate="skip", metadata=more))[1] == [5, 0, 4]
    assert both_do(changed, lambda gallery: gallery.add(old, on_duplicate="replace", metadata=more))[1] == [0, 9, 0]
    assert both_do(changed, lambda gallery: gallery.add(old, ids=ids, once="a batch", metadata=more))[1] == [9, 0, 0]
    assert both_do(changed, lambda gallery: gallery.add(old, ids=ids, once="a batch", metadata=more))[1] == [9, 0, 0]
    twice = ["x", "y", *"zxabcdx"]
    for how in ("replace", "skip"):
        assert both_do(changed, lambda gallery, how=how: gallery.add(old, ids=twice, on_duplicate=how))
    assert both_do(changed, lambda gallery: gallery.remove(["x", "p0/å 0"])) == 2
    assert both_do(changed, lambda gallery: gallery.remove("p1", by="identity")) == 11
    assert both_do(changed, lambda gallery: gallery.rename(["p0/å 1", "p2"], "Ann")) > 4
    assert both_do(changed, lambda gallery: gallery.rename("Ann", "", by="identity")) > 4
    assert both_do(changed, lambda gallery: gallery.remove([])) == 0


def test_of_many_items_none_is_added_if_one_is_there(changed: Both) -> None:
    given = replace(people(changed.encoder, 3, seed=1, prefix="new"), fingerprint=OLD, compatible_with=())
    ids = [*map(str, range(8)), "p0/å 0"]
    for gallery in (changed.local, changed.remote):
        with pytest.raises(Taken, match="'p0/å 0' is in the gallery already; nothing was added"):
            gallery.add(given, ids=ids)
        assert len(gallery) == 12


def test_a_backfill_replaces_in_batches(changed: Both) -> None:
    new = replace(changed.given, fingerprint=changed.encoder.fingerprint, compatible_with=(OLD,))
    some = new.subset(range(7))
    seen: dict[str, list[tuple[int, int]]] = {"local": [], "remote": []}

    def fill_with(given: EmbeddingSet, **how: Any) -> Callable[[Any], Any]:
        def call(gallery: Any) -> Any:
            side = "local" if gallery is changed.local else "remote"
            return gallery.backfill(given, batch=4, progress=lambda *told: seen[side].append(told), **how)

        return call

    foreign = replace(new, paths=[f"elsewhere{row}" for row in range(12)])
    assert both_do(changed, fill_with(foreign))[0] is DataError
    numbers = [item.number for item in changed.local.page(limit=3)]
    assert both_do(changed, fill_with(some, numbers=numbers))[1] == [3, 9, 3, 0]
    assert both_do(changed, fill_with(some))[1] == [4, 5, 7, 0]
    assert both_do(changed, fill_with(new))[1] == [5, 0, 12, 0]
    assert both_do(changed, fill_with(new))[1] == [0, 0, 12, 0]
    assert both_do(changed, fill_with(replace(new, fingerprint="ef" * 32, compatible_with=())))[0] is not None
    assert seen["remote"] == seen["local"]
    assert {item.fingerprint for item in changed.remote.page()} == {new.fingerprint}


# The wire


def test_keys_open_a_service(tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "g", people(encoder))
    read, write = (add_key(tmp_path / "keys.json", role, role) for role in ("read", "write"))
    monkeypatch.delenv("FACENET_KEY", raising=False)
    with listening_at(tmp_path / "g", Allowed(keys=Keys(tmp_path / "keys.json")), encoder) as url:
        with pytest.raises(DataError, match="pass key=, or set FACENET_KEY"):
            facenet.connect(url)
        with pytest.raises(DataError, match="not known"):
            facenet.connect(url, key="fn_wrong")
        with facenet.connect(url, key=write) as gallery:
            assert gallery.vector("p0/å 0")[1].shape == (16,)
        monkeypatch.setenv("FACENET_KEY", read)
        with facenet.connect(url) as gallery:
            assert len(gallery.find(["p0"])) == 3
            for refused in (
                lambda: gallery.remove("p0"),
                lambda: gallery.vector("p0/å 0"),
                lambda: next(gallery.blocks()),
            ):
                with pytest.raises(DataError, match="role=write"):
                    refused()


def test_a_busy_service_is_waited_for(tmp_path: Path, encoder: Encoder) -> None:
    rate = RateOptions(per_second=2.0, burst=2)
    with listening_at(tmp_path / "g", Allowed(rate=rate), encoder) as url:
        with facenet.connect(url) as gallery:
            assert [len(gallery) for _ in range(2)] == [0, 0]  # the second waits
        with facenet.connect(url) as gallery:
            gallery.wire.timeout = 0.1
            with pytest.raises(Busy, match="too many requests"):
                [len(gallery) for _ in range(9)]


def test_threads_share_a_gallery(asked: Both) -> None:
    expected = asked.local.hits(queries(asked), 2)
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(asked.remote.hits(queries(asked), 2))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 4


INFO = b'{"gallery": {"count": 3}, "limits": {"vectors": 10, "bytes": 1000}}'
FINE = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(INFO) + INFO


def scripted(*answers: bytes) -> tuple[str, list[bytes]]:
    """Answer one request a connection with each of these bytes, then close it; returns address and first lines."""
    listener, seen = socket.create_server(("127.0.0.1", 0)), []

    def serve() -> None:
        with listener:
            for answer in answers:
                connection, _ = listener.accept()
                with connection:
                    data = connection.recv(100_000)
                    seen.append(data.partition(b"\r\n")[0])
                    connection.sendall(answer)

    threading.Thread(target=serve, daemon=True).start()
    return f"http://127.0.0.1:{listener.getsockname()[1]}/faces/", seen


def test_a_dropped_request_is_repeated_once_if_that_is_safe() -> None:
    url, seen = scripted(b"", FINE, FINE)
    with facenet.connect(url) as gallery:
        assert len(gallery) == 3
    assert seen == [b"GET /faces/v1/info HTTP/1.1"] * 3
    url, seen = scripted(b"", b"")
    with pytest.raises(DataError, match="connection was lost"):
        facenet.connect(url)
    url, seen = scripted(FINE, b"")
    with facenet.connect(url) as gallery, pytest.raises(DataError, match="look whether the request was done"):
        gallery.remove("Ann")
    assert seen[1:] == [b"POST /faces/v1/remove HTTP/1.1"]


def test_a_request_is_not_sent_on_a_connection_that_was_closed() -> None:
    """A removal is sent once; it must not be lost with a connection that the service has closed meanwhile."""
    url, seen = scripted(
        FINE.replace(b"Connection: close\r\n", b""),
        b"HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n" + b'{"removed": 2}',
    )
    with facenet.connect(url) as gallery:
        connection, _ = gallery.wire._idle[0]
        assert select.select([connection.sock], [], [], 10)[0], "the end of it has come"
        assert gallery.remove("Ann") == 2
    assert len(seen) == 2


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "no JSON"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "no gallery"),
        (b"HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n", "status 302"),
        (b"nonsense\r\n\r\n", "connection was lost"),
    ],
)
def test_what_is_no_service_is_named(answer: bytes, message: str) -> None:
    url, _ = scripted(answer, answer)
    with pytest.raises(DataError, match=message) as raised:
        facenet.connect(url)
    assert "\n" not in str(raised.value)


def test_an_absent_or_silent_service_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(Busy, match=r"no answer within 0\.2 seconds"):
            facenet.connect(url, timeout=0.2)
    with pytest.raises(DataError, match="no service answers"):
        facenet.connect(url)


@pytest.mark.parametrize(
    "url", ["gallery", "ftp://host", "http://", "http://host:port", "http://me@host", "http://h?x"]
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="expected an address"):
        facenet.connect(url)


def test_a_gallery_that_is_opened_at_an_address_names_connect() -> None:
    with pytest.raises(ConfigError, match=r"use facenet\.connect"):
        Gallery.open("http://127.0.0.1:8000", create=True)


def test_a_key_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="copy it again"):
        facenet.connect("http://127.0.0.1:1", key="a\r\nb")
    with pytest.raises(ConfigError, match="timeout"):
        facenet.connect("http://127.0.0.1:1", timeout=0)


# The commands


def test_commands_take_the_address_of_a_service(asked: Both, tmp_path: Path) -> None:
    queries(asked).save(tmp_path / "queries")
    folder, address = (f"gallery={gallery.folder}" for gallery in (asked.local, asked.remote))
    told = []
    for number, place in enumerate((folder, address)):
        found = play("search", place, f"query={tmp_path}/queries", "k=3", "fpir=0.1", out=tmp_path / f"search{number}")
        assert found.code == 0, found.errors
        told.append((found.metrics, (tmp_path / f"search{number}" / "neighbours.csv").read_text()))
    for metrics, _ in told:
        for neighbour in metrics["results"]:
            assert len(neighbour.pop("neighbours")) == 3
    assert told[0] == told[1]
    for given in ("info=true", "check=true"):
        played = play("index", address, given, out=tmp_path / given)
        assert (played.code, played.metrics["count"]) == (0, 72)
    assert "compact=true" in play("index", address, "compact=true", out=tmp_path / "compact").errors
