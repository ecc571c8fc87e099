"""Every part of the campaign is called with its counts, and its counts are shown."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import faults
from benchmarks.faults import PARTS, Options, run, tables
from benchmarks.faults.options import FileFaults, ResumeFaults
from facenet.errors import ConfigError


def test_every_part_gets_its_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def part(name: str) -> Any:
        def play(counts: Any, **place: Any) -> dict[str, dict[str, int]]:
            asked[name.removeprefix("benchmarks.faults.")] = (counts, place)
            return {"kills": {"lost": len(asked)}}

        return SimpleNamespace(run=play)

    monkeypatch.setattr(faults, "import_module", part)
    result = run(Options(resume=ResumeFaults(cuts=2), folder="f", temporary="t", seed=3))
    assert tuple(asked) == PARTS
    assert asked["resume"] == (ResumeFaults(cuts=2, terms=10), {"folder": "f", "temporary": "t", "seed": 3})
    assert [rows for _, _, rows in tables(result)] == [[("kills", "lost", n)] for n in range(1, len(PARTS) + 1)]
    asked.clear()
    assert list(run(Options(parts=("files",), files=FileFaults(pickles=1)))["seconds"]) == ["files"]
    assert asked == {"files": (FileFaults(pickles=1), {"folder": "", "temporary": "", "seed": 0})}


def test_an_unknown_part_is_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean 'files'"):
        Options(parts=("file",))
