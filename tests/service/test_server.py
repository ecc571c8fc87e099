"""The server: connections that dawdle, too many of them, and an end that answers what was taken."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from facenet.errors import ConfigError
from facenet.service import server
from facenet.service.keys import Keys, add_key
from facenet.service.options import LimitOptions, RateOptions
from facenet.service.service import Allowed
from tests.helpers import ROOT
from tests.helpers.commands import environment, play
from tests.helpers.services import listening_at, png

FREE = RateOptions(per_second=None)


@pytest.fixture
def connect() -> Iterator[Callable[..., socket.socket]]:
    """Opens connections, and closes them at the end."""
    with contextlib.ExitStack() as opened:

        def open_one(address: str, sent: bytes = b"") -> socket.socket:
            place = urlsplit(address)
            found = opened.enter_context(socket.create_connection((place.hostname, place.port), timeout=5))
            found.sendall(sent)
            return found

        yield open_one


def closed(connection: socket.socket) -> bool:
    """Whether the other side closes a connection, within five seconds, without an answer."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def health(address: str) -> int:
    with urllib.request.urlopen(f"{address}/v1/health", timeout=5) as answer:
        return int(answer.status)


@pytest.mark.parametrize("with_key", [False, True])
def test_a_body_that_is_no_http_is_no_error_of_the_service(
    with_key: bool, tmp_path: Path, connect: Callable[..., socket.socket], caplog: pytest.LogCaptureFixture
) -> None:
    """The server closes such a connection before the application has answered."""
    key = add_key(tmp_path / "keys.json", "door", "write")
    line = f"Authorization: Bearer {key}\r\n" if with_key else ""
    head = f"POST /v1/rename HTTP/1.1\r\nHost: localhost\r\n{line}Transfer-Encoding: chunked\r\n\r\nno length\r\n"
    with listening_at(tmp_path / "g", Allowed(rate=FREE, keys=Keys(tmp_path / "keys.json"))) as address:
        assert connect(address, head.encode()).recv(100).startswith(b"HTTP/1.1 400 ")
        assert health(address) == 200
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


def test_half_open_connections_hold_nobody_up(
    tmp_path: Path, connect: Callable[..., socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "HEADER_SECONDS", 0.2)
    allowed = Allowed(LimitOptions(connections=5, seconds=0.5), FREE)
    with listening_at(tmp_path / "g", allowed) as address:
        silent, slow = connect(address), connect(address, b"GET /v1/health HTTP/1.1\r\nHost: loc")
        assert health(address) == 200
        assert closed(silent)
        assert closed(slow)
        many = [connect(address) for _ in range(20)]  # the oldest give way
        assert health(address) == 200
        assert all(closed(one) for one in many)
        head = b"POST /v1/detect HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n"
        body = connect(address, head + b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x")
        assert b"408" in body.recv(100)  # the time of the whole request
        long = connect(address, b"GET / HTTP/1.1\r\nX: " + b"a" * 20_000)
        told = long.recv(1000)
        assert b"400" in told
        assert b'{"error": {"code": "bad_request"' in told
        both = head.replace(b"1000", b"5") + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        assert b" 400 " in connect(address, both).recv(100)


def test_hosts_that_can_not_be_served(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there are no keys"):
        server.open_socket("0.0.0.0", 0, keys=False)
    with pytest.raises(ConfigError, match="can not be bound"):
        server.open_socket("192.0.2.1", 0, keys=True)
    server.open_socket("0.0.0.0", 0, keys=True).close()


def test_mistakes_at_the_command_line_are_one_line(tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert "gallery=FOLDER encoder=ENCODER" in play("serve", out=out).errors
    assert "pass keys=FILE" in play("serve", "new_key=a", out=out).errors
    assert "no file of keys" in play("serve", "gallery=g", "encoder=e", f"keys={tmp_path / 'none'}", out=out).errors
    missing = play("serve", f"gallery={tmp_path / 'g'}", "encoder=nothing", "port=0", out=out)
    assert (missing.code, missing.errors.count("\n")) == (3, 1)
    assert not (tmp_path / "g").exists()


def test_a_key_is_made_and_shown_once(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    made = play("serve", f"keys={file}", "new_key=door", "role=write", out=tmp_path / "run")
    assert made.code == 0
    key = next(word for word in made.text.split() if word.startswith("fn_"))
    assert key not in file.read_text() + json.dumps(made.metrics)
    assert made.metrics == {"name": "door", "role": "write"}


def test_sigterm_ends_the_service_after_what_it_has_taken(
    tmp_path: Path, connect: Callable[..., socket.socket]
) -> None:
    """A request whose body is still on its way when the signal comes is answered; then the exit code is 0."""
    command = [
        sys.executable,
        str(ROOT / "scripts" / "serve.py"),
        f"gallery={tmp_path / 'g'}",
        "encoder=sface",
        "port=0",
    ]
    process = subprocess.Popen(
        [*command, f"hydra.run.dir={tmp_path / 'run'}"], env=environment(), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout
        address = next(line for line in process.stdout if "serving at" in line).split()[-1]
        body = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n' + png(1) + b"\r\n--x--\r\n"
        head = (
            "POST /v1/detect HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        taken = connect(address, head.encode() + body[:30])
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        threading.Timer(0.3, taken.sendall, (body[30:],)).start()
        assert b" 200 " in taken.recv(100)
        _, errors = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["requests"] == 1
    assert "Traceback" not in errors
    assert (tmp_path / "g" / "items.sqlite").is_file()
