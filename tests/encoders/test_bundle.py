from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from facenet.data.preprocess import Preprocess
from facenet.encoders import bundle
from facenet.encoders.bundle import Encoder
from facenet.errors import ConfigError, DataError
from facenet.files import read_sealed, write_sealed
from facenet.models.linear_attention import TrackPool
from tests.conftest import blob
from tests.helpers.encoders import OPTIONS, make


def test_round_trip_is_exact(tmp_path: Path) -> None:
    encoder = make()
    encoder.thresholds, encoder.compatible_with, encoder.training = {0.001: 1.1, 0.01: 1.3}, ["a" * 64], {"seed": 1}
    bundle.save(encoder, tmp_path / "e")
    loaded = bundle.load(tmp_path / "e")
    images = np.stack([blob(i, 0) for i in range(3)])
    np.testing.assert_array_equal(loaded.embed(images), encoder.embed(images))
    assert loaded.fingerprint == encoder.fingerprint
    assert (loaded.thresholds, loaded.compatible_with, loaded.training) == (
        {0.001: 1.1, 0.01: 1.3},
        ["a" * 64],
        {"seed": 1},
    )
    assert loaded.preprocess == encoder.preprocess
    assert loaded.dim == 16


def test_embeddings_are_unit_and_ignore_batch_mates() -> None:
    encoder = make()
    images = np.stack([blob(i, 0) for i in range(5)])
    together = encoder.embed(images)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    alone = np.concatenate([encoder.embed(images[i : i + 1]) for i in range(5)])
    np.testing.assert_allclose(alone, together, atol=1e-5)
    np.testing.assert_allclose(encoder.embed(images, batch_size=2), together, atol=1e-5)
    assert encoder.embed([]).shape == (0, 16)
    np.testing.assert_allclose(encoder.embed(images[:, :, ::-1]), together, atol=1e-5, err_msg="mirror-averaged")
    plain = make(mirror=False)
    assert np.abs(plain.embed(images[:, :, ::-1]) - plain.embed(images)).max() > 1e-3


def test_fingerprint_covers_weights_options_preprocessing_and_nothing_else() -> None:
    base = make()
    assert make().fingerprint == base.fingerprint
    assert make(seed=1).fingerprint != base.fingerprint
    assert make(crop=0.9).fingerprint != base.fingerprint
    assert Encoder(base.model, "small", {**OPTIONS, "dropout": 0.2}, base.preprocess).fingerprint != base.fingerprint
    calibrated = Encoder(base.model, "small", OPTIONS, base.preprocess, {0.1: 1.0}, ["x"], {"y": 1})
    assert calibrated.fingerprint == base.fingerprint


def test_damage_is_noticed(tmp_path: Path) -> None:
    bundle.save(make(), tmp_path)
    good = (tmp_path / "encoder.safetensors").read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(40):
        data = bytearray(good)
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        (tmp_path / "encoder.safetensors").write_bytes(bytes(data))
        with pytest.raises(DataError):
            bundle.load(tmp_path)
    (tmp_path / "encoder.safetensors").write_bytes(good[:1000])
    with pytest.raises(DataError, match="damaged"):
        bundle.load(tmp_path)
    (tmp_path / "encoder.safetensors").unlink()
    with pytest.raises(DataError, match="no such file"):
        bundle.load(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 99},
        {"model": {"name": "nope", "options": {}}},
        {"preprocessing": {}},
        {"thresholds": 3},
        {"fingerprint": "0"},
    ],
)
def test_a_foreign_record_is_one_clear_error(tmp_path: Path, change: dict[str, object]) -> None:
    bundle.save(make(), tmp_path)
    sealed(tmp_path, **change)
    with pytest.raises(DataError, match=str(tmp_path)):
        bundle.load(tmp_path)


