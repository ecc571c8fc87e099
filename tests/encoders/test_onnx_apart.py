"""A graph of unknown origin in a process of its own: the same vectors, and an end to what takes too long."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest

from benchmarks.faults.onnx_graphs import ATTACKS, _wide
from benchmarks.faults.tiny import SIDE, D
from facenet.encoders import onnx_apart as room
from facenet.encoders.onnx_apart import SessionApart
from facenet.encoders.onnx_net import OnnxNet, SessionHere
from facenet.errors import DataError

IMAGES = np.random.default_rng(0).normal(size=(3, 3, SIDE, SIDE)).astype(np.float32)


@pytest.fixture(scope="module")
def plain() -> SessionApart:
    return SessionApart(ATTACKS["none"](0), threads=1)


def test_the_vectors_are_those_of_the_same_process(plain: SessionApart) -> None:
    here = SessionHere(ATTACKS["none"](0), threads=1)
    for images in (IMAGES, IMAGES[:1]):
        np.testing.assert_array_equal(plain.run(images), here.run(images))
    assert (plain.inputs, plain.outputs) == (here.inputs, here.outputs)
    assert plain.outputs == [("tensor(float)", ["B", D])]


def test_an_error_is_one_line_and_the_next_call_works(plain: SessionApart) -> None:
    with pytest.raises(DataError, match="onnxruntime can not run the model") as raised:
        plain.run(IMAGES[:, :2])
    assert "\n" not in str(raised.value)
    assert plain.run(IMAGES).shape == (3, D)


def test_a_net_whose_process_died_opens_another() -> None:
    net = OnnxNet(ATTACKS["none"](0), threads=1, apart=True)
    expected = net(IMAGES)
    assert isinstance(net.session, SessionApart)
    os.kill(net.session._process.pid, signal.SIGKILL)
    with pytest.raises(DataError, match=r"ended the process that ran it \(exit -9"):
        net(IMAGES)
    np.testing.assert_array_equal(net(IMAGES), expected)


@pytest.mark.parametrize("attack", ["long_product", "long_folded_product"])
def test_what_takes_too_long_is_stopped(attack: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "SECONDS", 0.5)
    with pytest.raises(DataError, match="takes longer than a face may"):
        OnnxNet(ATTACKS[attack](0), threads=1, apart=True)(IMAGES)


def test_what_takes_too_much_memory_is_refused() -> None:
    with pytest.raises(DataError, match=r"can not run the model .*Expand"):
        OnnxNet(ATTACKS["large"](0), threads=1, apart=True)(IMAGES)


def test_vectors_that_are_wider_than_the_graph_says_stay_in_the_child() -> None:
    with pytest.raises(DataError, match=r"3 images give an output of shape \[3, 40\], not \(3, 16\)"):
        OnnxNet(_wide(0, width=40), threads=1, apart=True)(IMAGES)


def test_the_child_ends_with_its_net() -> None:
    session = SessionApart(ATTACKS["none"](0), threads=1)
    process = session._process
    del session
    assert process.poll() is not None


def test_what_is_no_graph_is_one_line() -> None:
    with pytest.raises(DataError, match="onnxruntime can not read the model") as raised:
        SessionApart(b"no model")
    assert "\n" not in str(raised.value)
