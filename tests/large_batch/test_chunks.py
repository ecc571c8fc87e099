"""The gradient cache against one graph over all chunks, and two ranks against one process."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from facenet.errors import ConfigError
from facenet.large_batch import chunks as large_batch
from facenet.large_batch.chunks import RankLost, backward, chunks, gather, synchronise
from facenet.losses.heads import CosFace
from facenet.losses.objective import head_objective, triplet_objective
from facenet.losses.triplet import triplet_loss
from facenet.mining.online import mine
from facenet.models.build import build_model
from facenet.models.layers import L2Normalize
from facenet.training.optim import build_optimizer
from tests.reference import chunked_backward

B, MARGIN = 14, 0.3
MINING = {"miner": "all_valid", "select": "all"}


def plain_net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, 8), L2Normalize())


def dropout_net() -> nn.Module:
    return nn.Sequential(
        plain_net()[0], nn.Dropout(0.4), nn.Flatten(), nn.Dropout(0.2), nn.Linear(216, 8), L2Normalize()
    )


def norm_net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(216, 8),
        nn.BatchNorm1d(8),
        L2Normalize(),
    )


NETS: dict[str, Callable[[], nn.Module]] = {"plain": plain_net, "dropout": dropout_net, "norm": norm_net}


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    return NETS[name]().double().train()


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(B, 3, 8, 8, generator=generator, dtype=torch.float64), torch.arange(B) % 4


def objective(labels: Tensor) -> Callable[[Tensor], Tensor]:
    def loss(embeddings: Tensor) -> Tensor:
        return triplet_loss(embeddings, mine(embeddings, labels, margin=MARGIN, **MINING), margin=MARGIN)  # type: ignore[arg-type]

    return loss


def gradients(model: nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("chunk_size", [1, 3, 5, 13, 14, 99, None])
@pytest.mark.parametrize("net", ["plain", "dropout", "norm"])
def test_chunks_give_the_gradient_of_one_graph(net: str, chunk_size: int | None) -> None:
    if net == "norm" and chunk_size == 1:
        chunk_size = 2  # one value cannot be normalised
    model, expected = build(net), build(net)
    images, labels = batch()
    torch.manual_seed(2)
    value = chunked_backward(expected, images, objective(labels), chunks(B, chunk_size))
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
    parts = chunks(count, chunk_size)
    sizes = [part.stop - part.start for part in parts]
    assert [row for part in parts for row in range(part.start, part.stop)] == list(range(count))
    assert max(sizes) <= chunk_size
    assert max(sizes) - min(sizes) <= 1
    assert len(parts) == -(-count // chunk_size)


def test_bad_chunk_size() -> None:
    with pytest.raises(ConfigError, match=r"large_batch\.chunk_size: expected at least 1, got 0"):
        chunks(3, 0)


def test_one_process_is_the_whole_world() -> None:
    rows = torch.rand(3, 2, requires_grad=True)
    assert gather(rows) is rows
    assert large_batch.anchor_share(5) is None
    assert large_batch.world() == (0, 1)
    synchronise(build("plain"))


# Two ranks: everything is computed in one pair of processes, and held against one process in the tests.

UNEVEN = (3, 5)


def _train(net: str, rank: int, size: int, steps: int = 1, accumulate: int = 1) -> dict[str, Any]:
    """Take steps on this rank's rows of the batch: gradients of the first, weights after the last."""
    model = build(net)
    torch.manual_seed(3)
    head = CosFace(4, 8).double()
    optimizer = build_optimizer([model, head], name="adamw", lr=1e-2)
    images, labels = batch()
    classes = torch.where(torch.arange(B) < 3, -1, labels)  # rows that the head ignores, more on one rank
    own = slice(rank * B // size, (rank + 1) * B // size)
    result: dict[str, Any] = {}
    for _ in range(steps):
        stats: Any = None

        def loss(embeddings: Tensor) -> Tensor:
            nonlocal stats
            triplet, stats = triplet_objective(embeddings, labels[own], margin=MARGIN, **MINING)  # type: ignore[arg-type]
            return (triplet + 0.3 * head_objective(head, embeddings, classes[own])) / accumulate

        optimizer.zero_grad()
        for turn in range(accumulate):
            value = backward(model, images[own] * (1 + turn), loss, chunk_size=B // 2)
        synchronise(model, head)
        result.setdefault("loss", large_batch.add_up(value.clone()))
        result.setdefault("stats", tuple(stats))
        result.setdefault("gradients", torch.cat([gradients(model), gradients(head)]))
        optimizer.step()
    return result | {"state": copy.deepcopy(model.state_dict()), "head": copy.deepcopy(head.state_dict())}


def _uneven(rank: int, size: int, cap: int, *, harmonic: bool = False) -> dict[str, Any]:
    """The loss of rows that the ranks share unevenly, with few pairs on one of them, and at most `cap` triplets.

    With `harmonic` they are mined together with old embeddings of theirs, one of which is not there.
    """
    rows = torch.randn(40, 8, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    rows, labels = nn.functional.normalize(rows, dim=1), torch.arange(40) % 7
    labels[1::2] += 100 * torch.arange(20)  # the odd rows, one rank's anchors, have few positives
    own = slice(0, 40) if size == 1 else (slice(0, 11), slice(11, 40))[rank]
    leaf = rows[own].clone().requires_grad_()
    more: dict[str, Any] = dict(MINING)
    if harmonic:
        old = nn.functional.normalize(rows + rows.roll(1, 1), dim=1)
        old[13] = torch.nan
        more["old"] = old[own]
    loss, stats = triplet_objective(leaf, labels[own], margin=MARGIN, max_triplets=cap, **more)
    loss.backward()
    return {"loss": large_batch.add_up(loss.detach().clone()), "grad": leaf.grad, "found": stats.triplets}


def _rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    result: dict[str, Any] = {net: _train(net, rank, 2, steps=3) for net in ("plain", "norm")}
    result["accumulated"] = _train("plain", rank, 2, accumulate=2)
    found = _uneven(rank, 2, 10**6)["found"]
    result |= {"uneven": _uneven(rank, 2, found), "capped": _uneven(rank, 2, found // 2)}
    result["harmonic"] = _uneven(rank, 2, 10**6, harmonic=True)
    rows = (torch.arange(UNEVEN[rank] * 2.0).view(-1, 2) + 100 * rank).requires_grad_()
    gathered = gather(rows)
    (gathered * torch.arange(16.0).view(8, 2) * (rank + 1)).sum().backward()
    result |= {"gathered": gathered.detach(), "grad": rows.grad, "share": large_batch.anchor_share(5)}
    sizes: list[int] = []
    all_reduce = dist.all_reduce
    dist.all_reduce = lambda values: (sizes.append(values.numel()), all_reduce(values))  # type: ignore[assignment]
    _train("norm", rank, 2)
    dist.all_reduce = all_reduce
    result["sizes"] = sizes
    torch.save(result, f"{folder}/{rank}.pt")
    dist.barrier()
    if rank == 1:
        os._exit(0)  # without a word
    try:
        gather(torch.zeros(2))
    except RankLost as error:
        Path(folder, "lost").write_text(str(error))
    os._exit(0)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, Any]], str]:
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.start_processes(_rank, (str(folder),), nprocs=2, start_method="spawn")  # type: ignore[no-untyped-call]
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)], (folder / "lost").read_text()


