"""The gradient cache against one graph over all chunks."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from facenet.errors import ConfigError
from facenet.large_batch.chunks import backward, divide
from facenet.losses.heads import CosFace
from facenet.models.build import build_model
from tests.helpers.large_batches import B, batch, build, gradients, objective
from tests.reference import chunked_backward


@pytest.mark.parametrize("chunk_size", [1, 3, 5, 13, 14, 99, None])
@pytest.mark.parametrize("net", ["plain", "dropout", "norm"])
def test_chunks_give_the_gradient_of_one_graph(net: str, chunk_size: int | None) -> None:
    if net == "norm" and chunk_size == 1:
        chunk_size = 2  # one value cannot be normalised
    model, expected = build(net), build(net)
    images, labels = batch()
    torch.manual_seed(2)
    value = chunked_backward(expected, images, objective(labels), divide(B, chunk_size))
    after = torch.rand(1)
    torch.manual_seed(2)
    loss = backward(model, images, objective(labels), chunk_size=chunk_size)
    assert loss.item() == pytest.approx(value.item(), rel=1e-12)
    assert loss > 0
    assert not loss.requires_grad
    torch.testing.assert_close(gradients(model), gradients(expected), rtol=1e-9, atol=1e-12)
    assert gradients(model).norm() > 1e-3
    assert torch.equal(torch.rand(1), after)  # draws go on as after one pass


def test_a_lrn_net_in_chunks_is_the_net_at_once() -> None:
    torch.manual_seed(0)
    model = build_model("nns2", norm="lrn", dropout=0.0).double().train()
    twin = copy.deepcopy(model)
    images = torch.randn(8, 3, *model.input_size, dtype=torch.float64)
    labels = torch.arange(8) // 2
    backward(model, images, objective(labels), chunk_size=3)
    backward(twin, images, objective(labels))
    difference = (gradients(model) - gradients(twin)).norm() / gradients(twin).norm()
    assert difference < 1e-9


def test_running_statistics_move_once_by_the_mean_of_the_chunks() -> None:
    model, images, labels = build("norm"), *batch()
    seen: list[Tensor] = []
    model[1].register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0].detach()))
    before = model[1].running_mean.clone(), model[1].running_var.clone()
    backward(model, images, objective(labels), chunk_size=5)
    assert len(seen) == 6  # two passes over three chunks
    mean = torch.stack([x.mean((0, 2, 3)) for x in seen[:3]]).mean(0)
    var = torch.stack([x.var((0, 2, 3)) for x in seen[:3]]).mean(0)
    torch.testing.assert_close(model[1].running_mean, 0.9 * before[0] + 0.1 * mean)
    torch.testing.assert_close(model[1].running_var, 0.9 * before[1] + 0.1 * var)
    assert model[1].num_batches_tracked == 1
    assert model[1].momentum == 0.1
    assert model[1].track_running_stats


def test_statistics_survive_a_failure() -> None:
    model, images, labels = build("norm"), *batch()

    def broken(embeddings: Tensor) -> Tensor:
        raise ValueError("no loss")

    calls: list[int] = []

    def breaks(piece: Tensor) -> Tensor:
        calls.append(len(piece))
        if len(calls) == 2:
            raise ValueError("no embedding")
        embeddings: Tensor = model(piece)
        return embeddings

    kept = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match="no embedding"):
        backward(model, images, objective(labels), chunk_size=5, embed=breaks)
    assert all(torch.equal(value, kept[key]) for key, value in model.state_dict().items())
    with pytest.raises(ValueError, match="no loss"):
        backward(model, images, broken, chunk_size=5)
    assert model[1].momentum == 0.1
    assert model[1].track_running_stats
    frozen = build("norm").eval()
    state = copy.deepcopy(frozen.state_dict())
    backward(frozen, images, objective(labels), chunk_size=5)
    assert all(torch.equal(value, state[key]) for key, value in frozen.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_reaches_every_weight(dtype: torch.dtype) -> None:
    images, labels = batch()
    grads = []
    for chunk_size in (None, 5):
        model = build("plain").float()
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, enabled=dtype is torch.float16)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        with torch.autocast("cpu", dtype=dtype):
            backward(model, images.float(), objective(labels), chunk_size=chunk_size, scale=scaler.scale)
        assert all(p.grad is not None and p.grad.any() for p in model.parameters())
        before = gradients(model).norm()
        scaler.unscale_(optimizer) if dtype is torch.float16 else None
        grads.append(gradients(model))
        if dtype is torch.float16:
            assert before / grads[-1].norm() == pytest.approx(1024, rel=1e-3)
    exact = build("plain")
    backward(exact, images, objective(labels))
    for grad in grads:
        assert (grad - gradients(exact)).norm() / gradients(exact).norm() < 0.05


class Watched:
    """Images that remember which slices were taken."""

    def __init__(self, images: Tensor) -> None:
        self.images, self.sizes = images, list[int]()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, part: slice) -> Tensor:
        self.sizes.append(len(self.images[part]))
        return self.images[part]


def test_no_more_than_a_chunk_is_made_at_a_time_and_the_loss_is_called_once() -> None:
    model, (images, labels) = build("plain"), batch()
    watched, calls = Watched(images), list[int]()

    def loss(embeddings: Tensor) -> Tensor:
        calls.append(len(embeddings))
        return objective(labels)(embeddings)

    embedded: list[int] = []

    def embed(piece: Tensor) -> Tensor:
        embedded.append(len(piece))
        out: Tensor = model(piece)
        return out

    backward(model, watched, loss, chunk_size=4, embed=embed)
    assert calls == [B]
    assert watched.sizes == embedded == [3, 4, 3, 4] * 2


def test_parameters_of_the_loss_get_their_gradient_once() -> None:
    model, (images, labels) = build("plain"), batch()
    head = CosFace(4, 8).double()
    backward(model, images, lambda embeddings: head(embeddings, labels), chunk_size=4)
    first = gradients(head)
    twin = copy.deepcopy(head)
    twin.zero_grad()
    twin(build("plain")(images), labels).backward()
    torch.testing.assert_close(first, gradients(twin))


@pytest.mark.parametrize("chunk_size", [None, 4])
def test_a_frozen_network_lets_the_head_learn(chunk_size: int | None) -> None:
    model, (images, labels) = build("plain").requires_grad_(False), batch()
    head = CosFace(4, 8).double()
    backward(model, images, lambda embeddings: head(embeddings, labels), chunk_size=chunk_size)
    assert gradients(head).norm() > 0


def test_what_autocast_spares_goes_back_in_float32() -> None:
    class Spared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.eye(8) + 0.01 * torch.arange(64.0).view(8, 8))

        def forward(self, x: Tensor) -> Tensor:
            with torch.autocast("cpu", enabled=False):
                return nn.functional.normalize(x.float() @ self.weight, dim=1)

    rows, labels = torch.randn(12, 8, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 3
    grads = []
    for half in (True, False):
        model = Spared()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            backward(model, rows, objective(labels), chunk_size=5)
        grads.append(gradients(model))
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-5, atol=1e-7)


@given(count=st.integers(1, 4000), chunk_size=st.integers(1, 4000))
@settings(deadline=None)
def test_chunks_cover_the_batch_evenly(count: int, chunk_size: int) -> None:
    parts = divide(count, chunk_size)
    sizes = [part.stop - part.start for part in parts]
    assert [row for part in parts for row in range(part.start, part.stop)] == list(range(count))
    assert max(sizes) <= chunk_size
    assert max(sizes) - min(sizes) <= 1
    assert len(parts) == -(-count // chunk_size)


def test_bad_chunk_size() -> None:
    with pytest.raises(ConfigError, match=r"large_batch\.chunk_size: expected at least 1, got 0"):
        divide(3, 0)
