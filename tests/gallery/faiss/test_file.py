"""The index on disk: a header that was changed is refused, and a failed write leaves the old files."""

from __future__ import annotations

import json
import os
import resource
from pathlib import Path
from typing import Any

import pytest

from facenet.errors import DataError
from facenet.files import read_sealed, write_sealed
from facenet.gallery.faiss.file import FIELDS
from facenet.gallery.gallery import Gallery
from tests.helpers.galleries import (
    as_queries,
    assert_answers,
    people,
    unit,
)


def test_temporary_files_of_dead_writers_are_swept(folder: Path) -> None:
    old, young = folder / ".index.faiss.abc.tmp", folder / ".index.faiss.def.tmp"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    with Gallery.open(folder) as gallery:
        gallery.save_cache(force=True)
    assert not old.exists()
    assert young.exists()


def test_full_disk_leaves_the_old_cache(folder: Path) -> None:
    before, limits = (folder / "index.faiss").read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    with Gallery.open(folder) as gallery:
        gallery.search(as_queries(unit(1)), 1)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        try:
            with pytest.raises(DataError, match="the old file, if any, is unchanged"):
                gallery.save_cache(force=True)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert (folder / "index.faiss").read_bytes() == before
        assert gallery.check() == []


def test_header_is_plain_json(folder: Path) -> None:
    header = json.loads((folder / "index.json").read_text())
    assert set(header) == {"schema", "digest", *FIELDS}
    assert header["recipe"] == ["auto", "", 0.99]


def test_a_changed_header_is_not_believed(folder: Path) -> None:
    header = json.loads((folder / "index.json").read_text())
    for name, value in (("fetch", 0), ("generation", 0), ("holes", [3]), ("recall", {"at_1": 1.0}), ("digest", "")):
        (folder / "index.json").write_text(json.dumps(header | {name: value}))
        with Gallery.open(folder) as gallery:
            assert "index.json" in gallery.check()[0]
            assert_answers(gallery, people(10))


@pytest.mark.parametrize(
    "change",
    [
        {"parameter": "speed=1"},
        {"parameter": "nprobe=many"},
        {"fetch": 10**9},
        {"error": -1.0},
        {"generation": 10**30},
        {"holes": [10**30]},
        {"holes": ["x"]},
    ],
)
def test_a_sealed_header_is_checked_too(folder: Path, change: dict[str, Any]) -> None:
    write_sealed(folder / "index.json", read_sealed(folder / "index.json") | change)
    with Gallery.open(folder) as gallery:
        assert "index." in gallery.check()[0]
        assert_answers(gallery, people(10))