def test_missing_folder_device_and_threshold(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such encoder folder"):
        bundle.load(tmp_path / "none")
    with pytest.raises(ConfigError, match="can not be used here"):
        bundle.pick_device("gpu7")
    encoder = make()
    encoder.thresholds = {0.01: 1.2}
    assert encoder.threshold(0.01) == 1.2
    with pytest.raises(DataError, match=r"far=0\.001 \(calibrated: 0\.01\)"):
        encoder.threshold(0.001)


def test_saving_a_record_leaves_the_weights_alone(tmp_path: Path) -> None:
    encoder = make()
    bundle.save(encoder, tmp_path)
    stamp = (tmp_path / "encoder.safetensors").stat().st_mtime_ns
    encoder.thresholds = {0.1: 0.9}
    bundle.save_record(encoder, tmp_path)
    assert (tmp_path / "encoder.safetensors").stat().st_mtime_ns == stamp
    assert bundle.load(tmp_path).thresholds == {0.1: 0.9}


def pooled(folder: Path, encoder: Encoder) -> TrackPool:
    pool = TrackPool(16, key_dim=4, num_features=8, seed=3)
    with torch.no_grad():
        pool.query.bias.fill_(0.5)
    options = {"key_dim": 4, "num_features": 8, "seed": 3}
    bundle.save_track_pool(pool, folder, encoder, options=options, training={"step": 7})
    return pool


def test_a_track_pool_round_trip_is_exact(tmp_path: Path) -> None:
    encoder = make()
    pool = pooled(tmp_path / "t", encoder)
    frames = torch.nn.functional.normalize(torch.randn(3, 5, 16), dim=-1)
    loaded = bundle.load_track_pool(tmp_path / "t", encoder)
    assert not loaded.training
    assert not loaded.step(frames[:, 0], loaded.start(3))[0].requires_grad, "a long stream would keep its graph"
    torch.testing.assert_close(loaded(frames), pool.eval()(frames), atol=0, rtol=0)
    assert json.loads((tmp_path / "t" / "track_pool.json").read_text())["training"] == {"step": 7}


def test_a_track_pool_of_another_encoder_is_refused(tmp_path: Path) -> None:
    encoder, other = make(), make(seed=1)
    pooled(tmp_path / "t", encoder)
    with pytest.raises(DataError, match=other.fingerprint[:12]):
        bundle.load_track_pool(tmp_path / "t", other)


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
        bundle.load_track_pool(folder, encoder)
    assert "\n" not in str(raised.value)


def sealed(folder: Path, **changes: object) -> None:
    record = read_sealed(folder / "encoder.json")
    write_sealed(folder / "encoder.json", {**record, **changes})


@pytest.mark.parametrize("change", ['"0.01": 1.3', '"seed": 1', "aaaaaa"])
def test_a_changed_record_is_noticed_where_no_fingerprint_covers_it(tmp_path: Path, change: str) -> None:
    encoder = make()
    encoder.thresholds, encoder.compatible_with, encoder.training = {0.01: 1.3}, ["a" * 64], {"seed": 1}
    bundle.save(encoder, tmp_path)
    text = (tmp_path / "encoder.json").read_text()
    (tmp_path / "encoder.json").write_text(text.replace(change, change[:-1] + "7", 1))
    assert (tmp_path / "encoder.json").read_text() != text
    with pytest.raises(DataError, match=r"encoder\.json: its SHA-256"):
        bundle.load(tmp_path)


@pytest.mark.parametrize(
    "options",
    [
        {"embedding_dim": 10**9},
        {"embedding_dim": 10**19},
        {"embedding_dim": "16"},
        {"attention": {"after": "conv1", "num_features": 10**12}},
        {"attention": {"after": "conv1", "num_features": 10**12, "orthogonal": False}},
        {"pool": "attention", "attention": {"queries": 10**9}},
        {"pool": "flatten", "input_size": [10**6, 10**6]},
    ],
)
def test_a_record_can_not_ask_for_more_memory_than_the_weights_take(tmp_path: Path, options: dict[str, object]) -> None:
    bundle.save(make(), tmp_path)
    sealed(tmp_path, model={"name": "small", "options": {**OPTIONS, **options}})
    started = time.perf_counter()
    with pytest.raises(DataError) as raised:
        bundle.load(tmp_path)
    assert "\n" not in str(raised.value)
    assert time.perf_counter() - started < 30, "it was drawn"


@pytest.mark.parametrize(
    "change",
    [
        {"thresholds": {"0.01": 5.0}},
        {"thresholds": {"0.01": -1}},
        {"thresholds": {"2": 1.0}},
        {"thresholds": {"0.01": 10**400}},
        {"compatible_with": "ab"},
        {"compatible_with": [1]},
        {"training": []},
        {"preprocessing": {**Preprocess(size=(32, 32)).to_dict(), "size": [10**9, 10**9]}},
        {"preprocessing": {**Preprocess(size=(32, 32)).to_dict(), "std": [1, 1]}},
        {"preprocessing": {**Preprocess(size=(32, 32)).to_dict(), "mirror": "no"}},
    ],
)
def test_numbers_out_of_range_are_refused_whatever_the_sum(tmp_path: Path, change: dict[str, object]) -> None:
    bundle.save(make(), tmp_path)
    sealed(tmp_path, **change)
    with pytest.raises(DataError, match=r"damaged|not a usable encoder") as raised:
        bundle.load(tmp_path)
    assert "\n" not in str(raised.value)


def test_tensors_of_another_type_are_refused(tmp_path: Path) -> None:
    encoder = make()
    encoder.model.double()
    bundle.save(encoder, tmp_path)
    with pytest.raises(DataError, match=r"is float64 .* its record asks for float32"):
        bundle.load(tmp_path)


def test_a_track_pool_can_not_ask_for_more_memory_than_it_has(tmp_path: Path) -> None:
    encoder = make()
    pooled(tmp_path, encoder)
    record = read_sealed(tmp_path / "track_pool.json")
    for options in ({"num_features": 10**12}, {"key_dim": 10**9}):
        write_sealed(tmp_path / "track_pool.json", {**record, "options": {**record["options"], **options}})
        with pytest.raises(DataError, match=r"of another network|damaged"):
            bundle.load_track_pool(tmp_path, encoder)
