"""The gallery's faults in short: nothing lost, and the campaign itself sees a loss where there is one."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from benchmarks import gallery as room
from benchmarks.gallery import Options, corrupted, run, tables
from facenet.gallery.gallery import Gallery


@pytest.mark.slow  # processes that are killed; what would be seen is tested below in every run
def test_a_short_campaign_finds_nothing_lost() -> None:
    result = run(Options(kills=3, full_disks=2, read_only=1, corruptions=5, strings=0, temporary="/dev/shm"))
    kills = result["kills"]
    assert kills["writes_acknowledged"] > 3
    assert {kills[name] for name in ("lost", "half_written", "unreadable", "wrong_answers")} == {0}
    assert result["full_disks"] == {"full_disks": 2, "changed": 0, "unclear": 0}
    assert result["read_only"] == {"read_only": 1, "changed": 0, "unclear": 0}
    assert result["corruptions"] == {"corruptions": 5, "detected": 5, "rebuilt": 5, "served_wrong": 0}
    assert [len(row) for _, header, rows in tables(result) for row in rows if len(row) != len(header)] == []


def test_a_lost_face_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kill = room.kill_writer

    def lossy(folder: Path, *arguments: object, **options: object) -> list[str]:
        lines = kill(folder, *arguments, **options)
        with Gallery.open(folder) as opened:
            opened.remove(lines[0].split()[1])  # of the first batch, which was acknowledged
        return lines

    monkeypatch.setattr(room, "kill_writer", lossy)
    options = Options(kills=1, full_disks=0, read_only=0, corruptions=0, strings=0, folder=str(tmp_path))
    assert run(options)["kills"]["lost"] == 1


def test_a_corrupted_copy_is_never_the_same() -> None:
    rng, content = random.Random(0), bytes(100) + b"x" + bytes(100)
    copies = [corrupted(content, rng) for _ in range(300)]
    assert all(copy != content for copy in copies)
    assert len({len(copy) for copy in copies}) > 10
