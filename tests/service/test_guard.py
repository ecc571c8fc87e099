"""Who may ask, how often, how much and for how long; and what is noted of it."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from facenet.errors import DataError, Taken
from facenet.service.buckets import TokenBuckets
from facenet.service.guard import is_loopback
from facenet.service.keys import Keys, add_key
from facenet.service.options import LimitOptions, RateOptions
from facenet.service.service import Allowed, Service
from tests.helpers.galleries import tables_of
from tests.helpers.services import enrol, png, service_at

FREE = RateOptions(per_second=None)


class Kept(logging.Handler):
    """Keeps the lines of a log."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@pytest.fixture
def logged() -> Iterator[list[str]]:
    kept, logger = Kept(), logging.getLogger("facenet.service")
    logger.addHandler(kept)
    logger.setLevel(logging.INFO)
    yield kept.lines
    logger.removeHandler(kept)


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TestClient, dict[str, str], Path]]:
    """A service with a key of each role, and the keys."""
    folder = tmp_path_factory.mktemp("keyed")
    keys = {role: add_key(folder / "keys.json", f"the {role} key", role) for role in ("read", "write")}
    with service_at(folder / "g", Allowed(rate=FREE, keys=Keys(folder / "keys.json"))) as (client, _):
        yield client, keys, folder / "keys.json"


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TestClient, Service]]:
    """A service of small limits."""
    limits = LimitOptions(bytes=2000, waiting=2, vectors=2)
    with service_at(tmp_path_factory.mktemp("narrow") / "g", Allowed(limits, FREE)) as found:
        yield found


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_without_a_key_only_the_page_and_the_state_are_told(keyed: tuple[TestClient, dict[str, str], Path]) -> None:
    client, keys, _ = keyed
    assert [client.get(path).status_code for path in ("/", "/v1/health", "/v1/ready", "/openapi.json")] == [200] * 4
    for path in ("/v1/info", "/metrics", "/v1/items", "/v1/faces/x", "/nothing"):
        answer = client.get(path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "no_key")
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    right = keys["read"]
    wrong = ("", "x", right[:-1], right + "x", right.upper(), right.replace(right[10], "é"), "\x00", right * 100)
    for key in wrong:
        header = {"Authorization": f"Bearer {key}".encode()}
        assert client.get("/v1/info", headers=header).status_code == 401, key
    assert client.get("/v1/info", headers={"Authorization": f"Basic {right}"}).status_code == 401
    assert client.get("/v1/info", params={"key": right}).status_code == 401
    assert client.get("/v1/info", headers=bearer(right)).json()["role"] == "read"


def test_a_key_that_reads_changes_nothing_and_gets_no_vectors(keyed: tuple[TestClient, dict[str, str], Path]) -> None:
    client, keys, _ = keyed
    read, write = bearer(keys["read"]), bearer(keys["write"])
    assert client.post("/v1/search", files={"image": png(1)}, headers=read).status_code == 200
    assert enrol(client, 1, id="a", headers=write).status_code == 201
    changes = [
        enrol(client, 2, headers=read),
        client.put("/v1/items/a", files={"image": png(2)}, headers=read),
        client.delete("/v1/items/a", headers=read),
        client.delete("/v1/items", params={"identity": "x"}, headers=read),
        client.post("/v1/rename", json={"identity": "x", "to": "y"}, headers=read),
        client.post("/v1/remove", json={"names": ["a"]}, headers=read),
        client.post("/v1/vectors/items", json={}, headers=read),
        client.post("/v1/vectors/backfill", json={}, headers=read),
        client.get("/v1/items/a", params={"vector": True}, headers=read),
        client.get("/v1/items", params={"vector": True}, headers=read),
    ]
    assert [(one.status_code, one.json()["error"]["code"]) for one in changes] == [(403, "forbidden")] * len(changes)
    assert "vector" in client.get("/v1/items/a", params={"vector": True}, headers=write).json()


