"""The triplet loss against autograd of its naive form."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from facenet.errors import ConfigError
from facenet.losses.triplet import triplet_loss
from facenet.mining.online import mine
from facenet.types import MiningStats, Triplets
from tests.reference import triplet_loss_naive

NO_STATS = MiningStats(0, 0, 0, 0, 0.0, 0.0, 0)


def triplets_of(rows: torch.Tensor) -> Triplets:
    """Triplets from int64 rows (T, 3)."""
    return Triplets(rows[:, 0], rows[:, 1], rows[:, 2], NO_STATS)


def unit_rows(B: int, D: int, seed: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(B, D, generator=generator, dtype=torch.float64), dim=1).to(dtype)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("margin", [0.0, 0.2, 2.0])
@pytest.mark.parametrize("scale", [1.0, 3.0], ids=["unit", "not_unit"])
def test_loss_and_gradient_equal_the_naive_form(reduction: str, margin: float, scale: float) -> None:
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randint(0, 12, (60, 3), generator=generator)  # any order, rows repeated, also a = p or a = n
        ours = (scale * unit_rows(12, 8, seed)).requires_grad_()
        naive = ours.detach().clone().requires_grad_()
        loss = triplet_loss(ours, triplets_of(rows), margin=margin, reduction=reduction)
        expected = triplet_loss_naive(naive, *rows.T.tolist(), margin) / (60 if reduction == "mean" else 1)
        (3 * loss).backward()
        (3 * expected).backward()
        assert loss.dtype == torch.float64
        assert expected > 0.01
        assert naive.grad.abs().max() > 0.01
        assert loss.item() == pytest.approx(expected.item(), abs=1e-9)
        assert (ours.grad - naive.grad).abs().max() < 1e-9


@pytest.mark.parametrize("miner", ["semi_hard", "hard", "all_valid"])
@pytest.mark.parametrize("select", ["nearest", "all"])
def test_mined_triplets_have_the_naive_gradient(miner: str, select: str) -> None:
    ours = unit_rows(24, 6, 0).requires_grad_()
    naive = ours.detach().clone().requires_grad_()
    triplets = mine(ours, torch.arange(24) % 6, margin=0.2, miner=miner, select=select)
    loss = triplet_loss(ours, triplets, margin=0.2)
    expected = triplet_loss_naive(naive, *(rows.tolist() for rows in triplets[:3]), 0.2) / len(triplets.anchor)
    loss.backward()
    expected.backward()
    assert expected > 0.01
    assert loss.item() == pytest.approx(expected.item(), abs=1e-9)
    assert (ours.grad - naive.grad).abs().max() < 1e-9


def test_gradcheck() -> None:
    rows = torch.tensor([[0, 1, 2], [1, 0, 3], [3, 4, 0], [0, 1, 2]])
    vectors = unit_rows(5, 3, 1).requires_grad_()

    def loss(v: torch.Tensor) -> torch.Tensor:
        return triplet_loss(v, triplets_of(rows), margin=2.5, reduction="sum")

    assert loss(vectors) > 1
    assert torch.autograd.gradcheck(loss, vectors)
    assert torch.autograd.gradgradcheck(loss, vectors)


def test_satisfied_triplets_have_no_gradient() -> None:
    vectors = torch.eye(3, dtype=torch.float64)[[0, 0, 1]].requires_grad_()
    loss = triplet_loss(vectors, triplets_of(torch.tensor([[0, 1, 2]])), margin=1.0)
    loss.backward()
    assert loss == 0
    assert (vectors.grad == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_no_triplets_give_zero_with_a_graph(dtype: torch.dtype) -> None:
    for B in (0, 4):
        vectors = unit_rows(B, 3, 0, dtype).requires_grad_()
        triplets = mine(vectors, torch.arange(B), margin=0.2)
        loss = triplet_loss(vectors, triplets, margin=0.2)
        loss.backward()
        assert loss == 0
        assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        assert vectors.grad.shape == vectors.shape
        assert (vectors.grad == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_collapsed_embeddings_give_the_margin_and_a_finite_gradient(dtype: torch.dtype) -> None:
    vectors = unit_rows(1, 16, 0, dtype).repeat(8, 1).requires_grad_()
    triplets = mine(vectors, torch.arange(8) % 2, margin=0.2, miner="hard")
    assert len(triplets.anchor) == 24
    loss = triplet_loss(vectors, triplets, margin=0.2)
    loss.backward()
    assert loss.item() == pytest.approx(0.2, abs=1e-6)
    assert vectors.grad.isfinite().all()
    assert vectors.grad.abs().max() < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_low_precision_computes_in_float32_also_under_autocast(dtype: torch.dtype) -> None:
    rows = torch.randint(0, 20, (200, 3), generator=torch.Generator().manual_seed(0))
    vectors = unit_rows(20, 8, 0, dtype).requires_grad_()
    exact = vectors.detach().double().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = triplet_loss(vectors, triplets_of(rows), margin=0.2)
    expected = triplet_loss(exact, triplets_of(rows), margin=0.2)
    loss.backward()
    expected.backward()
    assert expected > 0.1
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    assert vectors.grad.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2
    assert torch.allclose(vectors.grad.double(), exact.grad, atol=tolerance, rtol=tolerance)


def test_no_gradient_wanted() -> None:
    rows = torch.tensor([[0, 1, 2]])
    with torch.no_grad():
        loss = triplet_loss(unit_rows(3, 4, 0), triplets_of(rows), margin=3.0)
    assert loss > 0
    assert not loss.requires_grad


def test_unknown_reduction_raises() -> None:
    with pytest.raises(ConfigError, match="did you mean 'mean'"):
        triplet_loss(unit_rows(3, 4, 0), triplets_of(torch.tensor([[0, 1, 2]])), margin=0.2, reduction="men")


@pytest.mark.parametrize("order", [1, -1])
def test_it_can_be_read_without_gradients(order: int) -> None:
    vectors = unit_rows(12, 4, 0)
    triplets = mine(vectors, torch.arange(12) % 3, margin=0.4, miner="all_valid", select="all")
    triplets = triplets._replace(
        **{
            name: getattr(triplets, name).flip(0) if order < 0 else getattr(triplets, name)
            for name in triplets._fields[:3]
        }
    )
    expected = triplet_loss(vectors, triplets, margin=0.4)
    with torch.inference_mode():
        loss = triplet_loss(unit_rows(12, 4, 0), triplets, margin=0.4)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    assert loss > 0
