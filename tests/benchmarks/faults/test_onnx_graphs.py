"""Hostile ONNX files: each is refused or answered in time and memory, and the campaign sees what would not be."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.faults import onnx_graphs as room
from benchmarks.faults.onnx_graphs import ATTACKS, attacks, played
from benchmarks.faults.tiny import tiny_encoder, tiny_net
from facenet.encoders import lookup as encoders
from facenet.encoders import onnx_apart
from facenet.encoders.onnx_file import seal
from facenet.errors import DataError
from facenet.export.onnx import record

pytest.importorskip("onnx")


@pytest.mark.parametrize(
    ("attack", "said"),
    [
        ("loop", "loops or branches"),
        ("functions", "it has functions"),
        ("many_nodes", "more than 200000 parts"),
        ("nan", "not of unit length"),
        ("zeros", "not of unit length"),
        ("ones", "one vector to two images"),
        ("claims_more", "can not read the model"),
    ],
)
def test_what_is_refused_says_why(attack: str, said: str, tmp_path: Path) -> None:
    with tiny_net():
        told = record(tiny_encoder())
    (tmp_path / "a.onnx").write_bytes(seal(ATTACKS[attack](0), told))
    with pytest.raises(DataError, match=said) as raised:
        encoders.load(tmp_path / "a.onnx").embed(room.PICTURES)
    assert "\n" not in str(raised.value)


def test_a_file_that_takes_long_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "SECONDS", 0.0)
    found = room.play(str(tmp_path), 1, 0, onnx_apart.SECONDS)
    assert found["slow"] == found["files"] == 1


def test_every_attack_is_played(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ATTACKS:
        monkeypatch.setitem(room.ATTACKS, name, lambda seed: b"")
    assert {name for name, _ in attacks(60, 0)} == {*ATTACKS} - {"none"}


@pytest.mark.slow  # some attacks run until they are stopped
def test_every_attack_ends_in_time(tmp_path: Path) -> None:
    found = played(tmp_path, 2 * len(ATTACKS), seconds=3.0)
    assert {name: found[name] for name in ("crashes", "slow", "large")} == {"crashes": 0, "slow": 0, "large": 0}


def test_a_record_of_endless_vectors_is_refused(tmp_path: Path) -> None:
    with tiny_net():
        told = record(tiny_encoder())
    told["model"] = {**told["model"], "options": {**told["model"]["options"], "embedding_dim": 10**8}}
    (tmp_path / "a.onnx").write_bytes(seal(ATTACKS["none"](0), told))
    with pytest.raises(DataError, match="embedding_dim 100000000, at most 65536 are allowed"):
        encoders.load(tmp_path / "a.onnx")
