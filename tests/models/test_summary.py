"""The layer table: counts against outside counts, names, the paper's figures, and the command."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from facenet.errors import DataError
from facenet.models.build import build_model
from facenet.models.inception import SMALL
from facenet.models.layers import Maxout
from facenet.models.net import EmbeddingNet
from facenet.models.registry import TABLES
from facenet.models.summary import Layer, amount, beside, cost, summarise, total
from facenet.models.tables import Cost
from facenet.models.zeiler_fergus import NN1
from tests.helpers.commands import play, succeed


def test_cost_of_a_layer_is_weights_times_positions() -> None:
    conv = nn.Conv2d(6, 4, 3, padding=1, groups=2)
    assert cost(conv, conv(torch.zeros(1, 6, 5, 7))) == (4 * 3 * 9, 4 * 3 * 9 * 35)
    linear = nn.Linear(6, 4)
    assert cost(linear, linear(torch.zeros(1, 6))) == (24, 24)
    assert cost(linear, linear(torch.zeros(1, 9, 6))) == (24, 24 * 9), "tokens"
    maxout = Maxout(6, 4, 2)
    assert cost(maxout, maxout(torch.zeros(1, 6))) == (48, 48)
    assert cost(nn.BatchNorm2d(4), torch.zeros(1, 4, 5, 7)) == (0, 0)


def test_attention_is_a_row_of_its_own_without_weights() -> None:
    def layers(features: int) -> list[Layer]:
        options = {"after": "inception_3a", "heads": 4, "num_features": features}
        return summarise(build_model("small", attention=options, pool="attention"))

    few, many = layers(16), layers(32)
    rows = {layer.name: layer for layer in few if layer.kind == "attention"}
    assert set(rows) == {"attention.attention", "pool.attention"}
    assert all(layer.params == 0 and layer.macs > 0 for layer in rows.values())
    assert total(few).params == total(many).params
    qkv = next(layer for layer in few if layer.name == "attention.qkv")
    assert (qkv.params, qkv.macs) == (128 * 384, 128 * 384 * 64), "8x8 positions"
    assert next(layer for layer in many if layer.kind == "attention").macs > 1.9 * rows["attention.attention"].macs


def test_names_are_the_papers_and_shapes_follow_the_input() -> None:
    names = [layer.name for layer in summarise(build_model("nn4", norm="lrn", input_size=(32, 32)))]
    assert names[:6] == ["conv1", "pool1", "norm1", "inception_2 3x3 reduce", "inception_2 3x3", "norm2"]
    assert {"inception_3a 5x5 reduce", "inception_3a pool proj", "inception_3c pool"} <= set(names)
    assert names[-2:] == ["embedding", "normalize"]
    assert len(set(names)) == len(names)
    model = build_model("small", norm="lrn")
    assert summarise(model, (96, 64))[0].shape == (24, 48, 32)
    assert total(summarise(model, (128, 128))).macs > 3.9 * total(summarise(model, (64, 64))).macs


def test_it_leaves_the_module_as_it_was() -> None:
    model = build_model("small").train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    summarise(model)
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
    with pytest.raises(DataError):
        summarise(model, (8, 8))
    assert not any(module._forward_hooks for module in model.modules())


def test_weights_used_twice_count_once() -> None:
    model = EmbeddingNet(SMALL, embedding_dim=8, norm="lrn", input_size=(32, 32))
    once = total(summarise(model))
    model.stages["inception_4c"] = model.stages["inception_4b"]
    twice = total(summarise(model))
    assert twice.params == once.params
    assert twice.macs == once.macs + 256 * 256 * 9 * 2 * 2


def test_the_papers_figures_stand_beside_ours() -> None:
    layers = [Layer("conv1", "conv", (1,), 10, 20), Layer("other", "conv", (1,), 1, 2)]
    found = beside(layers, {"conv1": Cost(11, 21)})
    assert found == [Layer("conv1", "conv", (1,), 10, 20, 11, 21), layers[1]]


def test_printed_figures_of_nn1_agree_with_its_layers() -> None:
    with torch.device("meta"):
        model = build_model("nn1", norm="lrn", input_size=(32, 32), embedding_dim=128)
        layers = {layer.name: layer for layer in summarise(model)}
    assert sum(printed.params for printed in NN1.printed.values()) == pytest.approx(140e6, rel=0.01)
    assert sum(printed.macs for printed in NN1.printed.values()) == pytest.approx(1.6e9, rel=0.01)
    for name, printed in NN1.printed.items():
        if name != "fc1":  # the one whose weights depend on the input size
            assert layers[name].params == pytest.approx(printed.params, rel=0.05), name
    with_table = {name for name, net in TABLES.items() if net.paper}
    assert with_table == set(TABLES) - {"small"}


def test_amounts() -> None:
    assert [amount(x) for x in (0, 9408, 99_990, 1.6e9, None)] == ["0", "9.408K", "99.99K", "1.6B", "-"]


def test_the_command(tmp_path: Path) -> None:
    played = play("summary", "model=nn4", "model.norm=lrn", out=tmp_path / "run")
    assert "ResNet-50" in played.text
    metrics = played.metrics
    assert metrics["params"] == sum(layer["params"] for layer in metrics["layers"])
    assert metrics["macs"] == sum(layer["macs"] for layer in metrics["layers"])
    assert metrics["params"] == metrics["paper_params"] == 6_600_384
    assert metrics["paper_macs"] == pytest.approx(285e6, rel=0.005)
    first = metrics["layers"][0]
    assert first == {"name": "conv1", "kind": "conv 7x7/2", "shape": [64, 48, 48], "params": 9408, "macs": 9408 * 2304}


def test_the_papers_figures_do_not_stand_beside_another_net(tmp_path: Path) -> None:
    metrics = succeed(
        "summary", "model=nn4", "model.attention.after=inception_4a", "model.input_size=[64,64]", out=tmp_path / "run"
    )
    assert metrics["paper_params"] is None
    assert metrics["paper_macs"] is None
    assert any(layer["kind"] == "attention" for layer in metrics["layers"])