def test_keys_are_stored_hashed_and_revoked_without_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    key, other = add_key(file, "door", "read"), add_key(file, "desk", "write")
    assert key not in file.read_text()
    assert file.stat().st_mode & 0o077 == 0
    with pytest.raises(Taken, match="a key 'door' is there"):
        add_key(file, "door", "write")
    keys = Keys(file)
    assert [keys.find(one) for one in (key, other, "x")] == [("door", "read"), ("desk", "write"), None]
    rows = json.loads(file.read_text())["keys"]
    file.write_text(json.dumps({"keys": rows[1:]}))
    assert [keys.find(one) for one in (key, other)] == [None, ("desk", "write")]
    file.write_text("damaged")
    assert keys.find(other) is None
    with pytest.raises(DataError, match="no file of keys"):
        Keys(file)


def test_a_bucket_holds_a_burst_and_fills_again() -> None:
    now = [0.0]
    buckets = TokenBuckets(RateOptions(per_second=2, burst=3), lambda: now[0])
    assert [buckets.take("a") for _ in range(4)] == [0, 0, 0, 0.5]
    assert buckets.take("b") == 0
    now[0] = 0.5
    assert [buckets.take("a") for _ in range(2)] == [0, 0.5]
    now[0] = 100
    assert [buckets.take("a") for _ in range(4)] == [0, 0, 0, 0.5]


def test_who_asks_too_often_is_told_when_to_come_again(tmp_path: Path) -> None:
    with service_at(tmp_path / "g", Allowed(rate=RateOptions(per_second=0.1, burst=2))) as (client, _):
        answers = [client.get("/v1/info") for _ in range(3)]
        assert [one.status_code for one in answers] == [200, 200, 429]
        assert answers[2].json()["error"]["code"] == "rate_limited"
        assert int(answers[2].headers["Retry-After"]) in (9, 10)
        assert client.get("/v1/health").status_code == 200


def test_pages_of_other_origins_and_names_are_refused(narrow: tuple[TestClient, Service]) -> None:
    client, _ = narrow
    for origin in (
        "http://[::1",
        "http://evil.example",
        "null",
        "http://localhost.evil.example",
        "http://localhost:99",
        "https://",
    ):
        assert enrol(client, 1, headers={"Origin": origin}).status_code == 403, origin
    assert enrol(client, 1, headers={"Origin": "http://localhost"}).status_code == 201
    for host in ("evil.example", "localhost.evil.example", "", "[::1", "127.0.0.1.evil.example:8000"):
        assert client.get("/v1/info", headers={"Host": host}).status_code == 403, host
    assert [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "10.0.0.1", "")] == [
        True
    ] * 3 + [False] * 3


def test_too_many_bytes_are_refused_before_or_while_they_come(narrow: tuple[TestClient, Service]) -> None:
    client, _ = narrow
    stated = client.post("/v1/detect", files={"image": bytes(3000)})
    assert (stated.status_code, stated.json()["error"]["code"]) == (413, "too_large")
    assert stated.headers["Connection"] == "close"

    def parts() -> Iterator[bytes]:
        for _ in range(30):
            yield bytes(100)

    form = {"Content-Type": "multipart/form-data; boundary=x"}
    assert client.post("/v1/detect", content=parts(), headers=form).status_code == 413
    client.app.bytes_in_work = 400_000_000 - 10  # type: ignore[attr-defined]
    full = client.post("/v1/rename", json={"identity": "a", "to": "b"})
    client.app.bytes_in_work = 0  # type: ignore[attr-defined]
    assert (full.status_code, full.json()["error"]["code"]) == (503, "busy")
    many = {"vectors": [[1.0]] * 3, "fingerprint": "f"}
    assert "at most 2" in client.post("/v1/vectors/search", json=many).json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "body", "kind", "status"),
    [
        ("/v1/detect", b"{}", "application/json", 422),
        ("/v1/detect", b"--x\r\nbroken", "multipart/form-data; boundary=x", 422),
        ("/v1/detect", b"", "multipart/form-data", 400),
        ("/v1/rename", b"{", "application/json", 422),
        ("/v1/rename", b"[" * 900, "application/json", 422),
        ("/v1/rename", b'{"to": "\\ud800", "identity": "a"}', "application/json", 422),
        ("/v1/rename", b'{"to": "a", "identity": "b", "x": 1}', "application/json", 422),
        ("/v1/rename", b"\xff\xfe", "application/json", 422),
        (
            "/v1/vectors/search",
            b'{"fingerprint": "f", "vectors": [["a"' + b',"a"' * 300 + b"]]}",
            "application/json",
            422,
        ),
        ("/v1/nothing", b"", "text/plain", 404),
        ("/v1/info", b"", "text/plain", 405),
    ],
)
def test_bodies_that_can_not_be_read_have_the_one_form(
    narrow: tuple[TestClient, Service], path: str, body: bytes, kind: str, status: int
) -> None:
    answer = narrow[0].post(path, content=body, headers={"Content-Type": kind})
    assert answer.status_code == status, answer.text
    assert set(answer.json()["error"]) == {"code", "message", "request_id", "details"}
    assert len(answer.json()["error"]["details"]) <= 20


