"""Many writers and readers at once, upgrades under search, and roles with few rights."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from facenet.errors import DataError
from facenet.gallery.gallery import Gallery
from facenet.types import EmbeddingSet
from facenet.vectors import normalise
from tests.helpers.galleries import OURS, THEIRS, as_queries, faces, joining, vector_of
from tests.helpers.servers import PostgresServer

pytestmark = pytest.mark.engines
SECONDS = float(os.environ.get("SECONDS") or 8)
PEOPLE = int(os.environ.get("PEOPLE") or 60)
WRITERS, READERS = 8, 8


def test_writers_and_readers_side_by_side_lose_no_update(server: Any, new_name: Callable[[], str]) -> None:
    """SECONDS=300 plays it for five minutes."""
    place, ends, counts = server.address(new_name()), time.monotonic() + SECONDS, Counter[str]()
    shared = [f"shared/{i}" for i in range(40)]
    with Gallery.open(place, create=True) as gallery:
        gallery.add(faces(shared))
    errors: list[BaseException] = []
    kept: list[list[str]] = [[] for _ in range(WRITERS)]

    def write(writer: int) -> None:
        with Gallery.open(place, timeout=60) as gallery:
            number = 0
            while time.monotonic() < ends:
                names = [f"w{writer}n{number}/{i}" for i in range(5)]
                gallery.add(faces(names))
                chosen = shared[(number + writer) % 20 :: 3][::-1]
                gallery.add(faces(chosen), on_duplicate="replace")  # others replace the same ones, in another order
                gallery.rename(names[1], f"renamed{writer}", by="id")
                gallery.remove(names[0], by="id")
                kept[writer] += names[1:]
                number += 1
                counts["writes"] += 4

    def read(reader: int) -> None:
        with Gallery.open(place, timeout=60) as gallery:
            while time.monotonic() < ends:
                name = shared[reader]
                hit = gallery.hits(as_queries(vector_of(name)[None]), 1)[0][0]
                assert (hit.id, hit.sq_dist) == (name, 0.0)
                counts["searches"] += 1

    def guarded(work: Callable[[int], None], number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(write, number)) for number in range(WRITERS)]
    threads += [threading.Thread(target=guarded, args=(read, number)) for number in range(READERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    rates = {name: f"{count / SECONDS:.0f}/s" for name, count in counts.items()}
    print(f"\n{place.partition(':')[0]}: {rates}")
    with Gallery.open(place) as gallery:
        items = {item.id: item for part, _ in gallery.blocks() for item in part}
        assert items.keys() == {*shared, *(name for names in kept for name in names)}
        assert all(items[names[0]].identity == f"renamed{writer}" for writer, names in enumerate(kept))
        assert len(gallery) == len(items)
        assert gallery.check() == []


def test_an_upgrade_under_search_is_never_worse_than_before(server: Any, new_name: Callable[[], str]) -> None:
    """PEOPLE=25000 plays it with 100,000 faces."""
    place, asked = server.address(new_name()), 15  # the people that are asked for
    centres = np.random.default_rng(0).normal(size=(PEOPLE, 64))
    names = [f"p{person}/{image}" for person in range(PEOPLE) for image in range(4)]
    who = [name.partition("/")[0] for name in names]

    def pictures(people: int, noise: float, fingerprint: str, seed: int) -> EmbeddingSet:
        spread = np.random.default_rng(seed).normal(size=(people, 4, 64))
        vectors = normalise((centres[:people, None] + noise * spread).reshape(-1, 64).astype(np.float32))
        return EmbeddingSet(vectors, names[: 4 * people], who[: 4 * people], fingerprint)

    old, new = pictures(PEOPLE, 1.2, OURS, 1), joining(pictures(PEOPLE, 0.6, THEIRS, 1), [OURS])
    before, after = pictures(asked, 1.2, OURS, 2), joining(pictures(asked, 0.6, THEIRS, 2), [OURS])

    def accuracy(gallery: Gallery, queries: EmbeddingSet) -> float:
        found = gallery.hits(queries, 1)
        return float(np.mean([hits[0].identity == name for hits, name in zip(found, who, strict=False)]))

    with Gallery.open(place, create=True) as gallery:
        gallery.add(old)
        base = accuracy(gallery, before)
    seen: list[float] = []
    done = threading.Event()

    def search() -> None:
        with Gallery.open(place, timeout=60) as gallery:
            while not done.is_set():
                seen.append(accuracy(gallery, after))

    searcher = threading.Thread(target=search)
    searcher.start()
    began = time.monotonic()
    with Gallery.open(place, timeout=60) as gallery:
        result = gallery.backfill(new, batch=max(2, PEOPLE // 30))
    took = time.monotonic() - began
    done.set()
    searcher.join()
    assert (result.replaced, result.missing) == (4 * PEOPLE, 0)
    assert len(seen) > 2
    assert min(seen) >= base, (base, seen)
    with Gallery.open(place) as gallery:
        last = accuracy(gallery, after)
        assert last > base
        assert gallery.info()["fingerprints"][THEIRS] == 4 * PEOPLE
        assert gallery.check() == []
    print(f"\n{place.partition(':')[0]}: {4 * PEOPLE / took:.0f} faces/s; old {base:.3f}, meanwhile {min(seen):.3f} or "
          f"better in {len(seen)} searches of {4 * asked}, new {last:.3f}")  # fmt: skip


def test_a_role_without_rights_is_told_what_it_may_not(postgres: PostgresServer, new_name: Callable[[], str]) -> None:
    import psycopg

    name = new_name()
    place = postgres.address(name)
    with Gallery.open(place, create=True) as gallery:
        gallery.add(faces(["first/0"]))
    with psycopg.connect(place.partition("?")[0], autocommit=True) as admin:
        for role, rights in (("writer", "SELECT, INSERT, UPDATE, DELETE"), ("reader", "SELECT")):
            admin.execute(f"CREATE ROLE {role}_{name} LOGIN")
            admin.execute(f"GRANT USAGE ON SCHEMA {name} TO {role}_{name}")
            admin.execute(f"GRANT {rights} ON ALL TABLES IN SCHEMA {name} TO {role}_{name}")
    query = as_queries(vector_of("first/0")[None])
    with Gallery.open(place.replace("postgres@", f"writer_{name}@")) as gallery:
        gallery.add(faces(["second/0"]))
        assert gallery.hits(query, 1)[0][0].id == "first/0"
        with pytest.raises(DataError, match=r"the role may not do that .* ask the gallery's owner"):
            gallery.add(joining(faces(["third/0"], THEIRS), [OURS]))
        assert len(gallery) == 2
    with Gallery.open(place.replace("postgres@", f"reader_{name}@")) as gallery:
        assert gallery.hits(query, 1)[0][0].id == "first/0"
        with pytest.raises(DataError, match="the role may not do that"):
            gallery.remove("first/0")
