"""What can happen to a file: bytes lost, flipped or put in, and JSON whose fields are swapped, huge, deep or none.

Everything is drawn from a generator, so that a seed names a mutation.
"""

from __future__ import annotations

import contextlib
import json
import random
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.gallery import corrupted

DEEP = 100_000  # brackets
RAW = {"@deep@": "[" * DEEP + "]" * DEEP, "@open@": '{"a":' * DEEP, "@inf@": "1e999", "@digits@": "9" * 5000}
VALUES: tuple[Any, ...] = (
    None,
    True,
    "",
    "text",
    [],
    {},
    0,
    -1,
    1.5,
    10**9,
    10**12,
    10**19,
    10**400,
    float("nan"),
    float("inf"),
    [1, "two", None],
    "../../outside",
    "/etc/passwd",
    "https://example.org/x",
    "a\0b",
    "\ud800",
    *RAW,
)


def mutated(name: str, content: bytes, rng: random.Random) -> bytes:
    """Return a changed copy of a file; of JSON mostly one that is still JSON, of SQLite often one that still is."""
    if name.endswith(".sqlite") and rng.random() < 0.5:
        return _other_tables(content, rng)
    if name.endswith(".json") and rng.random() < 0.6:
        return json_text(changed(json.loads(content), rng))
    return corrupted(content, rng)


def changed(value: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """Return a copy of a JSON object with a field set to something else, dropped, doubled in a list, or swapped."""
    value = json.loads(json.dumps(value))
    places = list(_places(value))
    parent, key = rng.choice(places)
    kind = rng.randrange(6)
    if kind == 0:
        del parent[key]
    elif kind == 1:
        other, name = rng.choice(places)
        parent[key], other[name] = other[name], parent[key]
    elif kind == 2 and isinstance(parent[key], int | float):
        parent[key] = rng.choice((parent[key] + 1, -parent[key], parent[key] * 10, str(parent[key])))
    elif kind == 3 and isinstance(parent[key], list):
        parent[key] = 2 * parent[key]
    else:
        parent[key] = rng.choice(VALUES)
    return value if _grows_not(value) else {}


def json_text(value: Any) -> bytes:
    """Write JSON as it should not be written: NaN, infinity, numbers of 5,000 digits, brackets 100,000 deep."""
    text = json.dumps(value)
    for name, raw in RAW.items():
        text = text.replace(f'"{name}"', raw)
    return text.encode()


def _other_tables(content: bytes, rng: random.Random) -> bytes:
    """Set a cell of some table to something else, or drop, add or empty a table."""
    values = [*range(-1, 3), 1 << 62, 1.5, "", "text", "../../outside", b"", b"\0" * 64, "[" * 1000]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "items.sqlite"
        path.write_bytes(content)
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
            tables = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
            table = rng.choice(tables)
            column = rng.choice([row[1] for row in db.execute(f"PRAGMA table_info({table})")])
            statements = [
                f"DELETE FROM {table}",
                f"DROP TABLE {table}",
                f"ALTER TABLE {table} RENAME COLUMN {column} TO other",
                "CREATE TABLE other (x)",
                "CREATE TRIGGER other AFTER INSERT ON items BEGIN DELETE FROM items; END",
                f"CREATE VIEW other AS SELECT * FROM {table}",
            ]
            with contextlib.suppress(sqlite3.Error):
                if rng.random() < 0.3:
                    db.execute(rng.choice(statements))
                else:
                    row = f"(SELECT rowid FROM {table} LIMIT 1 OFFSET {rng.randrange(5)})"
                    db.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = {row}", (rng.choice(values),))
        return path.read_bytes()


def _places(value: Any) -> list[tuple[Any, Any]]:
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [place for key in keys for place in ((value, key), *_places(value[key]))]


def _grows_not(value: Any) -> bool:
    """Whether no part was put into itself by a swap."""
    try:
        json.dumps(value)
    except (ValueError, RecursionError):
        return False
    return True
