"""NN1: table 1 layer by layer, and that it trains from scratch without batch norm."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from facenet.models.build import build_model
from facenet.models.layers import Maxout
from facenet.models.net import EmbeddingNet
from facenet.models.summary import Layer, summarise, total
from facenet.models.zeiler_fergus import NN1
from tests.helpers.pictures import blob

# Table 1: layer, kind with kernel and stride, size-out (channels, height, width), weights
TABLE_1 = [
    ("conv1", "conv 7x7/2", (64, 110, 110), 64 * 3 * 49),
    ("pool1", "max pool 3x3/2", (64, 55, 55), 0),
    ("rnorm1", "LRN", (64, 55, 55), 0),
    ("conv2a", "conv 1x1/1", (64, 55, 55), 64 * 64),
    ("conv2", "conv 3x3/1", (192, 55, 55), 192 * 64 * 9),
    ("rnorm2", "LRN", (192, 55, 55), 0),
    ("pool2", "max pool 3x3/2", (192, 28, 28), 0),
    ("conv3a", "conv 1x1/1", (192, 28, 28), 192 * 192),
    ("conv3", "conv 3x3/1", (384, 28, 28), 384 * 192 * 9),
    ("pool3", "max pool 3x3/2", (384, 14, 14), 0),
    ("conv4a", "conv 1x1/1", (384, 14, 14), 384 * 384),
    ("conv4", "conv 3x3/1", (256, 14, 14), 256 * 384 * 9),
    ("conv5a", "conv 1x1/1", (256, 14, 14), 256 * 256),
    ("conv5", "conv 3x3/1", (256, 14, 14), 256 * 256 * 9),
    ("conv6a", "conv 1x1/1", (256, 14, 14), 256 * 256),
    ("conv6", "conv 3x3/1", (256, 14, 14), 256 * 256 * 9),
    ("pool4", "max pool 3x3/2", (256, 7, 7), 0),
    ("pool", "concat", (7 * 7 * 256,), 0),
    ("fc1", "maxout p=2", (32 * 128,), 7 * 7 * 256 * 32 * 128 * 2),
    ("fc2", "maxout p=2", (32 * 128,), 32 * 128 * 32 * 128 * 2),
    ("embedding", "fully connected", (128,), 32 * 128 * 128),
    ("normalize", "L2", (128,), 0),
]


@pytest.fixture(scope="module")
def layers() -> list[Layer]:
    with torch.device("meta"):  # 140 million weights, which need not be drawn to be counted
        return summarise(build_model("nn1", norm="lrn"))


def test_table_1_layer_by_layer(layers: list[Layer]) -> None:
    assert [(layer.name, layer.kind, layer.shape, layer.params) for layer in layers] == TABLE_1


def test_counts_of_the_paper(layers: list[Layer]) -> None:
    assert total(layers).params == 140_006_592
    assert total(layers).macs == pytest.approx(1605.9e6, rel=0.005)


def test_biases_and_maxout() -> None:
    with torch.device("meta"):
        model = build_model("nn1", norm="lrn", input_size=(32, 32))
    assert all(isinstance(layer, Maxout) and layer.bias is not None for layer in model.full)
    assert sum(isinstance(m, nn.LocalResponseNorm) for m in model.modules()) == 2


@pytest.mark.slow  # trains NN1
def test_a_triplet_loss_falls_from_scratch_without_batch_norm() -> None:
    torch.manual_seed(0)
    people, faces, side = 4, 3, 32
    narrow = NN1._replace(full=tuple(layer._replace(out=512) for layer in NN1.full))  # for the sake of time
    model = EmbeddingNet(narrow, embedding_dim=128, norm="lrn", input_size=(side, side))
    pictures = [torch.from_numpy(blob(i, j, side)) for i in range(people) for j in range(faces)]
    images = torch.stack(pictures).permute(0, 3, 1, 2) / 127.5 - 1
    labels = torch.arange(people).repeat_interleave(faces)
    same = labels[:, None] == labels
    triplets = (same & ~torch.eye(len(labels), dtype=torch.bool))[:, :, None] & ~same[:, None, :]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    losses = []
    for _ in range(9):
        embeddings = model(images)
        sq_dist = (embeddings[:, None] - embeddings[None]).square().sum(-1)
        loss = (sq_dist[:, :, None] - sq_dist[:, None, :] + 0.2).relu()[triplets].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    sq_dist = sq_dist.detach()
    assert 0.05 < losses[0] < 0.25, losses
    assert max(losses[-3:]) < losses[0] / 4, losses
    assert float(sq_dist[~same].mean()) > 2 * float(sq_dist[same].mean()), "apart, not collapsed"