@pytest.mark.parametrize("net", ["plain", "norm"])
def test_two_ranks_are_one_process_on_the_whole_batch(ranks: tuple[list[dict[str, Any]], str], net: str) -> None:
    one = _train(net, 0, 1, steps=3)  # its two chunks are the groups of the two ranks' batch norms
    for result in ranks[0]:
        found = result[net]
        assert found["loss"].item() == pytest.approx(one["loss"].item(), rel=1e-9)
        assert found["stats"] == pytest.approx(one["stats"], rel=1e-6)
        assert one["stats"][0] > one["stats"][1] > 0
        torch.testing.assert_close(found["gradients"], one["gradients"], rtol=1e-9, atol=1e-12)
        for part in ("state", "head"):
            for key, value in one[part].items():
                torch.testing.assert_close(found[part][key], value, rtol=1e-6, atol=1e-6)
    first, second = (result[net] for result in ranks[0])
    assert all(torch.equal(value, second["state"][key]) for key, value in first["state"].items())


def test_two_ranks_accumulate_as_one_process(ranks: tuple[list[dict[str, Any]], str]) -> None:
    one = _train("plain", 0, 1, accumulate=2)
    assert (one["gradients"] - _train("plain", 0, 1)["gradients"]).norm() > 0.01  # the second batch counts
    for result in ranks[0]:
        torch.testing.assert_close(result["accumulated"]["gradients"], one["gradients"], rtol=1e-9, atol=1e-12)


