"""The heads against loops."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from facenet.errors import ConfigError
from facenet.losses.heads import HEADS, AdaFace
from tests.reference import softmax_cross_entropy_loops


def unit_rows(B: int, D: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return F.normalize(torch.randn(B, D, generator=generator, dtype=torch.float64), dim=1).to(dtype)


def measure(head: torch.nn.Module, lengths: torch.Tensor) -> None:
    """Tell AdaFace how long the embeddings of the next batch were."""
    if isinstance(head, AdaFace):
        head.take_lengths(lengths)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("name", HEADS)
def test_heads_equal_the_loops_and_ignore_unlabelled_rows(name: str, smoothing: float) -> None:
    torch.manual_seed(0)
    head = HEADS[name](5, 8, label_smoothing=smoothing).double()
    embeddings = (2 * unit_rows(7, 8)).requires_grad_()
    if isinstance(head, AdaFace):
        head.mean.fill_(30.0)
        head.deviation.fill_(4.0)
        head.eval()  # z is beyond 1 on both sides
    measure(head, torch.linspace(5.0, 60.0, 7, dtype=torch.float64))
    labels = torch.tensor([0, 4, -1, 2, 2, -1, 1])
    if name == "softmax":
        torch.nn.init.normal_(head.linear.bias)
        logits = embeddings @ head.linear.weight.T + head.linear.bias
    else:
        cosines = F.normalize(embeddings, dim=1) @ F.normalize(head.weight, dim=1).T
        logits = cosines.clone()
        for row, label in enumerate(labels.tolist()):
            if label >= 0 and name == "cosface":
                logits[row, label] -= head.margin
            elif label >= 0 and name == "adaface":
                z = min(1, max(-1, 0.333 * (5 + 55 * row / 6 - head.mean) / (head.deviation + 1e-3)))
                logits[row, label] = (cosines[row, label].acos() - 0.4 * z).cos() - 0.4 * z - 0.4
            elif label >= 0:
                logits[row, label] = (cosines[row, label].acos() + head.margin).cos()
        logits = head.scale * logits
    loss = head(embeddings, labels)
    expected = softmax_cross_entropy_loops(logits, labels, smoothing)
    assert expected > 0.1
    assert loss.item() == pytest.approx(expected, rel=1e-9)
    there = labels >= 0
    formula = F.cross_entropy(logits[there], labels[there], label_smoothing=smoothing)
    of = [embeddings, *head.parameters()]
    wanted, given = (torch.autograd.grad(one, of, retain_graph=True) for one in (formula, loss))
    torch.testing.assert_close(given, wanted, rtol=1e-9, atol=1e-11)
    loss.backward()
    assert (embeddings.grad[labels == -1] == 0).all()
    assert (embeddings.grad[labels >= 0] != 0).any(dim=1).all()
    assert all(parameter.grad.abs().max() > 0 for parameter in head.parameters())


@pytest.mark.parametrize("name", HEADS)
def test_heads_without_labelled_rows_give_zero_with_a_graph(name: str) -> None:
    for B in (0, 3):
        head, embeddings = HEADS[name](4, 8), unit_rows(B, 8, torch.float32).requires_grad_()
        measure(head, torch.full((B,), 20.0))
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
    measure(head, torch.full((12,), 20.0))
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
        ("arcface", {"centres": 0}),
        ("adaface", {"sampled": 1}),
    ],
)
def test_head_options_out_of_range_raise(name: str, options: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        HEADS[name](**{"num_classes": 3, "embedding_dim": 4, **options})


@pytest.mark.parametrize("centres", [1, 3])
def test_arcface_and_sub_centres_are_those_of_pytorch_metric_learning(centres: int) -> None:
    from pytorch_metric_learning import losses

    torch.manual_seed(0)
    head = HEADS["arcface"](5, 8, centres=centres).double()
    options = {"num_classes": 5, "embedding_size": 8, "margin": math.degrees(0.5), "scale": 64}
    theirs = losses.SubCenterArcFaceLoss(**options, sub_centers=3) if centres > 1 else losses.ArcFaceLoss(**options)
    theirs = theirs.double()
    theirs.W.data = head.weight.data.T.clone()
    ours, other = (unit_rows(7, 8).requires_grad_() for _ in range(2))
    labels = torch.tensor([0, 4, 3, 2, 2, 0, 1])
    loss, expected = head(ours, labels), theirs(other, labels)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-9)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(ours.grad, other.grad, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(head.weight.grad, theirs.W.grad.T, rtol=1e-9, atol=1e-11)


def test_adaface_follows_lengths_over_batches_and_asks_less_of_short_ones() -> None:
    torch.manual_seed(0)
    head = AdaFace(4, 8).double()
    for lengths in (torch.tensor([10.0, 30.0]), torch.tensor([20.0, 24.0])):
        head.take_lengths(lengths)
    assert head.mean.item() == pytest.approx(20 * 0.99**2 + 0.0099 * 20 + 0.01 * 22)
    deviations = 0.0099 * math.sqrt(200) + 0.01 * math.sqrt(8)
    assert head.deviation.item() == pytest.approx(100 * 0.99**2 + deviations)
    head.eval()
    cosines = torch.full((2, 1), 0.2, dtype=torch.float64)
    head.take_lengths(torch.tensor([1.0, 99.0]))
    short, long = head.lower(cosines).flatten().tolist()
    assert long < short < 0.2
    assert head.mean.item() == pytest.approx(20 * 0.99**2 + 0.0099 * 20 + 0.01 * 22), "evaluation moves nothing"


@pytest.mark.parametrize(("name", "centres"), [("cosface", 1), ("arcface", 2)])
def test_sampled_classes(name: str, centres: int) -> None:
    torch.manual_seed(0)
    full, every, few = (HEADS[name](50, 8, centres=centres, sampled=count).double() for count in (None, 50, 10))
    for head in (every, few):
        head.load_state_dict(full.state_dict())
    embeddings, labels = unit_rows(6, 8), torch.tensor([3, 3, -1, 49, 0, 7])
    assert every(embeddings, labels).item() == full(embeddings, labels).item()
    every.num_classes = 51  # so that all but one are drawn, which is not there
    every.weight.data = torch.cat([every.weight.data, torch.zeros(centres, 8)])
    directions, places = every._sample(labels)
    for label, place in zip(labels.tolist(), places.tolist(), strict=True):
        own = full.weight.view(50, centres, 8)[label]
        assert label == place == -1 or torch.equal(directions.view(50, centres, 8)[place], own)
    drawn = set()
    for seed in range(3):
        torch.manual_seed(seed)
        few.zero_grad()
        few(embeddings, labels).backward()
        learned = few.weight.grad.view(50, centres, 8).abs().sum((1, 2)).nonzero().flatten().tolist()
        assert {0, 3, 7, 49} <= set(learned)
        assert len(learned) == 10
        drawn |= set(learned)
    assert len(drawn) > 15
    few.sampled = 2  # fewer than the batch has
    assert len(few._sample(labels)[0]) == 4 * centres
    few.eval()
    few.sampled = 10
    assert few(embeddings, labels).item() == full(embeddings, labels).item()
    chosen, places = HEADS[name](50, 8, centres=centres, sampled=4)._sample(labels)
    assert len(chosen) == 4 * centres
    assert (places[labels == -1] == -1).all()
    assert places[0] == places[1] != places[3]


@pytest.mark.parametrize("name", ["cosface", "arcface", "adaface"])
def test_half_precision_has_gradients_at_a_direction_itself(name: str) -> None:
    torch.manual_seed(0)
    head = HEADS[name](5, 8)
    embeddings = head.weight.detach()[:3].clone().requires_grad_()
    measure(head, torch.full((3,), 20.0))
    with torch.autocast("cpu", torch.bfloat16):
        head(embeddings, torch.tensor([0, 1, 2])).backward()
    assert embeddings.grad.isfinite().all()
    assert head.weight.grad.isfinite().all()
