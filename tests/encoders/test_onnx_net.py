"""An ONNX file as a network: the session comes late and survives copying."""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.faults.kinds import KINDS
from benchmarks.faults.tiny import tiny_net
from facenet.encoders.onnx_net import OnnxNet, unit
from facenet.errors import DataError
from facenet.foreign import plain_graph
from tests.helpers.onnx_graphs import quantised


def net() -> OnnxNet:
    return OnnxNet(plain_graph(quantised(4)[0], {"x": (0,), "y": (0,)}), threads=1)


def test_the_state_names_the_file() -> None:
    data = plain_graph(quantised(4)[0], {"x": (0,), "y": (0,)})
    assert net().state_dict()["identity"].tobytes().hex() == hashlib.sha256(data).hexdigest()
    assert OnnxNet(data, identity="ab" * 32).state_dict()["identity"].tobytes().hex() == "ab" * 32


def test_vectors_have_length_one_and_a_copy_gives_the_same() -> None:
    first, x = net(), np.random.default_rng(0).random((3, 8), np.float32)
    found = first(x)
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), np.ones((3, 2)), rtol=1e-6)
    np.testing.assert_array_equal(copy.deepcopy(first)(x), found)


def test_unit_vectors_are_those_of_torch_to_the_bit() -> None:
    if torch.backends.cpu.get_cpu_capability() != "AVX2":
        pytest.skip("torch sums in another order on this CPU")
    rng = np.random.default_rng(0)
    for dim in (16, 32, 100, 128, 512):
        vectors = (rng.normal(size=(500, dim)) * rng.uniform(1e-5, 30, (500, 1))).astype(np.float32)
        expected = torch.nn.functional.normalize(torch.from_numpy(vectors), dim=-1, eps=1e-4).numpy()
        np.testing.assert_array_equal(unit(vectors), expected)


def test_the_mirror_image_is_averaged_unless_the_graph_does_it() -> None:
    class Sum(OnnxNet):
        def __call__(self, images: np.ndarray) -> np.ndarray:
            return unit(images.reshape(len(images), -1))

    images = np.random.default_rng(0).random((2, 1, 2, 4), np.float32)
    both = images.reshape(2, -1) / np.linalg.norm(images.reshape(2, -1), axis=1)[:, None]
    turned = images[..., ::-1].reshape(2, -1) / np.linalg.norm(images.reshape(2, -1), axis=1)[:, None]
    expected = (both + turned) / np.linalg.norm(both + turned, axis=1)[:, None]
    np.testing.assert_allclose(Sum(b"").embed(images, mirror=True), expected, rtol=1e-6)
    np.testing.assert_allclose(Sum(b"").embed(images), both, rtol=1e-6)
    np.testing.assert_allclose(Sum(b"", mirrors=True).embed(images, mirror=True), both, rtol=1e-6)


@pytest.mark.parametrize(("shape", "fits"), [((16, 16, 16), True), ((16, 16, 17), False), ((32, 16, 16), False)])
def test_a_graph_of_another_shape_is_refused(shape: tuple[int, int, int], fits: bool, tmp_path: Path) -> None:
    with tiny_net():
        KINDS["onnx"].make(tmp_path)
    made = OnnxNet((tmp_path / "model.part").read_bytes(), threads=1, shape=shape)
    images = np.zeros((1, 3, 16, 16), np.float32)
    if fits:
        assert made(images).shape == (1, 16)
    else:
        with pytest.raises(DataError, match="its record says images"):
            made(images)


def test_what_onnxruntime_raises_is_one_line() -> None:
    with pytest.raises(DataError, match="onnxruntime can not run the model") as raised:
        net()(np.zeros((1, 9), np.float32))
    assert "\n" not in str(raised.value)
