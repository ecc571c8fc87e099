"""Servers and clients die, the network is cut, disks are full: no acknowledged face is lost, no verdict is wrong.

KILLS=20 pytest -m engines tests/gallery/engines/test_faults.py plays the whole campaign, which takes minutes.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from facenet.errors import DataError
from facenet.gallery.gallery import Gallery
from tests.helpers import ROOT
from tests.helpers.cutting import Proxy
from tests.helpers.galleries import as_queries, faces, vector_of
from tests.helpers.servers import MilvusServer, PostgresServer

pytestmark = pytest.mark.engines
BATCH = 20
PATIENCE = 60.0  # seconds that a call waits for a server that starts again

CLIENT = """
import sys
from facenet.gallery.gallery import Gallery
from tests.helpers.galleries import faces
with Gallery.open(sys.argv[1]) as gallery:
    for number in range(10**6):
        gallery.add(faces([f"{sys.argv[2]}x{number}/{i}" for i in range(20)]))
        print(number, flush=True)
"""


def kills(server: Any) -> int:
    """How often a server is killed: Milvus takes some ten seconds to come back."""
    return int(os.environ.get("KILLS") or (2 if isinstance(server, MilvusServer) else 10))


class Writer(threading.Thread):
    """Adds batches of faces until it is told to end; remembers which were acknowledged, and every error."""

    def __init__(self, place: str, name: str) -> None:
        super().__init__(daemon=True)
        self.place, self.label = place, name
        self.acknowledged: list[str] = []
        self.errors: list[DataError] = []
        self.ended = threading.Event()

    def run(self) -> None:
        gallery = Gallery.open(self.place, timeout=PATIENCE)
        number = 0
        while not self.ended.is_set():
            names = [f"{self.label}x{number}/{i}" for i in range(BATCH)]
            try:
                gallery.add(faces(names), on_duplicate="skip")  # an add whose answer was lost may be there
            except DataError as error:
                self.errors.append(error)
                continue
            self.acknowledged += names
            number += 1
        gallery.close()


class Asker(Writer):
    """Asks for faces that were acknowledged: each must be found, at a distance of 0."""

    def __init__(self, place: str, writer: Writer) -> None:
        super().__init__(place, "asker")
        self.writer, self.wrong, self.asked = writer, list[str](), 0

    def run(self) -> None:
        gallery, rng = Gallery.open(self.place, timeout=PATIENCE), random.Random(0)
        while not self.ended.is_set():
            if not self.writer.acknowledged:
                time.sleep(0.01)
                continue
            name = rng.choice(self.writer.acknowledged)
            try:
                hit = gallery.hits(as_queries(vector_of(name)[None]), 1)[0][0]
            except DataError as error:
                self.errors.append(error)
                continue
            self.asked += 1
            if (hit.id, hit.sq_dist) != (name, 0.0):
                self.wrong.append(name)
        gallery.close()


def assert_whole(place: str, acknowledged: list[str]) -> None:
    """Every acknowledged face is there as it was given, and nothing is damaged."""
    with Gallery.open(place, timeout=PATIENCE) as gallery:
        found = {item.id for item in gallery.find(acknowledged, by="id")}
        assert found == set(acknowledged)
        assert gallery.check() == []


def test_a_server_that_is_killed_loses_nothing(server: Any, new_name: Callable[[], str]) -> None:
    place, rng = server.address(new_name()), random.Random(1)
    with Gallery.open(place, create=True) as gallery:
        gallery.add(faces(["first/0"]))
    writer = Writer(place, "w")
    asker = Asker(place, writer)
    for one in (writer, asker):
        one.start()
    for _ in range(kills(server)):
        before = len(writer.acknowledged)
        time.sleep(rng.uniform(0.1, 0.6))
        server.kill()
        server.start()
        ends = time.monotonic() + PATIENCE
        while len(writer.acknowledged) <= before and time.monotonic() < ends:
            time.sleep(0.05)
        assert len(writer.acknowledged) > before, writer.errors[-1:]  # it has connected again by itself
    for one in (writer, asker):
        one.ended.set()
        one.join(PATIENCE)
    assert asker.wrong == []
    assert asker.asked > 0
    assert all("\n" not in str(error) and str(server.port) in str(error) for error in writer.errors + asker.errors)
    assert_whole(place, writer.acknowledged)


def test_a_client_that_is_killed_leaves_whole_writes(server: Any, new_name: Callable[[], str]) -> None:
    place, rng, acknowledged = server.address(new_name()), random.Random(2), list[str]()
    with Gallery.open(place, create=True) as gallery:
        gallery.add(faces(["first/0"]))
    for life in range(kills(server)):
        command = [sys.executable, "-c", CLIENT, place, f"life{life}"]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as client:
            assert client.stdout is not None
            numbers = [client.stdout.readline()]
            time.sleep(rng.uniform(0, 0.3))
            client.kill()
            numbers += client.stdout.read().split()
        acknowledged += [f"life{life}x{int(number)}/{i}" for number in numbers for i in range(BATCH)]
    assert_whole(place, acknowledged)
    if not isinstance(server, PostgresServer):
        return  # Milvus has no transactions
    with Gallery.open(place) as gallery:
        batches = [item.id.partition("/")[0] for items, _ in gallery.blocks() for item in items][1:]
    assert {batches.count(name) for name in set(batches)} == {BATCH}


@pytest.fixture
def proxy(server: Any) -> Iterator[Proxy]:
    found = Proxy(server.port)
    yield found
    found.close()


def test_a_network_that_is_cut_is_told_and_mended(server: Any, proxy: Proxy, new_name: Callable[[], str]) -> None:
    place = server.address(new_name())
    with Gallery.open(place, create=True) as gallery:
        gallery.add(faces(["first/0"]))
    through = place.replace(str(server.port), str(proxy.port))
    with Gallery.open(through, timeout=3) as gallery:
        assert gallery.hits(as_queries(vector_of("first/0")[None]), 1)[0][0].id == "first/0"
        proxy.cut()
        with pytest.raises(DataError, match="reached") as told:
            gallery.add(faces(["second/0"]))
        assert "\n" not in str(told.value)
        proxy.mend()
        gallery.add(faces(["second/0"]), on_duplicate="skip")
        assert len(gallery) == 2


def test_a_server_that_is_not_there_is_one_line(new_name: Callable[[], str]) -> None:
    for place in ("postgresql://postgres@127.0.0.1:9/postgres", "milvus://127.0.0.1:9/faces"):
        with pytest.raises(DataError, match="reached") as told:
            Gallery.open(place, timeout=2)
        assert "\n" not in str(told.value)


def test_a_full_disk_changes_nothing(postgres: PostgresServer, new_name: Callable[[], str]) -> None:
    place, added = postgres.address(new_name()), ["first/0"]
    with Gallery.open(place, create=True) as gallery:
        gallery.add(faces(added))
    postgres.stop_gently()
    postgres.start(largest_file=24 << 20)
    try:
        fill(place, added, "nothing was changed; free some space")
    finally:
        postgres.stop_gently()
        postgres.start()
    assert_whole(place, added)
    with Gallery.open(place) as gallery:
        assert len(gallery) == len(added)
        gallery.add(faces(["last/0"]))


def test_a_full_disk_of_milvus_loses_nothing(milvus: MilvusServer, new_name: Callable[[], str]) -> None:
    if not milvus.has_own_disk:
        pytest.skip("a disk in memory can not be mounted here (root may)")
    place, added = milvus.address(new_name()), ["first/0"]
    with Gallery.open(place, create=True) as gallery:
        gallery.add(faces(added))
    milvus.fill_disk(leave=40 << 20)
    try:
        fill(place, added, "No space left .*; free some space, and add again with skip")
    finally:
        milvus.clear_disk()
        milvus.kill()  # its message log stays closed until it is started again
        milvus.start()
    assert_whole(place, added)
    with Gallery.open(place, timeout=PATIENCE) as gallery:
        gallery.add(faces(["last/0"]))


def fill(place: str, added: list[str], said: str) -> None:
    """Add faces until the disk is full, which is told so; notes in `added` which were acknowledged."""
    rng = random.Random(3)
    with Gallery.open(place, timeout=PATIENCE) as gallery:

        def add() -> None:
            for number in range(100):
                names = [f"big{number}/{i}" for i in range(500)]
                gallery.add(faces(names), metadata=[{"text": rng.randbytes(4000).hex()} for _ in names])
                added.extend(names)

        with pytest.raises(DataError, match=said) as told:
            add()
    assert "\n" not in str(told.value)
