"""The faults of checkpoints in short: nothing lost, and the campaign itself sees a loss where there is one."""

from __future__ import annotations

import contextlib
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.faults import checkpoints as room
from benchmarks.faults.checkpoints import number_of, run
from benchmarks.faults.options import CheckpointFaults
from facenet.errors import DataError
from facenet.training.checkpoints import AtomicCheckpointIO


@pytest.mark.slow  # a short campaign; its outcomes are tested below in every run
def test_a_short_campaign_finds_nothing_lost() -> None:
    result = run(CheckpointFaults(kills=6, full_disks=3, read_only=2), temporary="/dev/shm", folder="/tmp")
    kills = result["checkpoint_kills"]
    assert kills["saved"] >= 6
    assert {kills[name] for name in ("lost", "unreadable", "leaked_files")} == {0}
    full, closed = result["checkpoint_full_disks"], result["checkpoint_read_only"]
    assert full.pop("by_tmpfs") + full.pop("by_file_size_limit") == 3
    assert full == {"full_disks": 3, "changed": 0, "unclear": 0, "leaked_files": 0}
    assert closed == {"read_only": 2, "changed": 0, "unclear": 0, "leaked_files": 0}


def test_without_a_mount_a_file_may_not_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextlib.contextmanager
    def none(place: Path) -> Iterator[bool]:
        yield False

    monkeypatch.setattr(room, "small_disk", none)
    full = run(CheckpointFaults(kills=0, full_disks=3, read_only=0))["checkpoint_full_disks"]
    assert full == {
        "full_disks": 3, "changed": 0, "unclear": 0, "leaked_files": 0, "by_tmpfs": 0, "by_file_size_limit": 3,
    }  # fmt: skip


def test_a_lost_or_cut_checkpoint_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    kill = room.kill_writer

    def lossy(path: Path, first: int, rng: random.Random, **options: str) -> int:
        last = kill(path, first, rng, **options)
        if first < 1000:
            AtomicCheckpointIO().save_checkpoint(room.checkpoint(last - 1, 1 << 10), path)
        else:
            path.write_bytes(path.read_bytes()[:-100])
            (path.parent / "left").touch()
        return last

    monkeypatch.setattr(room, "kill_writer", lossy)
    kills = run(CheckpointFaults(kills=2, full_disks=0, read_only=0))["checkpoint_kills"]
    assert (kills["lost"], kills["unreadable"], kills["leaked_files"]) == (1, 1, 1)


def test_what_is_written_over_the_old_one_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    save, saved = AtomicCheckpointIO.save_checkpoint, []

    def plain(self: AtomicCheckpointIO, checkpoint: dict[str, object], path: Path) -> None:
        if saved:
            path.write_bytes(b"")
        saved.append(True)
        save(self, checkpoint, path)

    monkeypatch.setattr(AtomicCheckpointIO, "save_checkpoint", plain)
    assert run(CheckpointFaults(kills=0, full_disks=2, read_only=0))["checkpoint_full_disks"]["changed"] == 2


def test_a_checkpoint_of_two_halves_is_none(tmp_path: Path) -> None:
    content = room.checkpoint(3, 1 << 10)
    AtomicCheckpointIO().save_checkpoint(content, tmp_path / "a.ckpt")
    assert number_of(tmp_path / "a.ckpt") == 3
    content["values"][5] += 1
    AtomicCheckpointIO().save_checkpoint(content, tmp_path / "a.ckpt")
    with pytest.raises(DataError, match="not of one checkpoint"):
        number_of(tmp_path / "a.ckpt")


def test_a_signal_reaches_a_child_at_its_start() -> None:
    """It ends by the signal's default, not by the handlers of this process."""
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
        child = room.Child(lambda report: time.sleep(60))
        child.send(signum)
        assert child.end()[0] == -signum, child.errors
