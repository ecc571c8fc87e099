"""Exported encoders: the vectors of every net, what the file tells others, and what is refused."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.export import drawn
from facenet.data.preprocess import Preprocess
from facenet.encoders import lookup as encoders
from facenet.encoders.bundle import save_bundle
from facenet.encoders.encoder import Encoder
from facenet.encoders.onnx_file import KEY, load_onnx, seal, unseal
from facenet.encoders.onnx_net import OnnxNet
from facenet.errors import ConfigError, DataError
from facenet.export import onnx as export
from facenet.models.registry import NETS, TABLES, entry_of, register_net
from facenet.models.tables import Conv, Full, NetTable, Norm, Pool, Row
from tests.helpers import ROOT
from tests.helpers.encoders import OPTIONS, make
from tests.helpers.models import CASES, options, smallest
from tests.helpers.onnx_graphs import quantised
from tests.helpers.pictures import blob

pytest.importorskip("onnxscript")
PEOPLE = [{"role": "train", "salt": "s", "count": 2, "hashes": "0123456789abcdef fedcba9876543210"}]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    made = make()
    made.thresholds, made.compatible_with = {0.001: 1.1, 0.01: 1.3}, ["a" * 64]
    made.training = {"seed": 3, "people": PEOPLE}
    return made


@pytest.fixture(scope="module")
def file(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "small.onnx"
    export.export_onnx(encoder, path)
    return path


def batches(encoder: Encoder) -> list[torch.Tensor]:
    return [encoder.preprocess.normalise(export.pictures(size, encoder.preprocess.size)) for size in export.BATCHES]


def assert_vectors_of_torch(encoder: Encoder) -> None:
    ours, spread = export.opened(export.graph(encoder), encoder, threads=1), 0.0
    for images in batches(encoder):
        expected = encoder.embed_batch(images)
        assert np.abs(ours.embed_batch(images) - expected).max() <= 1e-5
        spread = max(spread, float(np.linalg.norm(expected - expected[:1], axis=1).max()))
    assert spread > 0.03, "vectors that are all one would agree by themselves"


# Tracing takes 2 to 10 seconds a net. These few layers hold every operation of the nets but the mean over all
# positions, which `file` has.
EVERY_OPERATION = NetTable(
    (16, 17),
    (
        Conv("conv", 8, 7, 2),
        Pool("pool1"),
        Norm("norm"),
        Row("whole", 8, 4, 8, 0, 0, "L2", 8),
        Pool("pool2"),
        Row("last", 0, 0, 0, 0, 8, "max", 0),
        Pool("pool3"),
    ),
    head="flatten",
    full=(Full("full", 16),),
)


@pytest.mark.slow  # traces two more nets
@pytest.mark.parametrize("norm", ["batch", "lrn"])
def test_every_operation_gives_the_vectors_of_torch(norm: str) -> None:
    """Attention in one of them, as it is slow to trace; `plain` in test_int8 has the attention block."""
    head = {"attention": {"heads": 2, "num_features": 16}, "pool": "attention"} if norm == "batch" else {}
    with NETS.restored():
        register_net("every", entry_of(EVERY_OPERATION).build, input_size=EVERY_OPERATION.input_size)
        encoder = drawn("every", EVERY_OPERATION.input_size, norm=norm, embedding_dim=12, **head)
    encoder.preprocess = Preprocess(size=EVERY_OPERATION.input_size, mirror=norm == "batch")
    assert_vectors_of_torch(encoder)


@pytest.mark.slow  # traces all 63 variants, eight minutes
@pytest.mark.parametrize(
    ("name", "variant", "norm"),
    [(*case, norm) for case in CASES for norm in ("batch", "lrn") if norm == "batch" or case[0] in TABLES],
)
def test_every_net_gives_the_vectors_of_torch(name: str, variant: str, norm: str) -> None:
    given = {key: value for key, value in options(name, variant).items() if key != "input_size"}
    if name in TABLES:
        given["norm"] = norm
    encoder = drawn(name, smallest(name), **given)
    encoder.preprocess = Preprocess(size=smallest(name), mirror=norm == "batch")
    assert_vectors_of_torch(encoder)


@pytest.mark.slow  # traces two more nets
@pytest.mark.parametrize("name", ["nn1", "nns2"])
def test_nets_that_flatten_can_pool_instead(name: str) -> None:
    encoder = drawn(name, smallest(name), pool="average", embedding_dim=8)
    assert max(export.differences(encoder, export.graph(encoder)).values()) <= 1e-5


def test_the_file_is_the_encoder(encoder: Encoder, file: Path) -> None:
    found = encoders.load(str(file))
    assert found.fingerprint == encoder.fingerprint, "galleries of the bundle take it"
    assert found.preprocess == encoder.preprocess
    assert (found.name, found.options, found.dim) == (encoder.name, encoder.options, 16)
    assert (found.thresholds, found.compatible_with) == (encoder.thresholds, encoder.compatible_with)
    assert found.training == {"seed": 3}, "hashes of names stay at home"
    images = np.stack([blob(i, 0) for i in range(5)])
    np.testing.assert_allclose(found.embed(images), encoder.embed(images), atol=1e-5)
    np.testing.assert_allclose(found.embed(images[:, :, ::-1]), encoder.embed(images), atol=1e-5, err_msg="mirrored")
    assert found.embed([]).shape == (0, 16)


def test_the_mirror_image_is_averaged_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, calls = encoders.load(file), []
    run = OnnxNet.__call__
    monkeypatch.setattr(OnnxNet, "__call__", lambda net, images: calls.append(len(images)) or run(net, images))
    found.embed(np.stack([blob(0, 0)]))
    assert calls == [2, 1], "two test images come first"


def test_others_get_the_same_vectors_from_what_the_file_says(encoder: Encoder, file: Path) -> None:
    """With onnxruntime, PIL and numpy alone."""
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    told = json.loads(session.get_modelmeta().custom_metadata_map[KEY])
    (taken,), (given,) = session.get_inputs(), session.get_outputs()
    assert (taken.name, taken.shape, taken.type) == ("images", ["B", 3, 32, 32], "tensor(float)")
    assert (given.name, given.shape, given.type) == ("embeddings", ["B", 16], "tensor(float)")
    assert told["graph"] == {
        "input": "images (B, 3, 32, 32) float32, RGB: (value / 255 - mean) / std",
        "output": "embeddings (B, 16) float32, of unit length",
        "mirrors": True,
        "precision": "float32",
    }
    done, picture = told["preprocessing"], Image.fromarray(blob(3, 1))
    height, width = done["size"]
    small = picture.resize((width, height), Image.Resampling.BILINEAR)  # crop is 1: all of the square picture
    values = (np.asarray(small, np.float32) / 255 - np.float32(done["mean"])) / np.float32(done["std"])
    (vectors,) = session.run(None, {"images": values.transpose(2, 0, 1)[None].astype(np.float32)})
    np.testing.assert_allclose(vectors, encoder.embed([picture]), atol=2e-3)  # another resize rounds otherwise
    exact = encoder.preprocess([picture])
    np.testing.assert_allclose(session.run(None, {"images": exact})[0], encoder.embed([picture]), atol=1e-5)


def test_the_file_tells_nothing_of_where_and_whom(file: Path) -> None:
    data = file.read_bytes()
    for word in (str(ROOT), "site-packages", "test_export", "pkg.torch", "0123456789abcdef", str(file.parent)):
        assert word.encode() not in data
    assert file.stat().st_mode & 0o777 == 0o644


@pytest.mark.slow  # traces a net again
def test_the_same_encoder_gives_the_same_file(encoder: Encoder, file: Path, tmp_path: Path) -> None:
    before = {key: value.clone() for key, value in encoder.model.state_dict().items()}
    told = export.export_onnx(encoder, tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == file.read_bytes()
    assert (told["bytes"], told["opset"]) == (file.stat().st_size, 18)
    assert set(told["max_difference"]) == {"1", "4", "7"}
    assert before.keys() == encoder.model.state_dict().keys(), "the encoder is left as it was"
    assert all(torch.equal(value, encoder.model.state_dict()[key]) for key, value in before.items())


@pytest.mark.parametrize("wrong", [2e-5, float("nan")])
def test_vectors_that_differ_are_refused(wrong: float, tmp_path: Path) -> None:
    export.check_differences({1: 1e-7, 4: 1e-5, 7: 1e-7}, tmp_path)
    with pytest.raises(DataError, match=r"not written; its vectors differ from torch's by .* at batch 4") as raised:
        export.check_differences({1: 1e-7, 4: wrong, 7: 1e-7}, tmp_path / "a.onnx")
    assert "\n" not in str(raised.value)


@pytest.mark.slow  # traces a net; the check itself runs above in every run
def test_a_network_that_gives_nan_is_not_written(tmp_path: Path) -> None:
    layer = torch.nn.Linear(3 * 32 * 32, 16)
    torch.nn.init.constant_(layer.weight, float("nan"))
    encoder = Encoder(torch.nn.Sequential(torch.nn.Flatten(), layer), "small", OPTIONS, Preprocess(size=(32, 32)))
    with pytest.raises(DataError, match=r"vectors are not of unit length \(norm nan\)"):
        export.export_onnx(encoder, tmp_path / "deep" / "a.onnx")
    assert not list(tmp_path.rglob("*"))


def test_the_check_sees_another_network(encoder: Encoder, file: Path) -> None:
    same = export.differences(encoder, file.read_bytes())
    other = export.differences(make(seed=1), file.read_bytes())
    assert max(same.values()) <= 1e-6 < 1e-2 < min(other.values())


def test_every_damage_is_refused(file: Path, tmp_path: Path) -> None:
    good, rng, bad = file.read_bytes(), np.random.default_rng(0), tmp_path / "bad.onnx"
    for place in (*rng.integers(len(good), size=50), *(len(good) - 1 - rng.integers(1200, size=30))):
        data = bytearray(good)
        data[place] ^= 1 << rng.integers(8)
        bad.write_bytes(bytes(data))
        with pytest.raises(DataError, match=str(bad)) as raised:
            encoders.load(bad)
        assert "\n" not in str(raised.value)


def test_files_of_others_and_of_another_time_are_refused(file: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(quantised(4)[0])
    with pytest.raises(DataError, match="without a record of model and preprocessing"):
        encoders.load(bad)
    told = unseal(file.read_bytes(), file)
    for change, said in (
        ({"schema": 9}, "schema 9, this version reads 1"),
        ({"thresholds": 3}, "not one of an encoder"),
        ({"preprocessing": {}}, "not one of an encoder"),
        ({"graph": {}}, "not one of an encoder"),
    ):
        bad.write_bytes(seal(b"", {**told, **change}))
        with pytest.raises(DataError, match=said):
            encoders.load(bad)
    with pytest.raises(DataError, match=r"no such file; give a file"):
        load_onnx(tmp_path / "none.onnx")
    bad.write_bytes(seal(b"", told))
    with pytest.raises(DataError, match="onnxruntime can not read the model"):
        encoders.load(bad).embed(np.stack([blob(0, 0)]))


def test_what_can_not_be_exported_or_kept(file: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="an ONNX file already"):
        export.export_onnx(encoders.load(file), file.with_name("b.onnx"))
    with pytest.raises(ConfigError, match="name the folder that it was made of, and export that again"):
        encoders.write_calibration(encoders.load(file), file, file.parent)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(DataError, match=r"onnxscript is not installed; run: pip install 'facenet-triplet\[export\]'"):
        export.export_onnx(encoder, file.with_name("b.onnx"))
    assert not file.with_name("b.onnx").exists()


def test_a_bundle_and_its_file_are_told_apart_by_what_is_there(encoder: Encoder, file: Path, tmp_path: Path) -> None:
    save_bundle(encoder, tmp_path / "e")
    assert not isinstance(encoders.load(tmp_path / "e").model, OnnxNet)
    assert isinstance(encoders.load(file).model, OnnxNet)
