"""The folder of a TrackPool: an exact round trip, and whatever is damaged or foreign is one clear line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from facenet.encoders.encoder import Encoder
from facenet.errors import DataError
from facenet.files import read_sealed, write_sealed
from facenet.models.track_pool import TrackPool
from facenet.tracks.pool import read_track_pool, write_track_pool
from tests.helpers.encoders import make


def pooled(folder: Path, encoder: Encoder) -> TrackPool:
    pool = TrackPool(16, key_dim=4, num_features=8, seed=3)
    with torch.no_grad():
        pool.query.bias.fill_(0.5)
    options = {"key_dim": 4, "num_features": 8, "seed": 3}
    write_track_pool(pool, folder, encoder, options=options, training={"step": 7})
    return pool


def test_a_track_pool_round_trip_is_exact(tmp_path: Path) -> None:
    encoder = make()
    pool = pooled(tmp_path / "t", encoder)
    frames = torch.nn.functional.normalize(torch.randn(3, 5, 16), dim=-1)
    loaded = read_track_pool(tmp_path / "t", encoder)
    assert not loaded.training
    assert not loaded.step(frames[:, 0], loaded.start(3))[0].requires_grad, "a long stream would keep its graph"
    torch.testing.assert_close(loaded(frames), pool.eval()(frames), atol=0, rtol=0)
    assert json.loads((tmp_path / "t" / "track_pool.json").read_text())["training"] == {"step": 7}


def test_a_track_pool_from_before_there_was_a_bound_keeps_its_numbers(tmp_path: Path) -> None:
    encoder, options = make(), {"key_dim": 4, "num_features": 8, "features": "sincos", "seed": 3}
    frames = torch.nn.functional.normalize(torch.randn(3, 5, 16), dim=-1)
    for bounded, recorded in ((False, {}), (True, {"bounded": True})):
        pool = TrackPool(16, **options, bounded=bounded)  # type: ignore[arg-type]
        with torch.no_grad():
            pool.attention.log_temperature += 3  # type: ignore[operator]
        write_track_pool(pool, tmp_path / "t", encoder, options={**options, **recorded}, training={})
        torch.testing.assert_close(read_track_pool(tmp_path / "t", encoder)(frames), pool(frames), atol=0, rtol=0)


def test_a_track_pool_of_another_encoder_is_refused(tmp_path: Path) -> None:
    encoder, other = make(), make(seed=1)
    pooled(tmp_path / "t", encoder)
    with pytest.raises(DataError, match=other.fingerprint[:12]):
        read_track_pool(tmp_path / "t", other)


@pytest.mark.parametrize("spoil", ["weights", "no weights", "no record", "schema", "options", "features", "dim"])
def test_a_damaged_track_pool_is_one_clear_line(spoil: str, tmp_path: Path) -> None:
    encoder, folder = make(), tmp_path / "t"
    pooled(folder, encoder)
    record = read_sealed(folder / "track_pool.json")
    weights = folder / "track_pool.safetensors"
    if spoil == "weights":
        weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    elif spoil == "no weights":
        weights.unlink()
    elif spoil == "no record":
        (folder / "track_pool.json").unlink()
    else:
        changed = {
            "schema": {"schema": 9},
            "options": {"options": {"colour": "red"}},
            "features": {"options": {**record["options"], "features": "elou"}},
            "dim": {"dim": "wide"},
        }
        write_sealed(folder / "track_pool.json", {**record, **changed[spoil]})
    with pytest.raises(DataError) as raised:
        read_track_pool(folder, encoder)
    assert "\n" not in str(raised.value)


def test_a_track_pool_can_not_ask_for_more_memory_than_it_has(tmp_path: Path) -> None:
    encoder = make()
    pooled(tmp_path, encoder)
    record = read_sealed(tmp_path / "track_pool.json")
    for options in ({"num_features": 10**12}, {"key_dim": 10**9}):
        write_sealed(tmp_path / "track_pool.json", {**record, "options": {**record["options"], **options}})
        with pytest.raises(DataError, match=r"of another network|damaged"):
            read_track_pool(tmp_path, encoder)
