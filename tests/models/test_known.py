"""Known nets beside their references, with the same random weights; their counts beside the published ones."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from facenet.models.build import build_model
from facenet.models.names import FAMILIES, renamed
from facenet.models.registry import KNOWN, known_table
from facenet.models.summary import summarise, total
from tests.helpers.nets import (
    given,
    images,
    insightface_iresnet,
    insightface_mbf,
    insightface_names,
    mbf_weights,
    shake,
)


@pytest.mark.parametrize("size", [80, 160])
def test_inception_resnet_v1_is_that_of_facenet_pytorch(size: int) -> None:
    if importlib.util.find_spec("facenet_pytorch") is None:
        pytest.skip("no facenet-pytorch: pip install --no-deps facenet-pytorch==2.6.0")
    from facenet_pytorch import InceptionResnetV1

    theirs = InceptionResnetV1(pretrained=None, classify=False, num_classes=7)
    shake(theirs)
    weights = renamed(theirs.eval().state_dict(), FAMILIES["facenet-pytorch"])
    ours = given(build_model("inception_resnet_v1", embedding_dim=512, input_size=(size, size)), weights)
    with torch.no_grad():
        torch.testing.assert_close(ours(images(size)), theirs(images(size)), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("name", "depths"),
    [
        ("iresnet18", [2, 2, 2, 2]),
        pytest.param("iresnet50", [3, 4, 14, 3], marks=pytest.mark.slow),
        pytest.param("iresnet100", [3, 13, 30, 3], marks=pytest.mark.slow),
    ],
)
def test_iresnet_is_that_of_insightface(name: str, depths: list[int]) -> None:
    drawn = build_model(name, embedding_dim=512)
    shake(drawn)
    theirs = insightface_names(drawn.state_dict())
    ours = given(build_model(name, embedding_dim=512), renamed(theirs, FAMILIES["insightface"]))
    with torch.no_grad():
        torch.testing.assert_close(
            ours(images(112)), insightface_iresnet(theirs, depths, images(112)), atol=1e-5, rtol=0
        )


@pytest.mark.parametrize("name", [name for name in KNOWN if known_table(name).paper])
def test_counts_are_the_published_ones(name: str) -> None:
    net = known_table(name)
    with torch.device("meta"):
        model = build_model(name, embedding_dim=net.dim)
    counted = total(summarise(model))
    assert net.paper is not None
    assert counted.params == pytest.approx(net.paper.params, rel=0.02)
    assert counted.macs == pytest.approx(net.paper.macs, rel=0.01)


@pytest.mark.parametrize(
    ("name", "dim", "params", "macs"),
    [
        ("inception_resnet_v1", 512, 23_432_032, 1_417_662_304),
        ("mbf", 512, 2_028_032, 437_520_896),
        ("fmobilenet", 128, 9_607_616, 574_138_880),
    ],
)
def test_counts_are_those_of_the_docs(name: str, dim: int, params: int, macs: int) -> None:
    with torch.device("meta"):
        model = build_model(name, embedding_dim=dim)
    assert total(summarise(model)) == (params, macs)


def test_mbf_is_that_of_insightface() -> None:
    theirs = mbf_weights()
    ours = given(build_model("mbf", embedding_dim=512), renamed(theirs, FAMILIES["insightface mbf"]))
    with torch.no_grad():
        torch.testing.assert_close(ours(images(112)), insightface_mbf(theirs, images(112)), atol=1e-5, rtol=0)