def test_uneven_shares_give_the_loss_of_the_whole_up_to_the_cap(ranks: tuple[list[dict[str, Any]], str]) -> None:
    one = _uneven(0, 1, 10**6)
    assert [result["uneven"]["found"] for result in ranks[0]] == [one["found"]] * 2
    for result, part in zip(ranks[0], (slice(0, 11), slice(11, 40)), strict=True):
        assert result["uneven"]["loss"].item() == pytest.approx(one["loss"].item(), rel=1e-9)
        torch.testing.assert_close(result["uneven"]["grad"], one["grad"][part], rtol=1e-7, atol=1e-9)
        assert result["capped"]["loss"].item() == pytest.approx(one["loss"].item(), rel=0.1)  # a uniform sample's mean
        assert result["capped"]["loss"].item() != pytest.approx(one["loss"].item(), rel=1e-6)


def test_two_ranks_mine_old_and_new_embeddings_as_one_pool(ranks: tuple[list[dict[str, Any]], str]) -> None:
    one, alone = _uneven(0, 1, 10**6, harmonic=True), _uneven(0, 1, 10**6)
    assert one["found"] > 3 * alone["found"] > 0
    for result, part in zip(ranks[0], (slice(0, 11), slice(11, 40)), strict=True):
        assert result["harmonic"]["found"] == one["found"]
        assert result["harmonic"]["loss"].item() == pytest.approx(one["loss"].item(), rel=1e-9)
        torch.testing.assert_close(result["harmonic"]["grad"], one["grad"][part], rtol=1e-7, atol=1e-9)


def test_gathered_rows_stand_in_rank_order_and_have_the_exact_gradient(
    ranks: tuple[list[dict[str, Any]], str],
) -> None:
    expected = torch.cat([torch.arange(6.0).view(3, 2), torch.arange(10.0).view(5, 2) + 100])
    weights = torch.arange(16.0).view(8, 2) * 3  # 1 and 2 times, summed
    for result, part in zip(ranks[0], (slice(0, 3), slice(3, 8)), strict=True):
        assert torch.equal(result["gathered"], expected)
        assert torch.equal(result["grad"], weights[part])
    assert [result["share"].tolist() for result in ranks[0]] == [[0, 2, 4], [1, 3]]


def test_the_weights_gradients_travel_once(ranks: tuple[list[dict[str, Any]], str]) -> None:
    weights = sum(p.numel() for p in build("norm").parameters()) + 4 * 8
    statistics = 2 * (6 + 8)
    for result in ranks[0]:
        assert sorted(result["sizes"])[-1] == weights + statistics
        assert sum(size >= 200 for size in result["sizes"]) == 1


def test_a_lost_rank_is_named(ranks: tuple[list[dict[str, Any]], str]) -> None:
    assert ranks[1].startswith("rank 0 of 2 lost the others: a process of this job ended")
    assert ranks[1].endswith("resume=auto (hydra.run.dir=RUN)")
