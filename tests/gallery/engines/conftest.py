"""The places where galleries can be: a folder, and databases that the suite starts."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.servers import PostgresServer

ENGINES = [
    "folder",
    pytest.param("postgres", marks=pytest.mark.engines),
    pytest.param("milvus", marks=pytest.mark.engines),
]
_numbers = itertools.count()


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    server = PostgresServer(tmp_path_factory.mktemp("server"))
    yield server
    server.stop()


@pytest.fixture(params=ENGINES)
def new_place(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """Return a function that names a place for a new gallery, of each engine."""
    if request.param == "folder":
        return lambda: str(tmp_path / f"g{next(_numbers)}")
    if request.param == "milvus":
        return lambda: f"milvus://127.0.0.1:29530/g{next(_numbers)}"
    server: Any = request.getfixturevalue(request.param)
    return lambda: f"{server.address}?gallery=g{next(_numbers)}"
