from __future__ import annotations

import contextlib
import json
import random
import sqlite3
from pathlib import Path

from benchmarks.faults.kinds import KINDS
from benchmarks.faults.mutate import DEEP, changed, json_text, mutated

RECORD = {"a": 1, "b": {"c": [1, 2.5], "d": "x"}, "e": None}


def test_json_is_changed_in_many_ways_and_the_seed_names_them() -> None:
    text = json.dumps(RECORD).encode()
    made = [mutated("a.json", text, random.Random(seed)) for seed in range(300)]
    assert made == [mutated("a.json", text, random.Random(seed)) for seed in range(300)]
    assert len(set(made)) > 150
    assert sum(one != text for one in made) > 280
    parsed = [one for one in made if one.startswith(b"{") and len(one) < 5000 and _is_json(one)]
    assert len(parsed) > 100, "much of it still is JSON"
    assert any(b"NaN" in one for one in made)
    assert any(len(one) > DEEP for one in made)


def _is_json(content: bytes) -> bool:
    with contextlib.suppress(ValueError):
        return bool(json.loads(content)) or True
    return False


def test_a_change_leaves_the_original_alone() -> None:
    before = json.dumps(RECORD)
    for seed in range(200):
        json_text(changed(RECORD, random.Random(seed)))
    assert json.dumps(RECORD) == before


def test_a_gallery_is_changed_inside_its_tables_too(tmp_path: Path) -> None:
    KINDS["galleries"].make(tmp_path)
    content = (tmp_path / "items.sqlite").read_bytes()
    layouts = set()
    for seed in range(60):
        (tmp_path / "other.sqlite").write_bytes(mutated("items.sqlite", content, random.Random(seed)))
        with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(tmp_path / "other.sqlite")) as db:
            layouts.add(str(db.execute("SELECT name, sql FROM sqlite_master").fetchall()))
    assert len(layouts) > 3
