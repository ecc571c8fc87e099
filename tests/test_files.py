from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facenet.errors import DataError
from facenet.files import (
    atomic_write,
    explain_disk_errors,
    is_inside,
    read_array,
    read_cached_array,
    read_csv,
    read_json,
    read_sealed,
    remove_abandoned,
    sha256_file,
    write_cached_array,
    write_csv,
    write_json,
    write_sealed,
)
from tests.helpers import ROOT


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
    with pytest.raises(DataError, match="choose a folder you may write to"), explain_disk_errors(tmp_path):
        raise OSError(number, os.strerror(number))
    with pytest.raises(ConnectionError), explain_disk_errors(tmp_path):
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
            assert remove_abandoned(tmp_path, tmp_path / "none") == [], "both live"
            writer.kill()
            writer.wait()
        swept = remove_abandoned(tmp_path)
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
            assert len(remove_abandoned(tmp_path)) == 1
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


def test_a_sealed_object_comes_back_and_any_changed_field_is_noticed(tmp_path: Path) -> None:
    path, content = tmp_path / "a.json", {"b": [1, 2.5, None], "a": {"é": "x", "1e-3": 0.1}}
    write_sealed(path, content)
    assert read_sealed(path) == content
    text = path.read_text()
    path.write_text(json.dumps(json.loads(text), sort_keys=True))
    assert read_sealed(path) == content, "neither order nor blanks matter"
    for old, new in (("2.5", "2.6"), ("0.1", "0.10001"), ('"x"', '"y"'), ('"digest"', '"digesd"'), ("null", "NaN")):
        path.write_text(text.replace(old, new))
        with pytest.raises(DataError, match="SHA-256"):
            read_sealed(path)


def test_json_that_never_ends_or_is_too_deep_is_one_line(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "deep.json").write_text("[" * 200_000)
    (tmp_path / "digits.json").write_text('{"a": ' + "9" * 5000 + "}")
    (tmp_path / "folder.json").mkdir()
    for name in ("pipe.json", "deep.json", "digits.json", "folder.json", "a\0b.json"):
        with pytest.raises(DataError) as raised:
            read_json(tmp_path / name)
        assert "\n" not in str(raised.value)


def header(shape: Any, kind: str = "<f4") -> bytes:
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}"
    text += " " * (-(len(text) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY",
        b"PK\x03\x04 a zip of arrays",
        b"\x80\x04 a pickle",
        header((10**12,)) + bytes(16),
        header((-1, -4)) + bytes(16),
        header((4,)) + bytes(15),
        header((4,)) + bytes(17),
        header("(" * 3000),
        header("(4,"),
        header((1,), "|O") + bytes(8),
        header((4,), "<U1") + bytes(16),
    ],
)
def test_an_array_is_measured_before_it_is_read(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npy").write_bytes(content)
    for mode in (None, "r"):
        with pytest.raises(DataError, match=r"a\.npy: not readable as a NumPy array") as raised:
            read_array(tmp_path / "a.npy", mode=mode)  # type: ignore[arg-type]
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("array", [np.arange(6, dtype=np.float32).reshape(2, 3), np.zeros((0, 4)), np.array(True)])
def test_an_array_comes_back(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", array)
    for mode in (None, "r", "c"):
        np.testing.assert_array_equal(read_array(tmp_path / "a.npy", mode=mode), array)  # type: ignore[arg-type]


def test_a_kept_array_is_made_again_where_anything_is_off(tmp_path: Path) -> None:
    path, array = tmp_path / "a.npy", np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert read_cached_array(path, (3, 4), np.uint8) is None
    write_cached_array(path, array)
    np.testing.assert_array_equal(read_cached_array(path, (3, 4), np.uint8), array)
    assert read_cached_array(path, (4, 3), np.uint8) is None
    assert read_cached_array(path, (3, 4), np.int8) is None
    good = path.read_bytes()
    path.write_bytes(good[:-1] + b"\xff")
    assert read_cached_array(path, (3, 4), np.uint8) is None
    path.write_bytes(good)
    path.with_suffix(".json").unlink()
    assert read_cached_array(path, (3, 4), np.uint8) is None


def test_paths_that_leave_their_folder_are_told() -> None:
    assert all(map(is_inside, ("a", "a/b.jpg", "..a/b..", "a//b", "./a", "a\\b", "ä ö.png")))
    assert not any(map(is_inside, ("", ".", "/", "/a", "..", "../a", "a/..", "a/../../b", "a\0", "//a", "./.")))


def test_csv_comes_back_with_the_words_as_they_are(tmp_path: Path) -> None:
    words = ['Žofie, "Z"', "two\nlines", ""]
    write_csv(tmp_path / "a.csv", ("row", "word"), enumerate(words))
    assert [row["word"] for row in read_csv(tmp_path / "a.csv", ("word",), remedy="", whole=True)] == words
    assert (tmp_path / "a.csv").read_bytes().startswith(b'row,word\n0,"')
    with pytest.raises(UnicodeEncodeError):
        write_csv(tmp_path / "a.csv", ("row", "word"), [(0, "\udcff")])
    assert len(read_csv(tmp_path / "a.csv", remedy="")) == 3, "the old file is left as it was"
    write_csv(tmp_path / "a.csv", ("row", "word"), [(0, "\udcff")], errors="replace")
    assert read_csv(tmp_path / "a.csv", remedy="") == [{"row": "0", "word": "?"}]


def test_csv_of_others_is_read_as_far_as_the_caller_allows(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbfpath,identity\r\na.jpg\r\n\r\nb.jpg,B,more\r\n")
    assert read_csv(path, remedy="") == [{"path": "a.jpg", "identity": ""}, {"path": "b.jpg", "identity": "B"}]
    with pytest.raises(DataError, match=r"a\.csv: row 1 has 1 cells for 2 columns; mend it"):
        read_csv(path, remedy="mend it", whole=True)
    with pytest.raises(DataError, match=r"expected the columns path, fold; missing: fold; mend it"):
        read_csv(path, ("path", "fold"), remedy="mend it")
    path.write_bytes(b"path,\na,b\n")
    with pytest.raises(DataError, match=r"column 2 has no name; mend it"):
        read_csv(path, remedy="mend it", whole=True)


@pytest.mark.parametrize(
    ("content", "said"), [(None, "no such file"), (b"a\xff", "not readable as CSV"), ("", "not a file")]
)
def test_what_is_no_csv_is_one_line(tmp_path: Path, content: bytes | str | None, said: str) -> None:
    path = tmp_path / "a.csv"
    if content == "":
        path.mkdir()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(DataError, match=f"{said}.*; mend it$"):
        read_csv(path, remedy="mend it")
