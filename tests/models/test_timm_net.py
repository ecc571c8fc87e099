"""Nets of the package timm as ours: unit vectors, sizes, bundles, the published weights, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from facenet.data.preprocess import Preprocess
from facenet.encoders.bundle import load_bundle, save_bundle
from facenet.encoders.encoder import Encoder
from facenet.errors import ConfigError
from facenet.losses.harmonic import reset_embedding_layer
from facenet.models import timm_net
from facenet.models.build import build_model
from facenet.models.options import ModelOptions, recorded_options
from facenet.options import to_dict
from facenet.training.options import TrainOptions
from facenet.training.start import load_start, take_net

pytest.importorskip("timm", reason="pip install facenet-triplet[timm]")
NET = {"timm": "test_resnet", "embedding_dim": 12, "input_size": (48, 32)}


def test_a_net_of_timm_gives_unit_vectors_and_survives_a_bundle(tmp_path: Path) -> None:
    model = build_model("timm", **NET, dropout=0.3)  # type: ignore[arg-type]
    images = torch.rand(3, 3, 48, 32) * 2 - 1
    out = model(images)
    torch.testing.assert_close(out.norm(dim=1), torch.ones(3))
    out.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    options = {**NET, "input_size": [48, 32], "dropout": 0.3}
    encoder = Encoder(model, "timm", options, Preprocess(size=(48, 32)))
    save_bundle(encoder, tmp_path)
    loaded = load_bundle(tmp_path)
    assert (loaded.embed_batch(images) == encoder.embed_batch(images)).all()
    assert loaded.fingerprint == encoder.fingerprint
    assert isinstance(model.embedding_layer(), nn.Linear)
    reset_embedding_layer(model)


def test_images_are_brought_to_what_the_net_was_trained_on() -> None:
    model = build_model("timm", timm="resnet18", embedding_dim=4, input_size=(48, 32)).eval()
    seen: list[torch.Tensor] = []
    model.body.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))  # type: ignore[union-attr]
    white = torch.ones(1, 3, 48, 32)
    model(white)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    torch.testing.assert_close(seen[0], ((1 - mean) / std).expand(1, 3, 48, 32))


def test_a_transformer_is_built_for_its_size() -> None:
    with torch.device("meta"):
        model = build_model("timm", timm="vit_tiny_patch16_224", embedding_dim=8, input_size=(112, 112))
        assert model(torch.zeros(2, 3, 112, 112)).shape == (2, 8)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("timm", {}, r"model\.timm: expected the name of a net of timm"),
        ("timm", {"timm": "resnet81"}, r"model\.timm: timm has no net 'resnet81' \(did you mean 'resnet\w+'\?\)"),
        ("timm", {"timm": "deit_tiny_distilled_patch16_224"}, r"it has no single classifier"),
        ("timm", {"timm": "resnet18", "norm": "lrn"}, r"model\.norm: the net 'timm' has no such option"),
        ("timm", {"timm": "resnet18", "pool": "flatten"}, r"model\.pool: the net 'timm' has no such option"),
        ("small", {"timm": "resnet18"}, r"model\.timm: .*'small'"),
    ],
)
def test_what_no_net_of_timm_has(name: str, options: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        build_model(name, **options)  # type: ignore[arg-type]


def test_published_weights_fill_all_but_the_embedding_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    create = timm_net.package().create_model

    def offline(name: str, *, pretrained: bool, **options: object) -> nn.Module:
        asked.append(pretrained)
        torch.manual_seed(5 if pretrained else 6)
        return create(name, pretrained=False, **options)

    monkeypatch.setattr(timm_net.package(), "create_model", offline)
    options = TrainOptions(init="timm", model={"name": "timm", **NET})  # type: ignore[arg-type]
    model, drawn = (build_model("timm", **NET) for _ in range(2))  # type: ignore[arg-type]
    load_start(model, options)
    assert asked == [False, False, True]
    torch.manual_seed(5)
    expected = create("test_resnet", num_classes=12).state_dict()
    assert all(torch.equal(value, expected[name.removeprefix("body.")])
               for name, value in model.state_dict().items() if name.startswith("body."))  # fmt: skip
    assert not torch.equal(next(model.parameters()), next(drawn.parameters()))
    with pytest.raises(ConfigError, match=r"init=timm: it is for nets of timm"):
        take_net(TrainOptions(init="timm"))
    assert take_net(options) == options


def test_what_a_net_computes_when_it_is_built_is_there_after_loading(tmp_path: Path) -> None:
    options = {"timm": "swin_tiny_patch4_window7_224", "embedding_dim": 4, "input_size": [56, 56]}
    model = build_model("timm", **{**options, "input_size": (56, 56)})  # type: ignore[arg-type]
    assert len(list(model.buffers())) > len([key for key in model.state_dict() if "index" in key or "mean" in key])
    encoder = Encoder(model, "timm", options, Preprocess(size=(56, 56)))
    save_bundle(encoder, tmp_path)
    images = torch.rand(2, 3, 56, 56) * 2 - 1
    assert (load_bundle(tmp_path).embed_batch(images) == encoder.embed_batch(images)).all()


def test_other_nets_record_nothing_of_timm() -> None:
    assert "timm" not in recorded_options(to_dict(ModelOptions()))
    assert recorded_options(to_dict(ModelOptions(name="timm", timm="resnet18")))["timm"] == "resnet18"
