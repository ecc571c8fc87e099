"""8 bits: close to float, small, another encoder by fingerprint, and not written where it is no good."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.export import drawn
from facenet.data.preprocess import Preprocess
from facenet.encoders import lookup as encoders
from facenet.encoders.ensemble import join
from facenet.encoders.onnx_file import unseal
from facenet.errors import DataError
from facenet.export import int8 as export_int8
from facenet.export import onnx as export
from tests.helpers import ROOT
from tests.helpers.models import smallest

pytestmark = pytest.mark.slow  # a net is traced and quantised; tests/commands quantises one in every run
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")


def faces(count: int, size: tuple[int, int], seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    return Preprocess(size=size).normalise(export.pictures(count + seed, size)[:count])


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    encoder = drawn("small", (32, 32), embedding_dim=16, attention={"after": "inception_3a", "heads": 2})
    encoder.thresholds, encoder.fingerprint = {0.01: 0.7}, "ab" * 32
    encoder.preprocess = Preprocess(size=(32, 32))
    path = tmp_path_factory.mktemp("int8") / "plain.onnx"
    export.export_onnx(encoder, path)
    return path


@pytest.fixture(scope="module")
def made(plain: Path) -> tuple[Path, dict[str, object]]:
    path = plain.with_name("int8.onnx")
    return path, export_int8.export_int8(plain, faces(40, (32, 32)), path)


def test_vectors_stay_close_in_a_quarter_of_the_bytes(plain: Path, made: tuple[Path, dict[str, object]]) -> None:
    path, told = made
    images = faces(20, (32, 32), seed=5)
    ours, theirs = (encoders.load(file).embed_batch(images) for file in (path, plain))
    np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-5)
    moved = ((ours - theirs) ** 2).sum(1)
    assert 0 < moved.mean() < 0.001
    assert ((theirs - theirs[:1]) ** 2).sum(1).mean() > 5 * moved.mean(), "further from each other than from themselves"
    assert told["bytes"] == path.stat().st_size < 0.35 * plain.stat().st_size
    assert told["calibration_images"] == 40
    assert 0 < told["sq_dist_to_float"]["mean"] < told["sq_dist_to_float"]["most"]  # type: ignore[index]


def test_it_is_another_encoder_that_decides_alike(plain: Path, made: tuple[Path, dict[str, object]]) -> None:
    found, before = encoders.load(made[0]), encoders.load(plain)
    assert found.fingerprint == made[1]["fingerprint"] != before.fingerprint
    assert re.fullmatch("[0-9a-f]{64}", found.fingerprint)
    assert (found.thresholds, found.preprocess, found.name) == (before.thresholds, before.preprocess, before.name)
    assert found.training["int8_of"] == before.fingerprint
    assert unseal(made[0].read_bytes(), made[0])["graph"]["precision"] == "int8"


def test_the_fingerprint_follows_the_calibration(plain: Path, made: tuple[Path, dict[str, object]]) -> None:
    again = export_int8.export_int8(plain, faces(40, (32, 32)), plain.with_name("again.onnx"))
    assert plain.with_name("again.onnx").read_bytes() == made[0].read_bytes()
    other = export_int8.export_int8(plain, faces(20, (32, 32), seed=9), plain.with_name("other.onnx"))
    assert again["fingerprint"] == made[1]["fingerprint"] != other["fingerprint"]


def test_what_loses_much_stays_float(made: tuple[Path, dict[str, object]]) -> None:
    graph = onnx.load(str(made[0])).graph
    kinds = {item.name: item.data_type for item in graph.initializer}
    codes = {out: node.input[0] for node in graph.node if node.op_type == "DequantizeLinear" for out in node.output}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 8
    assert all(kinds[codes[node.input[1]]] == onnx.TensorProto.INT8 for node in convolutions)
    shapes = {item.name: tuple(item.dims) for item in graph.initializer}
    scales = {node.output[0]: node.input[1] for node in graph.node if node.op_type == "DequantizeLinear"}
    first = convolutions[0].input[1]
    assert shapes[scales[first]] == (24,), "a scale for each output channel"
    (last,) = (node for node in graph.node if node.op_type == "Gemm" and "embedding.weight" in node.input[1])
    assert kinds[last.input[1]] == onnx.TensorProto.FLOAT
    assert {"LayerNormalization", "MatMul"} <= {node.op_type for node in graph.node}
    products = [node for node in graph.node if node.op_type == "MatMul"]
    assert not any(name in codes for node in products for name in node.input)


@pytest.mark.slow  # NN1 has 34 million weights at its smallest: exported, calibrated, written and read
def test_inner_fully_connected_layers_are_quantised(tmp_path: Path) -> None:
    encoder = drawn("nn1", smallest("nn1"), embedding_dim=8)
    export.export_onnx(encoder, tmp_path / "nn1.onnx")
    told = export_int8.export_int8(tmp_path / "nn1.onnx", faces(16, smallest("nn1")), tmp_path / "int8.onnx")
    assert told["bytes"] < 0.27 * (tmp_path / "nn1.onnx").stat().st_size


@pytest.mark.slow  # a process imports torch and traces a net; tests/commands holds the command's output in every run
def test_exporters_do_not_talk_about_themselves(tmp_path: Path) -> None:
    """In a process of its own: pytest catches what is logged."""
    code = f"""
