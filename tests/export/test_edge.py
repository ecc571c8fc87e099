"""Files for phones and small devices: the vectors of torch, what stands beside the file, and what is refused."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.export import drawn
from facenet.commands.export import ExportOptions
from facenet.data.preprocess import Preprocess
from facenet.encoders.encoder import Encoder
from facenet.encoders.ensemble import join
from facenet.errors import ConfigError, DataError
from facenet.export import edge
from facenet.export.onnx import pictures
from tests.helpers.encoders import make
from tests.helpers.models import CASES, options, smallest


def there(name: str) -> Any:
    """A format as a parameter, skipped if a package of it is not installed."""
    missing = [package for package in edge.FORMATS[name].packages if importlib.util.find_spec(package) is None]
    return pytest.param(name, marks=pytest.mark.skipif(bool(missing), reason=f"not installed: {missing}"))


ALL = [there(name) for name in edge.FORMATS]
openvino = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="openvino is not installed")
RUN_HERE = ("openvino", "litert")  # Core ML runs on macOS alone


def assert_vectors_of_torch(
    encoder: Encoder, name: str, path: Path, least: float = 0.99999, **given: bool
) -> dict[str, Any]:
    """Write the encoder and hold its vectors against torch's; returns what was told."""
    file = path / f"net{edge.FORMATS[name].ending}"
    told, found = edge.export_edge(encoder, file, name, **given)
    assert file.exists()
    assert told["bytes"] > 1000
    if name not in RUN_HERE:
        assert (found, told["least_cosine"]) == (None, None)
        return told
    assert found is not None
    images = encoder.preprocess.normalise(pictures(5, encoder.preprocess.size))
    expected = encoder.embed_batch(images)
    assert (found.embed_batch(images) * expected).sum(1).min() >= least
    assert np.linalg.norm(expected - expected[:1], axis=1).max() > 0.01, "vectors that are all one agree by themselves"
    assert min(told["least_cosine"].values()) >= least
    return told


def test_the_command_offers_every_format() -> None:
    (form,) = (item for item in fields(ExportOptions) if item.name == "format")
    assert set(form.metadata["choices"]) == {"onnx", *edge.FORMATS}


@pytest.mark.parametrize("name", ALL)
def test_a_file_has_the_vectors_of_torch_and_half_of_the_bytes_in_16_bits(tmp_path: Path, name: str) -> None:
    whole = assert_vectors_of_torch(make(mirror=True), name, tmp_path)
    half = assert_vectors_of_torch(make(mirror=True), name, tmp_path, half=True)
    assert half["bytes"] < 0.6 * whole["bytes"]
    made = {"openvino": ["net.bin", "net.xml", "net.xml.json"], "litert": ["net.tflite", "net.tflite.json"]}
    expected = made.get(name, ["net.mlpackage", "net.mlpackage.json"])
    assert sorted(part.name for part in tmp_path.iterdir()) == expected, "written over, and nothing left behind"
    record = json.loads((tmp_path / expected[-1]).read_text())
    assert (record["graph"]["precision"], record["graph"]["least_cosine"]) == ("float16", half["least_cosine"])


@pytest.mark.parametrize("name", [there("coreml")])
def test_a_core_ml_file_reads_and_gives_float32(tmp_path: Path, name: str) -> None:
    import coremltools
    from coremltools.proto import FeatureTypes_pb2

    edge.export_edge(make(), tmp_path / "net.mlpackage", name, half=True)
    told = coremltools.utils.load_spec(str(tmp_path / "net.mlpackage")).description
    kinds = [part.type.multiArrayType for part in (*told.input, *told.output)]
    assert [part.name for part in (*told.input, *told.output)] == ["images", "embeddings"]
    assert {kind.dataType for kind in kinds} == {FeatureTypes_pb2.ArrayFeatureType.FLOAT32}


@openvino
def test_openvino_reports_to_nobody(tmp_path: Path) -> None:
    edge.export_edge(make(), tmp_path / "net.xml", "openvino")
    assert sys.modules["openvino_telemetry"] is None


