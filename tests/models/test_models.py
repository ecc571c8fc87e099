"""All networks, plain, with an attention block and with an attention head: gradients, counts, round trip, seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from facenet.data.preprocess import Preprocess
from facenet.encoders.bundle import load_bundle, save_bundle
from facenet.encoders.encoder import Encoder
from facenet.errors import ConfigError, DataError
from facenet.models.build import build_model
from facenet.models.net import EmbeddingNet
from facenet.models.registry import KNOWN, TABLES
from facenet.models.summary import summarise, total
from facenet.models.tables import NORMS
from tests.helpers.models import CASES, options, smallest, table

slow = pytest.mark.slow  # NN1 alone has 34 million weights at its smallest
# Nets of a family share their code: in every run a few variants stand for all, the others run with -m slow.
KEPT = (("nn4", "block"), ("nns2", "plain"), ("inception_resnet_v1", "plain"), ("iresnet18", "plain"),
        ("mobilefacenet", "plain"), ("fmobilenet", "block"))  # fmt: skip
EACH = [
    pytest.param(name, variant, marks=[] if name == "small" or (name, variant) in KEPT else slow)
    for name, variant in CASES
]


def build(name: str, variant: str, seed: int = 0, **changes: Any) -> EmbeddingNet:
    torch.manual_seed(seed)
    return build_model(name, **{**options(name, variant), "input_size": smallest(name), **changes})


def pictures(name: str, count: int = 3) -> Tensor:
    return torch.randn(count, 3, *smallest(name), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("name", "variant"), EACH)
def test_every_parameter_learns(name: str, variant: str) -> None:
    norms = ("lrn", "batch") if variant == "plain" and name != "nn1" else ("lrn",)
    for change in [{"norm": norm} for norm in norms] if name in TABLES else [{}]:
        model = build(name, variant, dropout=0.2, **change)
        out = model(pictures(name))
        assert out.shape == (3, 12)
        torch.testing.assert_close(out.norm(dim=1), torch.ones(3))
        (out * torch.randn(3, 12)).sum().backward()
        for key, parameter in model.named_parameters():
            assert parameter.grad is not None, key
            assert torch.isfinite(parameter.grad).all(), key
            assert parameter.grad.abs().sum() > 0, key


@pytest.mark.parametrize(("name", "variant"), EACH)
def test_seed_batch_mates_counts_and_round_trip(name: str, variant: str, tmp_path: Path) -> None:
    model, images = build(name, variant).eval(), pictures(name)
    with torch.no_grad():
        together, alone = model(images), torch.cat([model(image[None]) for image in images])
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=1e-4)
    assert float(torch.pdist(together).min()) > 1e-3
    check_counts(model)
    encoder = Encoder(model, name, options(name, variant), Preprocess(size=smallest(name)))
    save_bundle(encoder, tmp_path)
    loaded = load_bundle(tmp_path)  # it recomputes the fingerprint
    assert loaded.options == encoder.options
    assert (loaded.embed_batch(images) == encoder.embed_batch(images)).all()
    again, state = build(name, variant).eval(), model.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in again.state_dict().items())
    with torch.no_grad():
        assert torch.equal(again(images), together)


def check_counts(model: EmbeddingNet) -> None:
    """The summary against a plain look at the weights, and against what the matrix products of a forward cost."""
    from torch.utils.flop_counter import FlopCounterMode

    counted = total(summarise(model))
    weights = [m.weight.numel() for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert counted.params == sum(weights)
    with FlopCounterMode(display=False) as flops:
        model(torch.zeros(1, 3, *model.input_size))
    assert counted.macs == flops.get_total_flops() / 2


def test_another_seed_gives_other_weights() -> None:
    first, second = build("small", "head", 0).state_dict(), build("small", "head", 1).state_dict()
    assert not torch.equal(first["embedding.weight"], second["embedding.weight"])
    assert not torch.equal(first["stages.conv1.conv.weight"], second["stages.conv1.conv.weight"])


def test_the_block_takes_part() -> None:
    plain, block = build("small", "plain").eval(), build("small", "block").eval()
    missing = block.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert missing
    assert all(key.startswith("attention.") for key in missing)
    images = pictures("small")
    with torch.no_grad():
        assert float((block(images) - plain(images)).abs().max()) > 1e-4


def test_an_old_record_without_the_new_options_loads(tmp_path: Path) -> None:
    encoder = Encoder(build("small", "plain"), "small", options("small", "plain"), Preprocess(size=smallest("small")))
    assert {"attention", "pool"}.isdisjoint(encoder.options)
    save_bundle(encoder, tmp_path)
    assert load_bundle(tmp_path).fingerprint == encoder.fingerprint


def test_a_record_with_a_wrong_stage_is_one_clear_error(tmp_path: Path) -> None:
    wrong = {**options("small", "block"), "attention": {"after": "conv9"}}
    save_bundle(Encoder(build("small", "plain"), "small", wrong, Preprocess(size=smallest("small"))), tmp_path)
    with pytest.raises(DataError, match=r"model\.attention\.after: unknown name 'conv9'"):
        load_bundle(tmp_path)


@pytest.mark.parametrize("name", ["nn1", "nns2"])
def test_pooling_frees_a_net_that_flattens_from_its_input_size(name: str) -> None:
    model = build(name, "head").eval()
    larger = tuple(side + 40 for side in smallest(name))
    with torch.no_grad():
        assert model(torch.randn(2, 3, *larger)).shape == (2, 12)
    with torch.device("meta"), pytest.raises(DataError, match="the net was built for one size"):
        build(name, "plain").eval()(torch.randn(2, 3, *larger))


@pytest.mark.parametrize("name", sorted([*TABLES, *KNOWN]))
def test_a_size_below_the_strides_fails_at_build(name: str) -> None:
    least = table(name).least
    with torch.device("meta"), pytest.raises(ConfigError, match=rf"at least {least}"):
        build_model(name, input_size=(least - 1, 300))


def test_options_fail_at_the_door() -> None:
    with pytest.raises(ConfigError, match="did you mean 'small'"):
        build_model("smal")
    with pytest.raises(ConfigError, match=r"model\.norm"):
        build_model("small", norm="layer")
    assert set(NORMS) == {"batch", "lrn"}
    for wrong in ({"embedding_dim": 0}, {"dropout": 1.0}, {"input_size": (8, 8)}, {"input_size": (64,)}):
        with pytest.raises(ConfigError):
            build_model("small", **wrong)  # type: ignore[arg-type]
