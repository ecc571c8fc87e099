"""The places where galleries can be: a folder, and databases that the suite starts."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.servers import MilvusServer, PostgresServer

DATABASES = [pytest.param(name, marks=pytest.mark.engines) for name in ("postgres", "milvus")]
_numbers = itertools.count()


@pytest.fixture(scope="session")
def servers() -> Iterator[Path]:
    """A folder for servers; pytest's own are closed to other users by the next run of pytest."""
    with tempfile.TemporaryDirectory(prefix="facenet-servers-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def postgres(servers: Path) -> Iterator[PostgresServer]:
    server = PostgresServer(servers)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def milvus(servers: Path) -> Iterator[MilvusServer]:
    server = MilvusServer(servers)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MILVUS_TOKEN", server.TOKEN)
        yield server
    server.stop()


@pytest.fixture(params=DATABASES)
def server(request: pytest.FixtureRequest) -> Any:
    """A running server of each database."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def new_name() -> Callable[[], str]:
    """Return a function that makes up names of galleries."""
    return lambda: f"g{next(_numbers)}"


@pytest.fixture(params=["folder", *DATABASES])
def new_place(request: pytest.FixtureRequest, tmp_path: Path, new_name: Callable[[], str]) -> Callable[[], str]:
    """Return a function that names a place for a new gallery, of each engine."""
    if request.param == "folder":
        return lambda: str(tmp_path / new_name())
    running: Any = request.getfixturevalue(request.param)
    return lambda: running.address(new_name())
