"""The folder of an encoder: an exact round trip, and whatever is damaged or foreign is one clear line."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch

from facenet.data.preprocess import Preprocess
from facenet.encoders.bundle import load_bundle, pick_device, save_bundle
from facenet.encoders.record import write_record
from facenet.errors import ConfigError, DataError
from facenet.files import read_sealed, write_sealed
from tests.helpers.encoders import OPTIONS, make
from tests.helpers.pictures import blob


def test_round_trip_is_exact(tmp_path: Path) -> None:
    encoder = make()
    encoder.thresholds, encoder.compatible_with, encoder.training = {0.001: 1.1, 0.01: 1.3}, ["a" * 64], {"seed": 1}
    save_bundle(encoder, tmp_path / "e")
    loaded = load_bundle(tmp_path / "e")
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


def test_damage_is_noticed(tmp_path: Path) -> None:
    save_bundle(make(), tmp_path)
    good = (tmp_path / "encoder.safetensors").read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(16):
        data = bytearray(good)
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        (tmp_path / "encoder.safetensors").write_bytes(bytes(data))
        with pytest.raises(DataError):
            load_bundle(tmp_path)
    (tmp_path / "encoder.safetensors").write_bytes(good[:1000])
    with pytest.raises(DataError, match="damaged"):
        load_bundle(tmp_path)
    (tmp_path / "encoder.safetensors").unlink()
    with pytest.raises(DataError, match="no such file"):
        load_bundle(tmp_path)


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
    save_bundle(make(), tmp_path)
    sealed(tmp_path, **change)
    with pytest.raises(DataError, match=str(tmp_path)):
        load_bundle(tmp_path)


def test_missing_folder_and_device(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such encoder folder"):
        load_bundle(tmp_path / "none")
    with pytest.raises(ConfigError, match="can not be used here"):
        pick_device("gpu7")


def test_saving_a_record_leaves_the_weights_alone(tmp_path: Path) -> None:
    encoder = make()
    save_bundle(encoder, tmp_path)
    stamp = (tmp_path / "encoder.safetensors").stat().st_mtime_ns
    encoder.thresholds = {0.1: 0.9}
    write_record(encoder, tmp_path)
    assert (tmp_path / "encoder.safetensors").stat().st_mtime_ns == stamp
    assert load_bundle(tmp_path).thresholds == {0.1: 0.9}


def sealed(folder: Path, **changes: object) -> None:
    record = read_sealed(folder / "encoder.json")
    write_sealed(folder / "encoder.json", {**record, **changes})


@pytest.mark.parametrize("change", ['"0.01": 1.3', '"seed": 1', "aaaaaa"])
def test_a_changed_record_is_noticed_where_no_fingerprint_covers_it(tmp_path: Path, change: str) -> None:
    encoder = make()
    encoder.thresholds, encoder.compatible_with, encoder.training = {0.01: 1.3}, ["a" * 64], {"seed": 1}
    save_bundle(encoder, tmp_path)
    text = (tmp_path / "encoder.json").read_text()
    (tmp_path / "encoder.json").write_text(text.replace(change, change[:-1] + "7", 1))
    assert (tmp_path / "encoder.json").read_text() != text
    with pytest.raises(DataError, match=r"encoder\.json: its SHA-256"):
        load_bundle(tmp_path)


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
    save_bundle(make(), tmp_path)
    sealed(tmp_path, model={"name": "small", "options": {**OPTIONS, **options}})
    started = time.perf_counter()
    with pytest.raises(DataError) as raised:
        load_bundle(tmp_path)
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
    save_bundle(make(), tmp_path)
    sealed(tmp_path, **change)
    with pytest.raises(DataError, match=r"damaged|not a usable encoder") as raised:
        load_bundle(tmp_path)
    assert "\n" not in str(raised.value)


def test_tensors_of_another_type_are_refused(tmp_path: Path) -> None:
    encoder = make()
    encoder.model.double()
    save_bundle(encoder, tmp_path)
    with pytest.raises(DataError, match=r"is float64 .* its record asks for float32"):
        load_bundle(tmp_path)


def test_reading_weights_draws_none_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing normal values on the "meta" device imports torch's compiler, which takes seconds of every command."""
    save_bundle(make(), tmp_path / "e")
    monkeypatch.setattr(torch.Tensor, "normal_", lambda *_: pytest.fail("weights were drawn"))
    load_bundle(tmp_path / "e")