def test_a_full_pool_and_a_late_answer_are_503(tmp_path: Path) -> None:
    block = threading.Event()

    def wait(*_: object) -> None:
        block.wait(10)

    with service_at(tmp_path / "g", Allowed(LimitOptions(seconds=0.3, waiting=2), FREE)) as (client, service):
        service.inference._see = wait  # type: ignore[method-assign, assignment]
        answer = client.post("/v1/detect", files={"image": png(1)})
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "too_late")
        assert answer.headers["Retry-After"] == "1"
        assert service.inference.places.taken == 0
        service.inference.places.taken = 2
        busy = client.post("/v1/detect", files={"image": png(1)})
        assert (busy.status_code, busy.json()["error"]["code"]) == (503, "busy")
        block.set()


def test_an_error_nobody_expected_is_500_without_its_text(
    narrow: tuple[TestClient, Service], logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, service = narrow
    monkeypatch.setattr(service, "info", lambda *_: 1 / 0)
    client = TestClient(client.app, base_url="http://localhost", raise_server_exceptions=False)
    answer = client.get("/v1/info")
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "failed")
    assert "ZeroDivisionError" not in answer.text
    failure = json.loads(logged[0])
    assert failure["error"] == "ZeroDivisionError"
    assert "test_guard.py" in failure["at"]
    assert "division by zero" not in "".join(logged)


def test_logs_and_figures_name_nobody(keyed: tuple[TestClient, dict[str, str], Path], logged: list[str]) -> None:
    client, keys, _ = keyed
    write = bearer(keys["write"])
    enrol(client, 4, id="secret-id", identity="Secret Name", metadata='{"secret": 1}', headers=write)
    client.get("/v1/items/secret-id", headers=write)
    client.get("/v1/items", params={"identity": "Secret Name"}, headers=write)
    client.get("/v1/secret-path", headers=write)
    client.delete("/v1/items/secret-id", headers=write)
    text = "".join(logged) + client.get("/metrics", headers=write).text
    assert "secret" not in text.lower()
    assert keys["write"] not in text
    lines = [json.loads(line) for line in logged]
    assert [line["route"] for line in lines[:4]] == ["/v1/items", "/v1/items/{id:path}", "/v1/items", "-"]
    assert {line["key"] for line in lines} == {"the write key"}


def test_every_answer_has_the_security_headers(narrow: tuple[TestClient, Service]) -> None:
    client, _ = narrow
    for path in ("/", "/v1/info", "/v1/nothing"):
        headers = client.get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "server" not in headers
    policy = client.get("/").headers["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert "script-src 'sha256-" in policy


def test_a_slow_answer_to_a_request_without_a_body_is_the_services_fault(tmp_path: Path) -> None:
    block = threading.Event()
    with service_at(tmp_path / "g", Allowed(LimitOptions(seconds=0.3), FREE)) as (client, service):
        held = service.gallery._thread.submit(block.wait, 10)
        try:
            answer = client.get("/v1/info")
        finally:
            block.set()
            held.result()
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "too_late")
    assert answer.headers["Retry-After"] == "1"


def test_another_process_that_writes_is_waited_for_a_little(
    narrow: tuple[TestClient, Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, service = narrow
    with tables_of(service.gallery.folder) as other:
        other.execute("BEGIN IMMEDIATE")
        assert client.post("/v1/search", files={"image": png(1)}).status_code == 200
        answer = enrol(client, 77)
        other.execute("ROLLBACK")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "busy")
    assert enrol(client, 77).status_code == 201
