"""Settings in Milvus, which may lose sight of rows for a moment. No server."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from facenet.errors import Busy
from facenet.gallery.engines.milvus.settings import Settings


def settings(answers: list[dict[str, str]], *, timeout: float = 5.0) -> Settings:
    """Settings of a gallery with items, whose queries get these answers; the last one again and again."""

    def stream(*_: Any) -> list[list[dict[str, str]]]:
        rows = answers.pop(0) if len(answers) > 1 else answers[0]
        return [[{"key": key, "value": value} for key, value in rows.items()]]

    address = SimpleNamespace(name="faces", shown="milvus://db/faces")
    connection: Any = SimpleNamespace(stream=stream, address=address, timeout=timeout)
    items: Any = SimpleNamespace(is_there=lambda: True)
    return Settings(connection, items)


def test_what_was_read_once_stays_and_what_changed_is_new() -> None:
    found = settings([{"dim": "4", "state": "a-1"}, {"state": "b-2"}])
    found.read()
    found.read()
    assert (found.get("dim"), found.state()) == ("4", ("b", 2))


def test_a_client_that_comes_meanwhile_asks_again() -> None:
    found = settings([{"state": "a-1"}, {"state": "a-1"}, {"dim": "4", "state": "a-1"}])
    found.read()
    assert found.get("dim") == "4"


def test_it_does_not_wait_for_ever() -> None:
    with pytest.raises(Busy, match="milvus://db/faces: its settings can not be seen for now; ask again"):
        settings([{"state": "a-1"}], timeout=0.2).read()
