"""Passwords and certificates come from where libpq and Milvus look for them, and are told nowhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from facenet.errors import DataError
from facenet.gallery.gallery import Gallery
from tests.helpers.commands import play
from tests.helpers.cutting import TLSProxy, certificate
from tests.helpers.galleries import faces
from tests.helpers.servers import MilvusServer, PostgresServer

pytestmark = pytest.mark.engines
PASSWORD = "correct horse"


@pytest.fixture
def guarded(postgres: PostgresServer, new_name: Callable[[], str]) -> str:
    """The address of a gallery to be, whose owner must give the password."""
    import psycopg

    name = new_name()
    place = postgres.address(name)
    owner = f"owner_{name}"
    with psycopg.connect(place.partition("?")[0], autocommit=True) as admin:
        admin.execute("CREATE EXTENSION IF NOT EXISTS vector SCHEMA public")
        if not admin.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (postgres.GUARDED,)).fetchone():
            admin.execute(f"CREATE ROLE {postgres.GUARDED}")
        admin.execute(f"CREATE ROLE {owner} LOGIN PASSWORD '{PASSWORD}' IN ROLE {postgres.GUARDED}")
        admin.execute(f"GRANT CREATE ON DATABASE postgres TO {owner}")
    return place.replace("postgres@", f"{owner}@")


def passwords(folder: Path, place: str, way: str, password: str) -> dict[str, str]:
    """Return the environment by which libpq finds a password, in one of three ways."""
    if way == "PGPASSWORD":
        return {"PGPASSWORD": password}
    file = folder / way
    owner = place.partition("//")[2].partition("@")[0]
    service = f"[door]\nuser={owner}\npassword={password}\n"
    file.write_text(service if way == "PGSERVICEFILE" else f"*:*:*:*:{password}\n")
    file.chmod(0o600)
    return {way: str(file), **({"PGSERVICE": "door"} if way == "PGSERVICEFILE" else {})}


@pytest.mark.parametrize("way", ["PGPASSWORD", "PGPASSFILE", "PGSERVICEFILE"])
def test_a_password_is_found_and_told_nowhere(
    guarded: str, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match="no password supplied") as told:
        Gallery.open(guarded, create=True)
    for password in ("wrong horse", PASSWORD):
        for name, value in passwords(tmp_path, guarded, way, password).items():
            monkeypatch.setenv(name, value)
        if password != PASSWORD:
            with pytest.raises(DataError, match="password authentication failed") as told:
                Gallery.open(guarded, create=True)
            assert password not in str(told.value)
            assert "\n" not in str(told.value)
    with Gallery.open(guarded, create=True) as gallery:
        gallery.add(faces(["first/0"]))
    played = play("index", f"gallery={guarded}", "kind=flat", out=tmp_path / "run")
    assert (played.code, played.metrics["count"]) == (0, 1), played.errors
    written = [file.read_text() for file in (tmp_path / "run").rglob("*") if file.is_file()]
    assert written
    assert not any(PASSWORD in text for text in (*written, played.text, played.errors))


@pytest.fixture
def encrypted(tmp_path: Path) -> Iterator[Callable[[Any], tuple[int, Path]]]:
    """Return a function that opens an encrypted way to a server; it returns the port, and the certificate there."""
    proxies = []

    def way_to(server: Any) -> tuple[int, Path]:
        shown, key = certificate(tmp_path, f"shown{len(proxies)}")
        proxies.append(TLSProxy(server.port, shown, key, asked=isinstance(server, PostgresServer)))
        return proxies[-1].port, shown

    yield way_to
    for proxy in proxies:
        proxy.close()


def test_postgresql_checks_certificates_as_the_address_says(
    postgres: PostgresServer, encrypted: Callable[[Any], tuple[int, Path]], new_name: Callable[[], str]
) -> None:
    (port, known), (stranger, _) = encrypted(postgres), encrypted(postgres)
    place = f"{postgres.address(new_name())}&{urlencode({'sslmode': 'verify-full', 'sslrootcert': known})}"

    def through(other: int) -> str:
        return place.replace(str(postgres.port), str(other))

    with Gallery.open(through(port), create=True) as gallery:
        gallery.add(faces(["first/0"]))
        assert len(gallery) == 1
    with pytest.raises(DataError, match="certificate verify failed") as told:
        Gallery.open(through(stranger), timeout=1)
    assert "\n" not in str(told.value)
    with pytest.raises(DataError, match="does not support SSL"):  # never without encryption
        Gallery.open(place, timeout=1)


def test_milvus_checks_certificates(
    milvus: MilvusServer,
    encrypted: Callable[[Any], tuple[int, Path]],
    new_name: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (port, known), (stranger, _) = encrypted(milvus), encrypted(milvus)
    monkeypatch.setenv("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", str(known))  # gRPC reads it once a process
    place = f"{milvus.address(new_name())}?secure=true"

    def through(other: int) -> str:
        return place.replace(str(milvus.port), str(other))

    with Gallery.open(through(port), create=True) as gallery:
        gallery.add(faces(["first/0"]))
        assert len(gallery) == 1
    for other in (stranger, milvus.port):
        with pytest.raises(DataError, match="can not be reached") as told:
            Gallery.open(through(other), timeout=2)
        assert "\n" not in str(told.value)


def test_milvus_takes_its_token_from_the_environment(
    milvus: MilvusServer, new_name: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = milvus.address(new_name())
    for token in ("", f"root:{PASSWORD}"):
        monkeypatch.setenv("MILVUS_TOKEN", token)
        with pytest.raises(DataError, match=r"the server refuses .*; set MILVUS_TOKEN") as told:
            Gallery.open(place, create=True, timeout=5)
        assert "\n" not in str(told.value)
        assert PASSWORD not in str(told.value)
    monkeypatch.setenv("MILVUS_TOKEN", milvus.TOKEN)
    with Gallery.open(place, create=True) as gallery:
        gallery.add(faces(["first/0"]))
        assert len(gallery) == 1