import pathlib, torch
from facenet.export import onnx as export
from facenet.export import int8 as export_int8
from benchmarks.export import drawn
encoder = drawn("nns2", (64, 65), norm="lrn")
export.export_onnx(encoder, pathlib.Path({str(tmp_path)!r}) / "a.onnx")
export_int8.export_int8({str(tmp_path / "a.onnx")!r}, torch.rand(4, 3, 64, 65), {str(tmp_path / "b.onnx")!r})
"""
    done = subprocess.run([sys.executable, "-W", "always", "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "b.onnx").is_file()


def test_what_is_no_good_is_not_written(plain: Path, tmp_path: Path) -> None:
    path, images = tmp_path / "q.onnx", faces(8, (32, 32))
    with pytest.raises(DataError, match="no image to calibrate"):
        export_int8.export_int8(plain, images[:0], path)
    with pytest.raises(DataError, match=r"\(mean sq_dist\) from the float ones, at most 1e-06 allowed; calibrate with"):
        export_int8.export_int8(plain, images, path, far_off=1e-6)
    with pytest.raises(DataError, match="its vectors change with the batch they are in"):
        export_int8.export_int8(plain, images, path, tolerance=-1.0)
    assert not list(tmp_path.iterdir())
    path.write_bytes(plain.read_bytes()[:-1])
    with pytest.raises(DataError, match="damaged"):
        export_int8.export_int8(path, images, tmp_path / "r.onnx")


def test_activations_are_as_wide_as_on_the_calibration_faces(
    plain: Path, made: tuple[Path, dict[str, object]], tmp_path: Path
) -> None:
    images = faces(20, (32, 32), seed=5)
    export_int8.export_int8(plain, faces(40, (32, 32)) / 1000, tmp_path / "narrow.onnx")
    expected = encoders.load(plain).embed_batch(images)
    narrow, wide = (
        ((encoders.load(file).embed_batch(images) - expected) ** 2).sum(1).mean()
        for file in (tmp_path / "narrow.onnx", made[0])
    )
    assert narrow > 50 * wide


def test_the_embedding_layer_of_each_member_stays_float(tmp_path: Path) -> None:
    members = [drawn("small", (32, 32), embedding_dim=16), drawn("small", (32, 32), embedding_dim=16, pool="flatten")]
    for number, member in enumerate(members):
        member.preprocess, member.fingerprint = Preprocess(size=(32, 32)), f"{number}" * 64
    both = join(members)
    export.export_onnx(both, tmp_path / "both.onnx")
    height, width = both.preprocess.size
    export_int8.export_int8(tmp_path / "both.onnx", faces(16, (height, width)), tmp_path / "int8.onnx")
    graph = onnx.load(str(tmp_path / "int8.onnx")).graph
    kinds = {weight.name: weight.data_type for weight in graph.initializer if "embedding.weight" in weight.name}
    assert list(kinds.values()) == [onnx.TensorProto.FLOAT] * 2, kinds