@openvino
def test_the_record_beside_it_says_what_the_file_reads(tmp_path: Path) -> None:
    encoder = make()
    encoder.thresholds = {0.01: 0.5}
    encoder.training = {"people": "hashes of names", "seed": 3}
    edge.export_edge(encoder, tmp_path / "net.xml", "openvino", half=True)
    found = json.loads((tmp_path / "net.xml.json").read_text())
    assert (found["format"], found["graph"]["precision"]) == ("openvino", "float16")
    assert found["graph"]["input"].startswith("images (B, 3, 32, 32) float32, RGB")
    assert found["thresholds"] == {"0.01": 0.5}
    assert found["preprocessing"] == encoder.preprocess.to_dict()
    assert found["training"] == {"seed": 3}
    edge.export_edge(encoder, tmp_path / "net.xml", "openvino")
    assert json.loads((tmp_path / "net.xml.json").read_text())["graph"]["precision"] == "float32", "written over"


@openvino
def test_a_file_that_is_far_from_torch_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = edge.FORMATS["openvino"]._replace(open=lambda path, threads: make(1).embed_batch)
    monkeypatch.setitem(edge.FORMATS, "openvino", other)
    with pytest.raises(DataError, match=r"net\.xml: not written; the cosine of its vectors to torch's is 0\.\d+ at"):
        edge.export_edge(make(), tmp_path / "net.xml", "openvino")
    assert not list(tmp_path.iterdir())


@openvino
def test_what_a_converter_says_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def write(*_: object) -> None:
        print("a page about itself", flush=True)
        os.write(2, b"and another")
        raise RuntimeError("no such operation\nin many lines")

    monkeypatch.setitem(edge.FORMATS, "openvino", edge.FORMATS["openvino"]._replace(write=write))
    with pytest.raises(
        DataError, match=r"openvino can not hold this net \(RuntimeError: no such operation in many lines"
    ):
        edge.export_edge(make(), tmp_path / "net.xml", "openvino")
    assert not list(tmp_path.iterdir())
    assert "page" not in capfd.readouterr().out


def test_mistakes_are_told_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"out=net\.onnx: a file of format=litert ends in \.tflite"):
        edge.check_format("litert", "net.onnx")
    with pytest.raises(ConfigError, match="did you mean 'openvino'"):
        edge.export_edge(make(), "net.xml", "openvin")
    for name, other in (("coreml", "net.mlpackage"), ("litert", "net.tflite")):
        (tmp_path / other).mkdir()
        with pytest.raises(DataError, match=r"net\.\w+: something else lies there"):
            edge.check_format(name, tmp_path / other)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"coremltools is not installed; run: pip install 'facenet-triplet\[edge\]'"):
        edge.check_format("coreml", "net.mlpackage")


@pytest.mark.slow  # converts more nets
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("name", ALL)
def test_mirrored_views_and_ensembles_are_in_the_graph(tmp_path: Path, name: str, half: bool) -> None:
    least = 0.9999 if half else 0.99999
    assert_vectors_of_torch(join([make()], views=7), name, tmp_path / "views", least, half=half)
    first, second = make(0), make(1)
    second.preprocess = replace(second.preprocess, crop=0.8)
    assert_vectors_of_torch(join([first, second]), name, tmp_path / "both", least, half=half)


@pytest.mark.slow  # converts a hundred nets
@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(("net", "variant"), [case for case in CASES if case[0] != "iresnet100"])
def test_every_net_has_the_vectors_of_torch(tmp_path: Path, name: str, net: str, variant: str) -> None:
    given = {key: value for key, value in options(net, variant).items() if key != "input_size"}
    encoder = drawn(net, smallest(net), **given)
    encoder.preprocess = Preprocess(size=smallest(net), mirror=False)
    assert_vectors_of_torch(encoder, name, tmp_path)


@pytest.mark.slow  # converts more nets
@pytest.mark.parametrize("net", ["nn1", "nns2"])
@pytest.mark.parametrize("name", ALL)
def test_local_response_normalisation_too(tmp_path: Path, name: str, net: str) -> None:
    torch.manual_seed(0)
    encoder = drawn(net, smallest(net), embedding_dim=12, norm="lrn")
    encoder.preprocess = Preprocess(size=smallest(net), mirror=False)
    assert_vectors_of_torch(encoder, name, tmp_path)
