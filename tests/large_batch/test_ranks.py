"""Two ranks against one process on the whole batch."""

from __future__ import annotations

import copy
import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from facenet.large_batch.chunks import backward
from facenet.large_batch.ranks import RankLost, add_up, anchor_share, gather, synchronise, world
from facenet.losses.heads import AdaFace, CosFace
from facenet.losses.objective import head_objective, triplet_objective
from facenet.training.optim import build_optimizer
from tests.helpers.large_batches import MARGIN, MINING, B, batch, build, gradients


def test_one_process_is_the_whole_world() -> None:
    rows = torch.rand(3, 2, requires_grad=True)
    assert gather(rows) is rows
    assert anchor_share(5) is None
    assert world() == (0, 1)
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
        result.setdefault("loss", add_up(value.clone()))
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
    return {"loss": add_up(loss.detach().clone()), "grad": leaf.grad, "found": stats.triplets}


def _lengths_of_adaface(rank: int, size: int) -> list[float]:
    """Mean and deviation of lengths after a batch that the ranks share unevenly."""
    head, lengths = AdaFace(4, 8).double(), torch.linspace(5.0, 60.0, 7)
    head.take_lengths(lengths if size == 1 else (lengths[:2], lengths[2:])[rank])
    return [head.mean.item(), head.deviation.item()]


def _rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    result: dict[str, Any] = {net: _train(net, rank, 2, steps=3) for net in ("plain", "norm")}
    result["accumulated"] = _train("plain", rank, 2, accumulate=2)
    found = _uneven(rank, 2, 10**6)["found"]
    result |= {"uneven": _uneven(rank, 2, found), "capped": _uneven(rank, 2, found // 2)}
    result["harmonic"] = _uneven(rank, 2, 10**6, harmonic=True)
    result["adaface"] = _lengths_of_adaface(rank, 2)
    rows = (torch.arange(UNEVEN[rank] * 2.0).view(-1, 2) + 100 * rank).requires_grad_()
    gathered = gather(rows)
    (gathered * torch.arange(16.0).view(8, 2) * (rank + 1)).sum().backward()
    result |= {"gathered": gathered.detach(), "grad": rows.grad, "share": anchor_share(5)}
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
    multiprocessing.set_forkserver_preload([__name__])  # torch is imported once for both
    torch.multiprocessing.start_processes(_rank, (str(folder),), nprocs=2, start_method="forkserver")  # type: ignore[no-untyped-call]
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


def test_adaface_has_the_lengths_of_all_ranks(ranks: tuple[list[dict[str, Any]], str]) -> None:
    expected = _lengths_of_adaface(0, 1)
    assert expected != [20.0, 100.0]
    for result in ranks[0]:
        assert result["adaface"] == pytest.approx(expected, rel=1e-12)


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
