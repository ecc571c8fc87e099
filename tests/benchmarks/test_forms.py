"""The forms of a set at a small size: the same batches and weights from each, and a difference is seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import forms as room
from benchmarks.forms import PACKED, WAYS, Options, run, tables
from facenet.errors import ConfigError
from tests.helpers.sets import faces, write_folder

FORMS = ("folder", "recordio", "tar", "zip", "parquet")


def options(root: Path, **changes: Any) -> Options:
    write_folder(root, faces(16, 4))
    small: dict[str, Any] = {"steps": 3, "batch_size": 20, "size": 32, "crop": 1.0, "faces": 30, "repeats": 1}
    return Options(root=str(root), workers=1, **small | changes)


def test_every_form_trains_the_same_weights(tmp_path: Path) -> None:
    result = run(options(tmp_path / "faces", forms=FORMS))
    assert set(result["trained"]) == {*FORMS, PACKED}
    assert result["same"]
    for name in ("rows", "pixels", "weights"):
        assert len({one[name] for one in result["trained"].values()}) == 1, name
    for form in FORMS:
        assert result["sets"][form]["images"] == 64
        assert set(result["speed"][form]) == set(WAYS)
        assert all(0 < one["least"] <= one["faces_per_second"] <= one["most"] for one in result["speed"][form].values())
    assert [len(row) for _, header, rows in tables(result) for row in rows if len(row) != len(header)] == []


@pytest.mark.slow  # three trainings
def test_a_form_in_another_order_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = room.sets.write_tar
    monkeypatch.setattr(room.sets, "write_tar", lambda path, people, **form: write(path, _exchanged(people), **form))
    result = run(options(tmp_path / "faces", forms=("folder", "tar")))
    assert not result["same"]
    assert "NOT the same" in tables(result)[1].title


def _exchanged(people: Any) -> Any:
    """The first two pictures under each other's names."""
    first, second, *others = people
    return [first._replace(picture=second.picture), second._replace(picture=first.picture), *others]


def test_mistakes_are_one_line() -> None:
    with pytest.raises(ConfigError, match=r"benchmark\.forms: unknown name 'lmdb'"):
        run(Options(forms=("folder", "lmdb")))
