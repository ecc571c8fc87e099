"""Two runs are equal only if every artefact is, bit for bit, apart from times, thread counts and folders."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from benchmarks.same_numbers import BadCall, array_difference, commands, compare, differences, leaves, read, read_call

HALF = np.nextafter(np.float32(0.5), np.float32(1))


def test_leaves_are_named_and_leave_out_times_and_threads() -> None:
    content = {"a": {"b": [1, {"c": None}], "seconds": 2.0, "embed_seconds": 1.0}, "threads": 4, "empty": {}}
    assert leaves(content) == {"a.b.0": 1, "a.b.1.c": None, "empty": {}}
    assert leaves({"images_per_second": 3, "per_second_limit": 1}) == {"per_second_limit": 1}


def test_each_difference_is_a_line() -> None:
    old = {"same": 0.1, "value": 1, "type": 1, "gone": 2, "nan": float("nan")}
    new = {"same": 0.1, "value": 2, "type": 1.0, "nan": float("nan"), "new": 3}
    expected = ["value: 1 -> 2", "type: 1 -> 1.0", "gone: only in old", "new: only in new"]
    assert differences(old, new) == expected


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (np.float32([0.5, 1]), np.float32([0.5, 1]), []),
        (np.float32([np.nan]), np.float32([np.nan]), []),
        (np.float32([0.5, 1]), np.float32([HALF, 1]), ["1 of 2 values differ, by at most 5.96e-08"]),
        (np.float32([1]), np.float64([1]), ["float32 (1,) -> float64 (1,)"]),
        (np.zeros((2, 1)), np.zeros((1, 2)), ["float64 (2, 1) -> float64 (1, 2)"]),
    ],
)
def test_arrays_are_compared_by_their_bytes(old: np.ndarray, new: np.ndarray, said: list[str]) -> None:
    assert array_difference(old, new) == said


def write_run(folder: Path, weight: float, accuracy: float, seconds: float) -> Path:
    out = folder / "quickstart"
    out.mkdir(parents=True)
    save_file({"w": np.float32([weight, 2])}, out / "encoder.safetensors")
    np.save(out / "vectors.npy", np.float32([[weight, 1]]))
    (out / "items.csv").write_text("row,path\n0,a.jpg\n")
    (out / "metrics.json").write_text(json.dumps({"accuracy": accuracy, "seconds": seconds, "run": str(folder)}))
    return folder


def test_runs_differ_in_their_artefacts_alone(tmp_path: Path) -> None:
    old = write_run(tmp_path / "old" / "first", 0.5, 0.9, 1.0)
    same = write_run(tmp_path / "same" / "first", 0.5, 0.9, 2.0)
    other = write_run(tmp_path / "other" / "first", float(HALF), 0.8, 1.0)
    (other / "quickstart" / "more.csv").write_text("row\n1\n")
    parts = commands(100, "")
    names = [f"quickstart/{name}" for name in ("encoder.safetensors", "items.csv", "metrics.json", "vectors.npy")]
    assert compare(old, same, parts) == {name: [] for name in names}
    found = compare(old, other, parts)
    assert found["quickstart/encoder.safetensors"] == ["w: 1 of 2 values differ, by at most 5.96e-08"]
    assert found["quickstart/metrics.json"] == ["accuracy: 0.9 -> 0.8"]
    assert len(found["quickstart/vectors.npy"]) == 1
    assert found["quickstart/items.csv"] == []
    assert found["quickstart/more.csv"] == ["only in new"]
    assert read(old / "quickstart" / "metrics.json", old)["run"] == "RUN"


def test_a_bad_call_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FACENET_LFW", raising=False)
    assert read_call(["old=a", "new=b", "steps=8"])["steps"] == "8"
    for wrong, said in {
        "step=8": "unknown option 'step'",
        "steps=3": "a whole number from 4",
        "again=yes": "expected true or false",
        f"lfw={tmp_path}": "no LFW tree",
    }.items():
        with pytest.raises(BadCall, match=said):
            read_call(["old=a", "new=b", wrong])
    with pytest.raises(BadCall, match="are needed"):
        read_call(["old=a"])
