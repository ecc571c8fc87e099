"""The benchmarks of the service in short, and what they would see if an answer were wrong."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks import (
    service_backfill,
    service_hostile,
    service_kill,
    service_latency,
    service_load,
    service_soak,
)
from benchmarks.hostile import requests as hostile
from benchmarks.serving import Done, make_photos
from benchmarks.tables import Table
from facenet.data.pictures import TooLarge, read_picture
from facenet.errors import ConfigError, DataError
from facenet.gallery.gallery import Item
from facenet.vectors import normalise


@pytest.fixture(scope="module")
def root(portrait: Image.Image, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder of twelve pictures of a face."""
    folder = tmp_path_factory.mktemp("pictures")
    for turn in range(12):
        portrait.resize((250, 250)).rotate(3 * turn - 18).save(folder / f"{turn}.jpg")
    return str(folder)


def assert_table(tables: Sequence[Table]) -> None:
    assert [len(row) for _, header, rows in tables for row in rows if len(row) != len(header)] == []
    assert all(rows for _, _, rows in tables)


# In short


@pytest.mark.slow  # a service, a load's process, bare calls
def test_a_short_load_has_no_wrong_answer(root: str) -> None:
    options = service_load.Options(searches=30, enrolments=6, clients=3, faces=300, photos=8, bare=10, root=root)
    result = service_load.run(options)
    assert (result["wrong"], result["statuses"]) == (0, {"200": 30, "201": 6})
    assert result["memory"]["end"] > 1e8
    assert 0.05 < result["of_bare"] < 5
    assert_table(service_load.tables(result))


@pytest.mark.slow  # a service and a load's process
def test_a_short_soak(root: str) -> None:
    result = service_soak.run(service_soak.Options(minutes=0.1, trial=12, clients=3, faces=300, photos=8, root=root))
    assert set(result["statuses"]) == {"200", "201"}
    assert abs(result["bytes_for_1000_requests"]) < 1e9
    assert_table(service_soak.tables(result))


@pytest.mark.slow  # a service is killed and started again
def test_a_short_campaign_of_kills(root: str) -> None:
    result = service_kill.run(service_kill.Options(kills=1, faces=300, photos=8, root=root))
    assert result["acknowledged"] > 0
    assert [result[name] for name in ("lost", "half", "problems", "refused")] == [0, 0, 0, 0]
    assert_table(service_kill.tables(result))


@pytest.mark.slow  # a service
def test_a_short_latency(root: str) -> None:
    result = service_latency.run(service_latency.Options(pairs=6, faces=300, photos=2, root=root))
    assert result["ratio"]["low"] <= result["ratio"]["median"] <= result["ratio"]["high"]
    assert_table(service_latency.tables(result))


@pytest.mark.slow  # a service
def test_a_short_backfill_answers_all_the_while() -> None:
    result = service_backfill.run(service_backfill.Options(faces=2000, clients=2, seconds=1, batch=100))
    assert result["old_left"] == result["problems"] == 0
    for stage in service_backfill.STAGES:
        assert result[stage]["errors"] == 0
        if result[stage]["searches"] >= service_backfill.LEAST:  # a busy machine searches little meanwhile
            assert result[stage]["right"] >= result["before"]["right"] - 0.2 > 0.4
    assert result["after"]["searches"] >= service_backfill.LEAST
    assert_table(service_backfill.tables(result))


@pytest.mark.slow  # a service and hypothesis
def test_a_short_campaign_of_hostile_requests(root: str) -> None:
    options = service_hostile.Options(requests=100, connections=100, timings=20, faces=300, root=root)
    result = service_hostile.run(options)
    assert (result["server_errors"], result["hangs"], result["keys_accepted"]) == (0, 0, 0), result["failed"]
    assert (result["touched"], result["alive"], result["exit_code"], result["problems"]) == ([], True, 0, 0)
    assert set(result["statuses"]) >= {*service_hostile.SHARES, "bombs", "slow bodies", "slow heads"}
    assert result["half_open"]["opened"] == 100
    assert result["half_open"]["failed"] == {}
    assert_table(service_hostile.tables(result))


# What would be seen


def answered(ids: list[str], sq_dist: list[float], *, threshold: float = 0.5) -> dict[str, Any]:
    matches = [
        {"id": name, "sq_dist": distance, "threshold": threshold, "accepted": distance <= threshold}
        for name, distance in zip(ids, sq_dist, strict=True)
    ]
    return {"matches": matches, "verdict": "match" if sq_dist[0] <= threshold else "no match"}


def known() -> tuple[service_load.Known, np.ndarray]:
    vectors = normalise(np.random.default_rng(0).normal(size=(40, 16)))
    ids = [f"i{row}" for row in range(40)]
    faces = [normalise(np.random.default_rng(1).normal(size=(1, 16)))]
    return service_load.Known(faces, faces[0], ids, vectors), np.maximum(2 - 2 * faces[0] @ vectors.T, 0)[0]


def judged(face: dict[str, Any], *enrolled: Done) -> int:
    asked = [{"photo": 0, "fields": {"k": "5"}}, {"photo": 0, "fields": {"id": "new", "identity": "x"}}]
    done = [Done(0, 1.0, 2.0, 200, {"faces": [face]}), *enrolled]
    return int(service_load.judge(known()[0], asked, done)["wrong"])


