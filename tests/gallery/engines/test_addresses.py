"""Addresses of databases: what they name, what is refused, and what is said where a driver is missing. No server."""

from __future__ import annotations

import sys

import pytest

from facenet.errors import ConfigError
from facenet.gallery.engines.milvus import connection as milvus
from facenet.gallery.engines.places import is_address
from facenet.gallery.engines.postgres import connection as postgres
from facenet.gallery.gallery import Gallery


@pytest.mark.parametrize(
    "place",
    [
        "postgresql://me:secret@host/faces",
        "postgresql://host/faces?password=secret",
        "postgres://me:secret@host/faces",
        "milvus://me:secret@host/g",
    ],
)
def test_a_password_in_an_address_is_refused(place: str) -> None:
    with pytest.raises(ConfigError, match=r"leave .*out") as told:
        Gallery.open(place)
    assert "secret" not in str(told.value)


def test_a_postgresql_address_names_a_schema_and_leaves_the_rest_to_libpq() -> None:
    one = postgres.parse("postgresql://me@db:6000/faces?gallery=door_2&sslmode=verify-full&options=-c work_mem=1GB")
    assert one.schema == "door_2"
    assert one.conninfo == "postgresql://me@db:6000/faces?sslmode=verify-full&options=-c%20work_mem%3D1GB"
    assert one.shown == "postgresql://db:6000/faces?gallery=door_2"
    assert postgres.parse("postgresql:///faces").conninfo == "postgresql:///faces"
    assert postgres.parse("postgresql://?service=x")[:2] == ("postgresql://?service=x", "facenet")
    for name in ("Door", "1st", "a" * 42, "x;drop", ""):
        with pytest.raises(ConfigError, match="gallery="):
            postgres.parse(f"postgresql://db/faces?gallery={name}")


def test_a_milvus_address_names_a_collection() -> None:
    one = milvus.parse("milvus://db.here/faces?consistency=bounded&secure=true")
    assert (one.uri, one.name, one.consistency) == ("https://db.here:19530", "faces", "Bounded")
    assert one.shown == "milvus://db.here/faces"
    assert milvus.parse("milvus://[::1]:7/faces")[:3] == ("http://[::1]:7", "faces", "Strong")
    for place, said in (
        ("milvus://db", "expected milvus://host:19530/NAME"),
        ("milvus://db/a-b", "expected milvus://host:19530/NAME"),
        ("milvus://db:abc/faces", "expected milvus://host:19530/NAME"),
        ("milvus:///faces", "expected milvus://host:19530/NAME"),
        ("milvus://db/faces?consistency=weak", "consistency: unknown name 'weak'"),
        ("milvus://db/faces?secure=1", "secure: unknown name '1'"),
        ("milvus://db/faces?tls=true", "unknown tls"),
    ):
        with pytest.raises(ConfigError, match=said):
            milvus.parse(place)


@pytest.mark.parametrize(
    ("place", "package", "extra"),
    [("postgresql://db/faces", "psycopg", "postgres"), ("milvus://db/faces", "pymilvus", "milvus")],
)
def test_a_missing_driver_is_named(place: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"pip install 'facenet-triplet\[{extra}\]'"):
        Gallery.open(place)


def test_an_address_is_told_from_a_folder() -> None:
    assert [is_address(place) for place in ("postgres://db/x", "postgresql://db/x", "milvus://db/x")] == [True] * 3
    assert not any(map(is_address, ("gallery", "/tmp/postgresql:/x", "http://db")))
