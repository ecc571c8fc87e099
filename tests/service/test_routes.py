"""What the routes answer, beside the library's own answers."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from facenet.gallery.gallery import Gallery
from facenet.service.options import LimitOptions
from facenet.service.service import Allowed, Service
from facenet.types import EmbeddingSet
from tests.helpers.services import ask, enrol, png, service_at, small_encoder


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TestClient, Service]]:
    """A service with five people of two faces each, which no test changes."""
    with service_at(tmp_path_factory.mktemp("gallery") / "g") as (client, service):
        names = [f"p{seed // 2}" for seed in range(10)]
        assert (
            enrol(client, *range(10), id=[f"{n}/{i}" for i, n in enumerate(names)], identity=names).status_code == 201
        )
        yield client, service


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[tuple[TestClient, Service]]:
    with service_at(tmp_path / "g", Allowed(thumbnails="kept")) as found:
        yield found


def vector_of(service: Service, seed: int) -> np.ndarray:
    with Image.open(io.BytesIO(png(seed))) as picture:
        return service.encoder.embed(picture.convert("RGB"))


def queries(service: Service, *seeds: int) -> EmbeddingSet:
    return EmbeddingSet.unnamed(
        np.concatenate([vector_of(service, seed) for seed in seeds]), service.encoder.fingerprint
    )


def test_a_search_answers_as_the_library_does(shared: tuple[TestClient, Service]) -> None:
    client, service = shared
    told = ask(client, 3, k=4, by_identity=True)
    with Gallery.open(service.gallery.folder) as gallery:
        (hits,) = gallery.hits(queries(service, 3), 4, by_identity=True)
        at = gallery.threshold(service.encoder)
    (face,) = told["faces"]
    assert [(match["id"], match["identity"]) for match in face["matches"]] == [(hit.id, hit.identity) for hit in hits]
    np.testing.assert_allclose([m["sq_dist"] for m in face["matches"]], [hit.sq_dist for hit in hits], atol=1e-6)
    assert [match["accepted"] for match in face["matches"]] == [hit.accepted(at.sq_dist) for hit in hits]
    assert (face["identity"], face["verdict"], face["threshold"]) == ("p1", "match", pytest.approx(at.sq_dist))
    assert (face["fpir"], face["rate_kind"], told["gallery_size"]) == (0.05, "fpir", 10)
    assert face["box"] == [0, 0, 40, 40]
    assert face["why"]


def test_other_rates_filters_and_radii(shared: tuple[TestClient, Service]) -> None:
    client, _ = shared
    assert ask(client, 3, far=0.01)["faces"][0]["threshold"] == pytest.approx(0.002)
    none = ask(client, 99, threshold=0.0)["faces"][0]
    assert (none["verdict"], none["identity"], none["rate_kind"]) == ("no match", None, "threshold")
    assert {m["identity"] for m in ask(client, 3, where='{"identity": "p4"}')["faces"][0]["matches"]} == {"p4"}
    near = ask(client, 3, within=True, threshold=1e-3)["faces"][0]["matches"]
    assert [match["id"] for match in near] == ["p1/3"]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"fpir": 0.1, "far": 0.1}, "pass one of them"),
        ({"fpir": 2}, "fpir: expected a number above 0 and below 1"),
        ({"k": 0}, "k: "),
        ({"k": 101}, "k: at most 100"),
        ({"where": "{"}, "where: "),
        ({"where": '{"a\\"b": 1}'}, "where: "),
        ({"identity_by": "median"}, "identity_by: "),
        ({"identity_by": "mean"}, "pass by_identity=true"),
    ],
)
def test_options_that_can_not_be_used_are_422(shared: tuple[TestClient, Service], fields: dict, told: str) -> None:
    answer = shared[0].post("/v1/search", files={"image": png(1)}, data=fields)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (422, "invalid")
    assert told in error["message"]
    assert error["request_id"] == answer.headers["X-Request-ID"]


@pytest.mark.parametrize(
    ("address", "fields", "told"),
    [
        ("/v1/search?k=2", {}, "k: no field of the address here; it takes none"),
        ("/v1/search", {"fprr": 0.1}, "fprr: no field of the form here; it takes image, k, fpir, "),
        ("/v1/detect", {"k": 2}, "k: no field of the form here; it takes image"),
    ],
)
def test_fields_that_a_route_does_not_take_are_422(
    shared: tuple[TestClient, Service], address: str, fields: dict, told: str
) -> None:
    answer = shared[0].post(address, files={"image": png(3)}, data=fields)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid")
    assert answer.json()["error"]["message"].startswith(told)
    listed = shared[0].get("/v1/items", params={"lim": 3})
    assert listed.status_code == 422
    assert "lim: no field of the address here; it takes cursor, limit" in listed.json()["error"]["message"]


def test_pictures_that_can_not_be_used_say_why(shared: tuple[TestClient, Service]) -> None:
    client, _ = shared
    bomb = io.BytesIO()
    Image.new("1", (8000, 8000)).save(bomb, "PNG")
    scans = io.BytesIO()
    Image.new("RGB", (64, 64)).save(scans, "JPEG", progressive=True)
    many = scans.getvalue().replace(b"\xff\xd9", b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" * 41)
    assert client.post("/v1/detect", files={"image": scans.getvalue()}).status_code == 200
    told = {b"no picture": "unreadable", png(1)[:60]: "unreadable", bomb.getvalue(): "too_many_pixels"}
    for data, code in told.items():
        answer = client.post("/v1/detect", files={"image": data})
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, code)
    assert "more than 40 scans" in client.post("/v1/detect", files={"image": many}).text
    assert client.post("/v1/detect", json={"image": "/etc/passwd"}).status_code == 422


def test_detect_embed_and_compare(shared: tuple[TestClient, Service]) -> None:
    client, service = shared
    seen = client.post("/v1/detect", files={"image": png(5)}).json()
    assert (seen["width"], seen["height"], len(seen["faces"]), seen["notes"]) == (40, 40, 1, [])
    told = client.post("/v1/embed", files={"image": png(5)}).json()
    np.testing.assert_allclose([told["faces"][0]["embedding"]], vector_of(service, 5), atol=1e-6)
    same = client.post("/v1/compare", files=[("image", png(5)), ("image", png(5))]).json()
    assert (same["verdict"], same["rate_kind"], same["rate"]) == ("one person", "far", 0.001)
    assert same["why"] == (
        "The faces are 0.000 apart, within the threshold of 0.001. "
        "At this threshold 0.1 % of pairs of different people match."
    )
    other = client.post("/v1/compare", files=[("image", png(5)), ("image", png(7))], data={"threshold": 0.0}).json()
    assert (other["same"], other["verdict"]) == (False, "two people")
    assert "beyond" in other["why"]
    assert client.post("/v1/compare", files={"image": png(5)}).status_code == 422


def test_info_says_what_is_served(shared: tuple[TestClient, Service]) -> None:
    client, service = shared
    told = client.get("/v1/info").json()
    assert told["encoder"]["fingerprint"] == service.encoder.fingerprint
    assert [one["sq_dist"] for one in told["encoder"]["rates"]] == [0.001, 0.002, 0.004]
    assert (told["gallery"]["count"], told["role"], told["thumbnails"]) == (10, "write", "none")
    assert str(service.gallery.folder) not in str(told)
    assert client.get("/v1/health").json() == {"status": "ok"}
    assert client.get("/v1/ready").json() == {"status": "ready"}


def test_items_are_listed_by_pages(shared: tuple[TestClient, Service]) -> None:
    client, service = shared
    first = client.get("/v1/items", params={"limit": 7}).json()
    second = client.get("/v1/items", params={"limit": 7, "cursor": first["next"]}).json()
    assert [item["id"] for item in first["items"] + second["items"]] == [f"p{i // 2}/{i}" for i in range(10)]
    assert second["next"] is None
    own = client.get("/v1/items", params={"identity": "p2", "vector": True}).json()["items"]
    np.testing.assert_allclose(
        [item["vector"] for item in own], np.concatenate([vector_of(service, i) for i in (4, 5)]), atol=1e-6
    )
    assert "vector" not in first["items"][0]
    by_number = client.get("/v1/items", params={"number": [3, 1]}).json()["items"]
    assert [item["number"] for item in by_number] == [3, 1]
    people = client.get("/v1/identities", params={"limit": 3}).json()
    assert [(one["identity"], one["faces"]) for one in people["identities"]] == [("p0", 2), ("p1", 2), ("p2", 2)]
    assert client.get("/v1/identities", params={"cursor": people["next"]}).json()["next"] is None
    assert client.get("/v1/items/nobody").json()["error"]["code"] == "not_found"
    assert client.get("/v1/items/p2%2F4").json()["identity"] == "p2"


def test_an_enrolment_is_written_before_it_is_answered(fresh: tuple[TestClient, Service]) -> None:
    client, service = fresh
    answer = enrol(client, 1, id="a", identity="Ann", metadata='{"door": 2}')
    assert (answer.status_code, answer.json()["added"]) == (201, 1)
    with Gallery.open(service.gallery.folder) as gallery:
        (item,) = gallery.page()
    assert (item.id, item.identity, item.metadata) == ("a", "Ann", {"door": 2})
    assert ask(client, 1, where='{"door": 2}')["faces"][0]["identity"] == "Ann"


def test_a_batch_is_all_or_nothing(fresh: tuple[TestClient, Service]) -> None:
    client, service = fresh
    files = [("image", png(1)), ("image", b"none")]
    assert client.post("/v1/items", files=files, data={"id": ["a", "b"]}).status_code == 422
    assert enrol(client, 1, 2, id=["a"]).status_code == 422
    assert enrol(client, 1, id="../a").status_code == 422
    assert enrol(client, 1, id="a", metadata='{"x": NaN}').status_code == 422
    assert client.get("/v1/items").json()["items"] == []
    assert not list((service.gallery.folder / "faces").glob("*"))
    assert enrol(client, 1, id="a").status_code == 201
    taken = enrol(client, 2, 1, id=["b", "a"])
    assert (taken.status_code, taken.json()["error"]["code"]) == (409, "duplicate_id")
    assert len(list((service.gallery.folder / "faces").glob("*"))) == 1
    skipped = enrol(client, 2, 1, id=["b", "a"], on_duplicate="skip").json()
    assert (skipped["added"], skipped["skipped"]) == (1, 1)


def test_a_request_with_an_idempotency_key_is_done_once(fresh: tuple[TestClient, Service]) -> None:
    client, _ = fresh
    first, again = (enrol(client, 1, 2, headers={"Idempotency-Key": "import-1"}) for _ in range(2))
    assert (first.status_code, first.json()) == (201, again.json())
    assert len(client.get("/v1/items").json()["items"]) == 2
    other = enrol(client, 3, 2, headers={"Idempotency-Key": "import-1"})
    assert (other.status_code, other.json()["error"]["code"]) == (409, "duplicate_id")
    assert len(client.get("/v1/items").json()["items"]) == 2


def test_pictures_are_kept_as_long_as_their_items(fresh: tuple[TestClient, Service]) -> None:
    client, service = fresh
    kept = service.gallery.folder / "faces"
    enrol(client, 1, id="a/1", identity="Ann")
    picture = client.get("/v1/faces/a%2F1")
    assert picture.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(picture.content)).size == (40, 40)
    assert client.put("/v1/items/a%2F1", files={"image": png(2)}, data={"identity": "Bob"}).json()["replaced"] == 1
    assert len(list(kept.iterdir())) == 1
    assert client.put("/v1/items/a%2F1", files={"image": png(2)}, data={"identity": "Bob"}).json()["replaced"] == 1
    assert client.get("/v1/faces/a%2F1").status_code == 200
    assert client.delete("/v1/items/a%2F1").json() == {"removed": 1}
    assert not list(kept.iterdir())
    assert client.get("/v1/faces/a%2F1").status_code == 404


def test_people_are_renamed_merged_and_removed(fresh: tuple[TestClient, Service]) -> None:
    client, _ = fresh
    enrol(client, 1, 2, 3, id=["a", "b", "c"], identity=["An", "Ann", ""])
    assert client.post("/v1/rename", json={"identity": "An", "to": "Ann"}).json() == {"renamed": 1}
    assert client.post("/v1/rename", json={"ids": ["c"], "to": "Carl"}).json() == {"renamed": 1}
    assert ask(client, 3)["faces"][0]["identity"] == "Carl"
    assert client.post("/v1/rename", json={"identity": "An", "to": "Ann"}).status_code == 404
    assert client.post("/v1/rename", json={"identity": "Ann", "ids": ["a"], "to": "x"}).status_code == 422
    assert client.delete("/v1/items", params={"identity": "Ann"}).json() == {"removed": 2}
    assert client.post("/v1/remove", json={"names": ["c", "d"]}).status_code == 404
    assert client.post("/v1/remove", json={"names": ["c"], "by": "id"}).json() == {"removed": 1}
    assert client.get("/v1/identities").json()["identities"] == []
    assert ask(client, 3)["faces"][0]["matches"] == []


def test_faces_without_names_are_clustered(fresh: tuple[TestClient, Service]) -> None:
    client, _ = fresh
    assert client.get("/v1/clusters").json()["clusters"] == []
    for start in (0, 10):
        enrol(client, 1, 1, 1, 5, 5, id=[f"{start + place}" for place in range(5)])
    enrol(client, 9, 9, id=["x", "y"], identity=["Xi", "Xi"])
    found = client.get("/v1/clusters", params={"unnamed": True}).json()["clusters"]
    assert [(one["faces"], one["identities"]) for one in found] == [(6, {"": 6}), (4, {"": 4})]
    assert client.get("/v1/clusters").json()["clusters"][2]["identities"] == {"Xi": 2}


def test_vectors_of_other_encoders_are_409_unless_they_are_compatible(fresh: tuple[TestClient, Service]) -> None:
    client, service = fresh
    enrol(client, 1, id="a", identity="Ann")
    vectors = vector_of(service, 1).tolist()
    asked = {"vectors": vectors, "fingerprint": "f" * 64}
    refused = client.post("/v1/vectors/search", json=asked)
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "other_encoder")
    assert "facenet compat" in refused.json()["error"]["message"]
    asked["compatible_with"] = [service.encoder.fingerprint]
    ((hit,),) = client.post("/v1/vectors/search", json=asked).json()["hits"]
    assert (hit["id"], hit["number"]) == ("a", 1)
    assert "root" not in hit
    wide = {**asked, "vectors": [[*row, 0.0] for row in vectors]}
    assert client.post("/v1/vectors/search", json=wide).status_code == 422


def test_an_encoder_that_may_not_ask_is_refused_at_the_start(fresh: tuple[TestClient, Service]) -> None:
    _, service = fresh
    with (
        pytest.raises(ValueError, match="whose bundle does not list it"),
        service_at(service.gallery.folder, encoder=small_encoder(1)),
    ):
        pass
    joins = small_encoder(1, (service.encoder.fingerprint,))
    with service_at(service.gallery.folder, encoder=joins) as (client, _):
        assert ask(client, 1, threshold=1.0)["faces"][0]["verdict"] == "no match"


def test_a_photo_with_faces(tmp_path: Path, portrait: Image.Image) -> None:
    from facenet.data.preprocess import Preprocess
    from facenet.faces.alignment import Alignment

    encoder = small_encoder()
    encoder.preprocess = Preprocess(size=(32, 32), align=Alignment())
    two = Image.new("RGB", (1024, 600))
    two.paste(portrait, (0, 0))
    two.paste(portrait.resize((256, 300)), (600, 100))

    def jpeg(picture: Image.Image) -> bytes:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG")
        return buffer.getvalue()

    with service_at(tmp_path / "g", encoder=encoder) as (client, _):
        seen = client.post("/v1/detect", files={"image": jpeg(two)}).json()
        assert [note["code"] for note in seen["notes"]] == ["several_faces"]
        sides = [face["quality"]["side"] for face in seen["faces"]]
        assert len(sides) == 2
        small = sides.index(min(sides))
        enrolled = client.post("/v1/items", files={"image": jpeg(two)}, data={"id": "a", "face": small}).json()
        assert enrolled["items"][0]["box"] == seen["faces"][small]["box"]
        assert client.post("/v1/items", files={"image": jpeg(two)}, data={"face": 2}).status_code == 422
        none = client.post("/v1/search", files={"image": jpeg(Image.new("RGB", (300, 300)))}).json()
        assert (none["faces"], [note["code"] for note in none["notes"]]) == ([], ["no_face"])
        missed = client.post("/v1/items", files={"image": jpeg(Image.new("RGB", (300, 300)))})
        assert (missed.status_code, missed.json()["error"]["code"]) == (422, "no_face")


def test_a_client_names_no_file_of_this_machine(fresh: tuple[TestClient, Service], tmp_path: Path) -> None:
    """An item that came as a vector shows no picture, whatever path it has; no message names the gallery's place."""
    client, service = fresh
    Image.new("RGB", (50, 50)).save(tmp_path / "other.png")
    service.thumbnails.mode = "photos"
    asked = {"vectors": vector_of(service, 1).tolist(), "fingerprint": service.encoder.fingerprint, "identities": [""]}
    for path in ("../other.png", str(tmp_path / "other.png"), f"faces/{'a' * 32}.jpg"):
        assert client.post("/v1/vectors/items", json={**asked, "paths": [path], "ids": ["a"]}).status_code == 422
    assert client.post("/v1/vectors/items", json={**asked, "paths": ["other.png"], "root": "/"}).status_code == 422
    assert client.post("/v1/vectors/items", json={**asked, "paths": ["other.png"]}).status_code == 201
    assert client.get("/v1/faces/other.png").status_code == 404
    told = client.get("/v1/items/nobody").json()["error"]["message"]
    assert told.startswith("the gallery: no id 'nobody'")


