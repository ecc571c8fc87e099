"""Editions: an encoder keeps the layers it was trained with, its fingerprint and its numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from facenet.data.preprocess import Preprocess
from facenet.encoders.bundle import load_bundle, save_bundle
from facenet.encoders.encoder import Encoder
from facenet.errors import ConfigError
from facenet.models.build import build_model, build_recorded
from facenet.models.options import EDITION, ModelOptions, depends_on_edition, edition_of, recorded_options
from facenet.models.registry import NETS, entry_of
from facenet.models.tables import Conv, NetTable, Norm
from facenet.options import to_dict

NET = NetTable((16, 16), (Conv("conv1", 8, 3, 2), Norm("norm1"), Conv("conv2", 8, 3, 2)))
PLAIN: dict[str, Any] = {"embedding_dim": 8, "input_size": [16, 16]}
SINCOS = {"attention": {"after": "conv2", "heads": 2, "features": "sincos"}}
RELEVANT: list[dict[str, Any]] = [
    {"norm": "lrn"},
    SINCOS,
    {"attention": {"features": "sincos"}, "pool": "attention"},
    {"attention": {"after": "conv2", "normalise": False}},
]
IMAGES = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 20


@pytest.fixture(autouse=True)
def _net() -> Any:
    with NETS.restored():
        NETS.register("edited", entry_of(NET))
        yield


def net(options: dict[str, Any], edition: int) -> torch.nn.Module:
    torch.manual_seed(0)
    made = build_model("edited", **{**PLAIN, **options}, edition=edition).eval()
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if "qkv" in name or "temperature" in name:
                weight *= 30
            if name == "attention.gain":
                weight += 3
    return made


@pytest.mark.parametrize("options", RELEVANT)
def test_an_encoder_keeps_its_edition(options: dict[str, Any], tmp_path: Path) -> None:
    nets = [net(options, edition) for edition in (1, EDITION)]
    old, new = (made(IMAGES).detach().numpy() for made in nets)
    assert np.abs(old - new).max() > 1e-4
    for made, edition, expected in ((nets[0], 1, old), (nets[1], EDITION, new)):
        kept = recorded_options({**PLAIN, **options, "edition": edition})
        assert kept.get("edition", 1) == edition
        encoder = Encoder(made, "edited", kept, Preprocess(size=(16, 16), mirror=False))
        save_bundle(encoder, tmp_path / str(edition))
        loaded = load_bundle(tmp_path / str(edition))
        assert loaded.fingerprint == encoder.fingerprint
        np.testing.assert_array_equal(loaded.embed_batch(IMAGES), encoder.embed_batch(IMAGES))
        np.testing.assert_allclose(loaded.embed_batch(IMAGES), expected, atol=1e-6)
        wrong = recorded_options({**kept, "edition": 3 - edition})
        mixed = Encoder(made, "edited", wrong, encoder.preprocess)
        with pytest.raises(ConfigError, match=f"its net is of edition {edition}, its options say {3 - edition}"):
            save_bundle(mixed, tmp_path / "wrong")
        again = build_recorded("edited", **kept)
        again.load_state_dict(made.state_dict())
        np.testing.assert_array_equal(again.eval()(IMAGES).detach().numpy(), made(IMAGES).detach().numpy())


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"norm": "batch", "attention": None},
        {"attention": {"after": "conv2"}},
        {"attention": {"features": "sincos"}},
        {"attention": {"after": "conv2", "features": "elu", "normalise": False}},
        {"attention": {"after": None, "normalise": False}, "pool": "average"},
    ],
)
def test_where_editions_agree_nothing_is_recorded(options: dict[str, Any]) -> None:
    """So the fingerprints of most encoders are what they were."""
    assert not depends_on_edition(options)
    assert "edition" not in recorded_options({**options, "edition": EDITION})
    assert edition_of(options) == EDITION


def test_the_newest_edition_is_the_default() -> None:
    assert ModelOptions().edition == EDITION
    values = to_dict(ModelOptions(norm="lrn"))
    assert recorded_options(values)["edition"] == edition_of(recorded_options(values)) == EDITION
    assert edition_of({"norm": "lrn"}) == 1, "written before there were editions"
    assert build_model("edited", norm="lrn").edition == EDITION
