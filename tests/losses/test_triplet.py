"""The triplet loss against autograd of its naive form; the heads against loops."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from facenet.errors import ConfigError
from facenet.losses.triplet import HEADS, LOSSES, triplet_loss
from facenet.mining.online import mine
from facenet.types import MiningStats, Triplets
from tests.reference import softmax_cross_entropy_loops, triplet_loss_naive

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
    for seed in range(10):
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


def test_losses_table() -> None:
    assert list(LOSSES.items()) == [("triplet", triplet_loss)]


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("name", HEADS)
def test_heads_equal_the_loops_and_ignore_unlabelled_rows(name: str, smoothing: float) -> None:
    torch.manual_seed(0)
    head = HEADS[name](5, 8, label_smoothing=smoothing).double()
    embeddings = (2 * unit_rows(7, 8, 0)).requires_grad_()
    labels = torch.tensor([0, 4, -1, 2, 2, -1, 1])
    if name == "softmax":
        torch.nn.init.normal_(head.linear.bias)
        logits = embeddings @ head.linear.weight.T + head.linear.bias
    else:
        logits = F.normalize(embeddings, dim=1) @ F.normalize(head.weight, dim=1).T
        for row, label in enumerate(labels.tolist()):
            if label >= 0:
                logits[row, label] -= head.margin
        logits = head.scale * logits
    loss = head(embeddings, labels)
    expected = softmax_cross_entropy_loops(logits, labels, smoothing)
    assert expected > 0.1
    assert loss.item() == pytest.approx(expected, rel=1e-9)
    loss.backward()
    assert (embeddings.grad[labels == -1] == 0).all()
    assert (embeddings.grad[labels >= 0] != 0).any(dim=1).all()
    assert all(parameter.grad.abs().max() > 0 for parameter in head.parameters())


@pytest.mark.parametrize("name", HEADS)
def test_heads_without_labelled_rows_give_zero_with_a_graph(name: str) -> None:
    for B in (0, 3):
        head, embeddings = HEADS[name](4, 8), unit_rows(B, 8, 0, torch.float32).requires_grad_()
        loss = head(embeddings, torch.full((B,), -1))
        loss.backward()
        assert loss == 0
        assert (embeddings.grad == 0).all()
        assert all((parameter.grad == 0).all() for parameter in head.parameters())


@pytest.mark.parametrize("name", HEADS)
def test_heads_learn_separable_classes(name: str) -> None:
    torch.manual_seed(0)
    embeddings, labels = torch.eye(4).repeat(3, 1), torch.arange(12) % 4
    head = HEADS[name](4, 4)
    optimiser = torch.optim.Adam(head.parameters(), lr=0.1)
    before = head(embeddings, labels).item()
    for _ in range(60):
        optimiser.zero_grad()
        head(embeddings, labels).backward()
        optimiser.step()
    assert head(embeddings, labels).item() < 0.1 * before


def test_cosface_margin_makes_the_loss_larger_and_length_does_not_matter() -> None:
    torch.manual_seed(0)
    plain = HEADS["cosface"](4, 8, scale=8.0, margin=0.0)
    strict = HEADS["cosface"](4, 8, scale=8.0, margin=0.3)
    strict.load_state_dict(plain.state_dict())
    embeddings, labels = unit_rows(6, 8, 0, torch.float32), torch.arange(6) % 4
    assert strict(embeddings, labels) > plain(embeddings, labels) + 0.1
    assert plain(5 * embeddings, labels).item() == pytest.approx(plain(embeddings, labels).item(), rel=1e-5)
    zero = torch.zeros(2, 8, requires_grad=True)
    strict(zero, torch.tensor([0, 1])).backward()
    assert zero.grad.isfinite().all()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("softmax", {"label_smoothing": 1.0}),
        ("softmax", {"label_smoothing": -0.1}),
        ("softmax", {"num_classes": 0}),
        ("cosface", {"scale": 0.0}),
        ("cosface", {"margin": -0.1}),
        ("cosface", {"embedding_dim": 0}),
    ],
)
def test_head_options_out_of_range_raise(name: str, options: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        HEADS[name](**{"num_classes": 3, "embedding_dim": 4, **options})


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
