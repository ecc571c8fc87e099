"""The heads against loops."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from facenet.errors import ConfigError
from facenet.losses.heads import HEADS
from tests.reference import softmax_cross_entropy_loops


def unit_rows(B: int, D: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return F.normalize(torch.randn(B, D, generator=generator, dtype=torch.float64), dim=1).to(dtype)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("name", HEADS)
def test_heads_equal_the_loops_and_ignore_unlabelled_rows(name: str, smoothing: float) -> None:
    torch.manual_seed(0)
    head = HEADS[name](5, 8, label_smoothing=smoothing).double()
    embeddings = (2 * unit_rows(7, 8)).requires_grad_()
    labels = torch.tensor([0, 4, -1, 2, 2, -1, 1])
    if name == "softmax":
        torch.nn.init.normal_(head.linear.bias)
        logits = embeddings @ head.linear.weight.T + head.linear.bias
    else:
        logits = F.normalize(embeddings, dim=1) @ F.normalize(head.weight, dim=1).T
        for row, label in enumerate(labels.tolist()):
            if label >= 0 and name == "cosface":
                logits[row, label] -= head.margin
            elif label >= 0:
                logits[row, label] = (logits[row, label].acos() + head.margin).cos()
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
        head, embeddings = HEADS[name](4, 8), unit_rows(B, 8, torch.float32).requires_grad_()
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
    embeddings, labels = unit_rows(6, 8, torch.float32), torch.arange(6) % 4
    assert strict(embeddings, labels) > plain(embeddings, labels) + 0.1
    assert plain(5 * embeddings, labels).item() == pytest.approx(plain(embeddings, labels).item(), rel=1e-5)
    zero = torch.zeros(2, 8, requires_grad=True)
    strict(zero, torch.tensor([0, 1])).backward()
    assert zero.grad.isfinite().all()


def test_arcface_falls_with_the_angle_and_its_gradient_is_finite() -> None:
    head = HEADS["arcface"](2, 2, scale=1.0, margin=0.5).double()
    angles = torch.linspace(0, torch.pi, 101, dtype=torch.float64)
    own = head.lower(angles.cos())
    assert (own.diff() < 0).all(), "also beyond pi - 0.5, where the cosine of the sum grows"
    before = angles < torch.pi - 0.5
    assert torch.allclose(own[before][1:], (angles[before][1:] + 0.5).cos(), atol=1e-9)
    for cosine in (1.0, -1.0):
        value = torch.tensor([cosine], requires_grad=True)
        head.lower(value).sum().backward()
        assert value.grad is not None
        assert value.grad.isfinite().all()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("softmax", {"label_smoothing": 1.0}),
        ("arcface", {"margin": 1.6}),
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
