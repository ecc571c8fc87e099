from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from facenet.errors import DataError
from facenet.files import atomic_write, clear_errors, read_json, sha256_file, sweep, write_json
from tests.conftest import ROOT


def test_an_error_leaves_the_old_file_and_no_temporary(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")

    def broken() -> None:
        with atomic_write(target) as file:
            file.write(b"half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        broken()
    assert target.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_a_reader_sees_the_old_file_until_the_end(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")
    with atomic_write(target) as file:
        file.write(b"new")
        file.flush()
        assert target.read_bytes() == b"old"
    assert target.read_bytes() == b"new"
    assert target.stat().st_mode & 0o044, "readable like an ordinary file"


def test_a_full_disk_is_one_clear_line(tmp_path: Path) -> None:
    def fill() -> None:
        with atomic_write(tmp_path / "a.bin"):
            raise OSError(28, "No space left on device")

    with pytest.raises(DataError, match=r"a\.bin: writing failed \(No space left on device\)"):
        fill()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_what_a_disk_refuses_is_one_clear_line(number: int, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="choose a folder you may write to"), clear_errors(tmp_path):
        raise OSError(number, os.strerror(number))
    with pytest.raises(ConnectionError), clear_errors(tmp_path):
        raise ConnectionResetError(errno.ECONNRESET, "reset")


WRITER = """
import sys, time
from facenet.files import atomic_write
with atomic_write(sys.argv[1]) as file:
    file.write(b"half")
    file.flush()
    print("writing", flush=True)
    time.sleep(60)
"""


def test_what_killed_writers_left_is_swept_and_that_of_living_ones_is_not(tmp_path: Path) -> None:
    own = tmp_path / ".mine.tmp"  # not of atomic_write
    own.write_bytes(b"")
    line = [sys.executable, "-c", WRITER, str(tmp_path / "a.bin")]
    with atomic_write(tmp_path / "b.bin") as living:
        with subprocess.Popen(line, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"writing\n"
            assert sweep(tmp_path, tmp_path / "none") == [], "both live"
            writer.kill()
            writer.wait()
        swept = sweep(tmp_path)
        assert [path.name.split(".")[1] for path in swept] == ["a"]
        assert sorted(tmp_path.iterdir()) == sorted([own, Path(living.name)])
    assert sorted(path.name for path in tmp_path.iterdir()) == [".mine.tmp", "b.bin"]


def test_a_temporary_file_that_is_swept_before_its_lock_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, made = tempfile.mkstemp, []

    def swept(**options: Any) -> tuple[int, str]:
        made.append(make(**options))
        if len(made) == 1:
            assert len(sweep(tmp_path)) == 1
        return made[-1]

    monkeypatch.setattr(tempfile, "mkstemp", swept)
    with atomic_write(tmp_path / "a.bin") as file:
        file.write(b"new")
    assert len(made) == 2
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"new"]


def test_json_round_trip_and_errors(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"a": [1, "é"]})
    assert read_json(tmp_path / "x.json") == {"a": [1, "é"]}
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert read_json(tmp_path / "x.json") == {"a": [1, "é"]}
    for text in ("{", "[1]", "\x00"):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(DataError, match=r"bad\.json"):
            read_json(tmp_path / "bad.json")
    with pytest.raises(DataError, match="no such file"):
        read_json(tmp_path / "none.json")


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    assert sha256_file(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
