"""What the routes of items refuse, and what they tell of items that came in some other way."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from facenet.gallery import editing
from facenet.gallery.gallery import Gallery
from facenet.service.options import RateOptions
from facenet.service.service import Allowed, Service
from facenet.types import EmbeddingSet
from tests.helpers.services import enrol, png, service_at

FREE = RateOptions(per_second=None)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TestClient, Service]]:
    with service_at(tmp_path_factory.mktemp("items") / "g", Allowed(rate=FREE)) as found:
        yield found


@pytest.fixture
def empty(served: tuple[TestClient, Service]) -> Iterator[tuple[TestClient, Service]]:
    """The same service, which is empty again after each test."""
    yield served
    client, _ = served
    ids = [item["id"] for item in client.get("/v1/items").json()["items"]]
    client.post("/v1/remove", json={"names": ids, "by": "id"})


def vectors(service: Service, **more: Any) -> dict[str, Any]:
    asked = {"vectors": np.eye(1, service.encoder.dim).tolist(), "fingerprint": service.encoder.fingerprint}
    return {**asked, "ids": ["a"], "identities": ["Ann"], "paths": [""], **more}


def nested(levels: int) -> Any:
    found: Any = 1
    for _ in range(levels):
        found = [found]
    return found


@pytest.mark.parametrize("metadata", [{"a": "\ud800"}, {"a": nested(32)}, {"a": nested(200)}])
def test_metadata_that_no_answer_can_hold_are_refused(empty: tuple[TestClient, Service], metadata: Any) -> None:
    client, service = empty
    body = json.dumps(vectors(service, metadata=[metadata]))
    answer = client.post("/v1/vectors/items", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert enrol(client, 1, metadata=json.dumps(metadata)).status_code == 422
    assert client.get("/v1/items").json()["items"] == []


def test_metadata_of_old_galleries_make_no_listing_fail(
    empty: tuple[TestClient, Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Older versions let in what no answer can hold; the item is told without it."""
    client, service = empty
    bad = [{"a": "\ud800"}, {"a": nested(300)}, {"\udfff": 1}]
    monkeypatch.setattr(editing, "metadata_text", json.dumps)
    given = EmbeddingSet(
        np.eye(4, service.encoder.dim, dtype=np.float32), [""] * 4, ["Ann"] * 4, service.encoder.fingerprint
    )
    with Gallery.open(service.gallery.folder) as gallery:
        gallery.add(given, ids=["a", "b", "c", "d"], metadata=[*bad, {"fine": [1]}])
    monkeypatch.undo()
    ask = {"vectors": np.eye(1, service.encoder.dim).tolist(), "fingerprint": service.encoder.fingerprint}
    for told in (
        client.get("/v1/items").json()["items"],
        client.post("/v1/find", json={"names": ["Ann"]}).json()["items"],
        client.post("/v1/vectors/search", json=ask).json()["hits"][0],
        [client.get(f"/v1/items/{name}").json() for name in "abcd"],
    ):
        assert {one["id"]: one["metadata"] for one in told} == {"a": {}, "b": {}, "c": {}, "d": {"fine": [1]}}
    assert client.post("/v1/search", files={"image": png(1)}, data={"threshold": 1}).status_code == 200


@pytest.mark.parametrize(
    "given",
    [
        {"ids": ["../x"]},
        {"ids": ["a/./b"]},
        {"ids": ["/a"]},
        {"ids": ["a\nb"]},
        {"ids": None, "paths": ["a\u202eb"]},
        {"identities": ["A\x00"]},
        {"identities": ["A\u2028B"]},
    ],
)
def test_vectors_come_with_names_that_can_be_shown(empty: tuple[TestClient, Service], given: dict[str, Any]) -> None:
    client, service = empty
    answer = client.post("/v1/vectors/items", json=vectors(service, **given))
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid")
    assert client.get("/v1/items").json()["items"] == []


def test_names_in_any_writing_are_taken(empty: tuple[TestClient, Service]) -> None:
    client, service = empty
    for number, name in enumerate(("Žofie Nováková", "山田\u3000太郎", "O'Neil\u00a0Jr.")):
        added = client.post("/v1/vectors/items", json=vectors(service, ids=[f"{number}/é"], identities=[name]))
        assert added.status_code == 201
        assert enrol(client, number, id=f"{number}/2", identity=name).status_code == 201
        assert [one["identity"] for one in client.post("/v1/find", json={"names": [name]}).json()["items"]] == [
            name
        ] * 2


def test_large_numbers_are_told_as_they_came(empty: tuple[TestClient, Service]) -> None:
    client, service = empty
    assert client.post("/v1/vectors/items", json=vectors(service, metadata=[{"a": 10**400}])).status_code == 201
    assert client.get("/v1/items").json()["items"][0]["metadata"] == {"a": 10**400}