def test_photos_of_indexed_items_are_shown_if_asked_for(fresh: tuple[TestClient, Service], tmp_path: Path) -> None:
    client, service = fresh
    (tmp_path / "1.png").write_bytes(png(1))
    given = EmbeddingSet(vector_of(service, 1), ["1.png"], ["Ann"], service.encoder.fingerprint, root=str(tmp_path))
    with Gallery.open(service.gallery.folder) as gallery:
        gallery.add(given)
    assert client.get("/v1/faces/1.png").status_code == 404
    service.thumbnails.mode = "photos"
    assert client.get("/v1/faces/1.png").headers["content-type"] == "image/jpeg"
    assert client.get("/v1/items/1.png").json()["thumbnail"]


def test_every_face_within_a_threshold_is_told(
    shared: tuple[TestClient, Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, service = shared
    monkeypatch.setattr(service, "allowed", replace(service.allowed, limits=LimitOptions(k=2)))
    assert len(ask(client, 3, k=2, within=True, threshold=4)["faces"][0]["matches"]) == 10


@pytest.mark.parametrize(
    ("route", "fields", "told"),
    [
        ("search", {"max_sq_dist": 1.0, "by_identity": True}, "by_identity and identity_by go with k"),
        ("search", {"means": True}, "means goes with max_sq_dist"),
        ("threshold", {"thresholds": {"0.1": 1.0}, "threshold": 1.0}, "give its fingerprint"),
    ],
)
def test_fields_of_vectors_that_nothing_reads_are_422(
    shared: tuple[TestClient, Service], route: str, fields: dict, told: str
) -> None:
    client, service = shared
    vectors = {"vectors": vector_of(service, 1).tolist(), "fingerprint": service.encoder.fingerprint}
    answer = client.post(f"/v1/vectors/{route}", json={**(vectors if route == "search" else {}), **fields})
    assert (answer.status_code, told in answer.text) == (422, True), answer.text


def test_a_radius_that_finds_too_much_is_refused(
    shared: tuple[TestClient, Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, service = shared
    limits = LimitOptions(hits=5)
    monkeypatch.setattr(service, "allowed", replace(service.allowed, limits=limits))
    asked = {"vectors": vector_of(service, 1).tolist(), "fingerprint": service.encoder.fingerprint, "max_sq_dist": 4.0}
    answers = [
        client.post("/v1/vectors/search", json=asked),
        client.post("/v1/search", files={"image": png(1)}, data={"within": True, "threshold": 4}),
    ]
    assert ["more than 5 faces" in one.text for one in answers] == [True, True]
    assert client.post("/v1/vectors/search", json={**asked, "max_sq_dist": 1e-4}).status_code == 200
