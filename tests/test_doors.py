"""A net, an objective and a miner from outside the package, each registered and used once for real."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from facenet.data.preprocess import Preprocess
from facenet.encoders.bundle import load_bundle, save_bundle
from facenet.encoders.encoder import Encoder
from facenet.errors import ConfigError
from facenet.losses.harmonic import reset_embedding_layer, stage
from facenet.losses.registry import OBJECTIVES, register_objective
from facenet.mining.online import mine
from facenet.mining.rules import MINERS, just_above, register_miner
from facenet.models.build import build_model
from facenet.models.registry import NETS, register_net
from facenet.models.summary import summarise, total
from facenet.training.module import TripletModule


class Stripes(nn.Module):
    """A net that sees the rows of an image alone."""

    def __init__(self, embedding_dim: int, input_size: tuple[int, int]) -> None:
        super().__init__()
        self.embedding_dim, self.input_size = embedding_dim, input_size
        self.last = nn.Linear(3 * input_size[0], embedding_dim)

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.normalize(self.last(images.mean(3).flatten(1)), dim=1)

    def embedding_layer(self) -> nn.Linear:
        return self.last


@pytest.fixture
def stripes() -> Iterator[None]:
    with NETS.restored():
        register_net("stripes", Stripes, input_size=(18, 16))
        yield


@pytest.mark.usefixtures("stripes")
def test_a_net_from_outside(tmp_path: Any) -> None:
    model = build_model("stripes", embedding_dim=5)
    images = torch.randn(3, 3, 18, 16, generator=torch.Generator().manual_seed(0))
    assert model.input_size == (18, 16)
    torch.testing.assert_close(model(images).norm(dim=1), torch.ones(3))
    assert total(summarise(model)) == (54 * 5, 54 * 5)
    encoder = Encoder(model, "stripes", {"embedding_dim": 5, "input_size": [18, 16]}, Preprocess(size=(18, 16)))
    save_bundle(encoder, tmp_path)
    assert (load_bundle(tmp_path).embed_batch(images) == encoder.embed_batch(images)).all()
    before = model.last.weight.clone()
    reset_embedding_layer(model)
    assert not torch.equal(model.last.weight, before)
    stage(model, embedding_alone=True)
    assert model.last.weight.requires_grad


@pytest.mark.usefixtures("stripes")
def test_a_net_from_outside_is_a_choice_and_refuses_what_it_does_not_have() -> None:
    with pytest.raises(ConfigError, match="did you mean 'stripes'"):
        build_model("strips")
    for option in ({"norm": "lrn"}, {"dropout": 0.5}, {"pool": "average"}, {"attention": {"after": "conv1"}}):
        with pytest.raises(ConfigError, match=rf"model\.{next(iter(option))}: the net 'stripes' has no such option"):
            build_model("stripes", **option)
    assert build_model("stripes", norm="batch", attention={"after": None}, input_size=(4, 4)).input_size == (4, 4)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda embedding_dim: nn.Linear(embedding_dim, 1), "returned a Linear; expected an nn.Module with"),
        (lambda: Stripes(7, (18, 16)), r"asked for embedding_dim=128 and input_size=\[18, 16\]; the module says 7"),
    ],
)
def test_a_builder_that_returns_no_net_is_refused(build: Any, message: str) -> None:
    with NETS.restored():
        register_net("broken", build, input_size=(18, 16))
        with pytest.raises(ConfigError, match=message):
            build_model("broken")


def test_a_size_is_two_numbers() -> None:
    for size in ((8,), (8, 0), (8.0, 8)):
        with pytest.raises(ConfigError, match=r"expected input_size=\(height, width\)"):
            register_net("flat", Stripes, input_size=size)  # type: ignore[arg-type]


class Centres(nn.Module):
    """The mean squared distance of each embedding to a learned centre of its class."""

    def __init__(self, num_classes: int, embedding_dim: int) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.zeros(num_classes, embedding_dim))

    def forward(
        self, embeddings: Tensor, labels: Tensor, step: int, old: Tensor | None
    ) -> tuple[Tensor, dict[str, float]]:
        assert old is None
        loss = (embeddings - self.centres[labels]).square().sum(1).mean()
        return loss, {"centres": float(self.centres.detach().norm()), "at": float(step)}


def test_an_objective_from_outside_with_weights_of_its_own() -> None:
    with OBJECTIVES.restored():
        register_objective("centres", Centres)
        module = TripletModule(
            model={"name": "small", "embedding_dim": 6, "input_size": [16, 32]},
            loss={"name": "centres", "margin": 0.2, "head": None},
            mining={"miner": "semi_hard"},
            optim={"name": "sgd", "lr": 0.1, "momentum": 0.0, "schedule": "constant", "warmup_steps": 0},
            num_classes=3,
            total_steps=5,
        )
    assert [key for key in module.state_dict() if not key.startswith("model.")] == ["head.centres"]
    logged: dict[str, float] = {}
    module.log_dict = logged.update  # type: ignore[method-assign, assignment]
    images, labels = torch.randn(4, 3, 16, 32), torch.tensor([0, 0, 2, 2])
    optimizer = module.configure_optimizers()["optimizer"]
    loss = module.objective(module.model(images), labels)
    assert loss.item() == pytest.approx(1.0)  # of unit embeddings to centres at 0
    assert logged == {"centres": 0.0, "at": 0.0}
    loss.backward()
    optimizer.step()
    assert (module.head.centres.norm(dim=1) > 0).tolist() == [True, False, True]  # type: ignore[union-attr, operator]
    assert module.objective(module.model(images), labels) < 0.95 * loss
    with pytest.raises(ConfigError, match=r"loss\.name: unknown name 'centres'"):
        TripletModule(**module.hparams)


RULES: dict[str, tuple[Any, Any]] = {  # the rule as mining takes it, and as an inequality
    "semi_easy": (lambda d, m: (d + m, d + 2 * m), lambda ap, an, m: ap + m <= an < ap + 2 * m),
    "shell": (lambda d, m: (0.5, just_above(torch.full_like(d, 1.5))), lambda ap, an, m: 0.5 <= an <= 1.5),
    "far": (lambda d, m: (just_above(2 * d), math.inf), lambda ap, an, m: an > 2 * ap),
    "never": (lambda d, m: (d, d - 1), lambda ap, an, m: False),
}


@pytest.mark.parametrize("fallback", ["none", "nearest_beyond"])
@pytest.mark.parametrize("name", RULES)
def test_a_miner_from_outside_takes_the_triplets_of_a_loop(name: str, fallback: str) -> None:
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randint(0, 2, (40, 16), generator=generator) / 2 - 0.25  # distances are multiples of 1/4
    labels, margin, (rule, valid) = torch.arange(40) % 9, 0.5, RULES[name]
    sq_dist = (embeddings[:, None] - embeddings[None]).square().sum(2).tolist()
    expected = []
    for a, p in ((a, p) for a in range(40) for p in range(40) if a != p and labels[a] == labels[p]):
        negatives = sorted((sq_dist[a][n], n) for n in range(40) if labels[n] != labels[a])
        taken = [n for d, n in negatives if valid(sq_dist[a][p], d, margin)]
        beyond = [n for d, n in negatives if d >= sq_dist[a][p] + margin]
        expected += [(a, p, n) for n in taken or (beyond[:1] if fallback != "none" else [])]
    options: dict[str, Any] = {"margin": margin, "miner": name, "select": "all", "fallback": fallback}
    with MINERS.restored():
        register_miner(name, rule)
        mined = [mine(embeddings, labels, block_rows=rows, **options) for rows in (None, 3)]
        with pytest.raises(ConfigError, match=f"did you mean '{name}'"):
            mine(embeddings, labels, margin=margin, miner=f"{name}_")
    for triplets in mined:
        assert list(zip(*(rows.tolist() for rows in triplets[:3]), strict=True)) == expected
        assert triplets.stats.triplets == len(expected)
    assert (len(expected) > 50) == ((name, fallback) != ("never", "none"))


@pytest.mark.parametrize(
    "rule", [lambda d, m: (d[:1], 4.0), lambda d, m: (0.0, d * math.nan), lambda d, m: (math.nan, 4)]
)
def test_a_rule_that_returns_no_bounds_is_refused(rule: Any) -> None:
    with MINERS.restored():
        register_miner("broken", rule)
        with pytest.raises(ConfigError, match=r"miner: the rule returned (a bound \(|NaN)"):
            mine(torch.eye(4), torch.tensor([0, 0, 0, 1]), margin=0.2, miner="broken")
