"""An ONNX file as a network: the session comes late and survives copying."""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path

import pytest
import torch

from benchmarks.faults.kinds import KINDS, tiny_net
from facenet.encoders.onnx_net import OnnxNet
from facenet.errors import DataError
from facenet.foreign import plain_graph
from tests.helpers.onnx_graphs import quantised


def net() -> OnnxNet:
    return OnnxNet(plain_graph(quantised(4)[0], {"x": (0,), "y": (0,)}), threads=1)


def test_the_state_names_the_file() -> None:
    data = plain_graph(quantised(4)[0], {"x": (0,), "y": (0,)})
    assert bytes(net().state_dict()["identity"].numpy()).hex() == hashlib.sha256(data).hexdigest()
    assert bytes(OnnxNet(data, identity="ab" * 32).state_dict()["identity"].numpy()).hex() == "ab" * 32


def test_vectors_have_length_one_and_a_copy_gives_the_same() -> None:
    first, x = net(), torch.rand(3, 8)
    found = first(x)
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(3, 2))
    torch.testing.assert_close(copy.deepcopy(first)(x), found)


@pytest.mark.parametrize(("shape", "fits"), [((16, 16, 16), True), ((16, 16, 17), False), ((32, 16, 16), False)])
def test_a_graph_of_another_shape_is_refused(shape: tuple[int, int, int], fits: bool, tmp_path: Path) -> None:
    with tiny_net():
        KINDS["onnx"].make(tmp_path)
    made = OnnxNet((tmp_path / "model.part").read_bytes(), threads=1, shape=shape)
    images = torch.zeros(1, 3, 16, 16)
    if fits:
        assert made(images).shape == (1, 16)
    else:
        with pytest.raises(DataError, match="its record says images"):
            made(images)


def test_what_onnxruntime_raises_is_one_line() -> None:
    with pytest.raises(DataError, match="onnxruntime can not run the model") as raised:
        net()(torch.zeros(1, 9))
    assert "\n" not in str(raised.value)
