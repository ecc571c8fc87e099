from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facenet.errors import DataError
from facenet.files import read_json
from facenet.reading import is_inside, keep_array, kept_array, read_array, read_sealed, write_sealed


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
    assert kept_array(path, (3, 4), np.uint8) is None
    keep_array(path, array)
    np.testing.assert_array_equal(kept_array(path, (3, 4), np.uint8), array)
    assert kept_array(path, (4, 3), np.uint8) is None
    assert kept_array(path, (3, 4), np.int8) is None
    good = path.read_bytes()
    path.write_bytes(good[:-1] + b"\xff")
    assert kept_array(path, (3, 4), np.uint8) is None
    path.write_bytes(good)
    path.with_suffix(".json").unlink()
    assert kept_array(path, (3, 4), np.uint8) is None


def test_paths_that_leave_their_folder_are_told() -> None:
    assert all(map(is_inside, ("a", "a/b.jpg", "..a/b..", "a//b", "./a", "a\\b", "ä ö.png")))
    assert not any(map(is_inside, ("", ".", "/", "/a", "..", "../a", "a/..", "a/../../b", "a\0", "//a", "./.")))
