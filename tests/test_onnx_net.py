"""An ONNX file as a network: the session comes late and survives copying."""

from __future__ import annotations

import copy
import hashlib

import torch

from facenet.onnx_graph import plain_graph
from facenet.onnx_net import OnnxNet
from tests.test_onnx_graph import quantised


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
