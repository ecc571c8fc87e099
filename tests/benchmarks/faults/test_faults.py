"""Every part of the campaign is called with its counts, and its counts are shown."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import faults
from benchmarks.faults import PARTS, run, tables
from facenet.errors import ConfigError


def test_every_part_gets_its_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []

    def room(name: str) -> Any:
        def play(**options: Any) -> dict[str, dict[str, int]]:
            asked.append((name.removeprefix("benchmarks.faults."), options))
            return {"kills": {"lost": len(asked)}}

        return SimpleNamespace(run=play)

    monkeypatch.setattr(faults, "import_module", room)
    result = run(resume={"cuts": 2}, folder="f", temporary="t", seed=3)
    rest = {"folder": "f", "temporary": "t", "seed": 3}
    assert [name for name, _ in asked] == list(PARTS.values())
    assert [options for _, options in asked] == [rest, {"cuts": 2, **rest}, rest, rest]
    assert [rows for _, _, rows in tables(result)] == [[("kills", "lost", n)] for n in range(1, 5)]
    asked.clear()
    assert list(run(parts=["files"], files={"pickles": 1})["seconds"]) == ["files"]
    assert asked == [("files", {"pickles": 1, "folder": "", "temporary": "", "seed": 0})]


def test_an_unknown_part_is_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean 'files'"):
        run(parts=["file"])