def test_a_wrong_answer_under_load_would_be_seen() -> None:
    _, sq_dist = known()
    order = np.argsort(sq_dist)
    near = order[:5]
    ids, values = [f"i{row}" for row in near], sq_dist[near].tolist()
    right = answered(ids, values)
    assert judged(right) == 0
    assert judged(answered(ids[::-1], values[::-1])) == 1
    assert judged(answered(ids, [value + 1e-3 for value in values])) == 1
    later = [*near[1:], order[5]]
    assert judged(answered([f"i{row}" for row in later], sq_dist[later].tolist())) == 1
    assert judged({**right, "verdict": "match" if right["verdict"] == "no match" else "no match"}) == 1
    assert judged({**right, "matches": right["matches"][:4]}) == 1


def test_an_answer_holds_what_was_acknowledged_and_may_hold_what_had_begun() -> None:
    _, sq_dist = known()
    near = np.argsort(sq_dist)[:5]
    ids, values = [f"i{row}" for row in near], sq_dist[near].tolist()
    without, within = answered(ids, values), answered(["new", *ids[:4]], [0.0, *values[:4]])
    before, meanwhile, after = (Done(1, *times, 201, {}) for times in ((0.0, 0.5), (0.5, 1.5), (3.0, 4.0)))
    assert [judged(without, one) for one in (before, meanwhile, after)] == [1, 0, 0]
    assert [judged(within, one) for one in (before, meanwhile, after)] == [0, 0, 1]


def test_memory_that_grows_would_be_seen() -> None:
    done = [Done(number, number / 10, number / 10 + 0.05, 200, None) for number in range(1000)]
    samples = [(second / 2, int(3e8 + 5000 * 5 * second)) for second in range(200)]
    result = service_soak.summary(samples, done)
    assert result["bytes_for_1000_requests"] == pytest.approx(5e6, rel=0.01)
    assert service_load.growth(samples, done)["growth"] == pytest.approx(0.0149, rel=0.05)


def test_a_half_item_would_be_seen() -> None:
    class Encoder:
        dim = 16

    truth = service_kill.Truth(Encoder(), [])  # type: ignore[arg-type]
    name = "vector/0-0-0/1"
    item = Item(1, name, f"of {name}", "", "", {"id": name}, "ab" * 32)
    vector = truth.vector(name)
    assert truth.is_whole(item, vector)
    assert not truth.is_whole(item._replace(identity=""), vector)
    assert not truth.is_whole(item._replace(metadata={}), vector)
    assert not truth.is_whole(item, truth.vector("vector/0-0-0/2"))


def test_photos_are_of_one_size(root: str) -> None:
    for photo in make_photos(root, 3):
        assert read_picture(photo).size == (640, 480)
    for given in (None, root):
        with pytest.raises(ConfigError, match="pass benchmark"):
            make_photos(given, 13)


def test_bombs_are_small_and_refused() -> None:
    for bomb in hostile.bombs():
        assert len(bomb) < 1_000_000
        with pytest.raises(DataError) as raised:
            read_picture(bomb, most_pixels=1_000_000)
        assert raised.type is TooLarge or bomb.startswith((b"GIF", b"RIFF", b"BM", b"\x89PNG"))
    assert len(hostile.bombs()) == 8


def test_hostile_requests_are_of_every_kind(root: str) -> None:
    rng, photos = random.Random(0), make_photos(root, 2)
    made = {
        "pictures": hostile.broken_pictures(photos, rng),
        "names": hostile.odd_names(photos, rng),
        "json": hostile.wrong_json(rng),
        "kinds": hostile.wrong_kinds(photos, rng),
    }
    targets = {part: {one.target for one in itertools.islice(requests, 60)} for part, requests in made.items()}
    assert targets["pictures"] == {"/v1/detect", "/v1/embed", "/v1/compare", "/v1/search", "/v1/items"}
    assert len(targets["json"]) == 7
    assert any("etc" in target for target in targets["names"])
    key = "fn_" + "aB3" * 14
    wrong = set(itertools.islice(hostile.keys_that_are_none(key, rng), 200))
    assert len(wrong) > 30
    assert f"Bearer {key}" not in wrong
    assert len(set(itertools.islice(hostile.wrong_http(rng), 60))) > 20


def test_a_server_error_a_hang_and_a_touched_file_would_be_seen(tmp_path: Path) -> None:
    told = service_hostile.Told()
    for what in ("500", "503", "200", "hang", "closed"):
        told.add("part", what, "x" * 1000)
    assert [line[:12] for line in told.failed] == ["part: 500: x", "part: hang: "]
    (tmp_path / "g").mkdir()
    (tmp_path / "beside.txt").write_text("stays")
    before = service_hostile.listing(tmp_path)
    (tmp_path / "g" / "items.sqlite").write_text("")
    assert service_hostile.listing(tmp_path) == before
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp" / "upload").write_text("")
    assert len(service_hostile.listing(tmp_path) ^ before) == 1
