from __future__ import annotations

import copy
import functools
from typing import Any

import pytest
import torch

from facenet.errors import ConfigError
from facenet.large_batch.chunks import backward
from facenet.training.module import TripletModule
from tests.helpers.training import CONFIG


def build(**loss: object) -> TripletModule:
    config = copy.deepcopy(CONFIG)
    config["loss"] |= loss
    torch.manual_seed(0)
    module = TripletModule(**config)
    module.log = module.log_dict = lambda *args, **kwargs: None  # type: ignore[assignment]
    return module


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randn(15, 3, 32, 32), torch.arange(5).repeat_interleave(3)


def step(module: TripletModule, at: int) -> float:
    type(module).global_step = property(lambda self: at)  # type: ignore[assignment, method-assign]
    try:
        images, labels = batch()
        return module.objective(module._train_forward(images), labels).item()
    finally:
        del type(module).global_step


def test_schedule_softmax_then_triplet() -> None:
    softmax, triplet, both = build(name="softmax"), build(), build(name="softmax_then_triplet")
    assert both.head is not None
    both.head.load_state_dict(softmax.head.state_dict())  # type: ignore[union-attr]
    head_loss, triplet_loss = step(softmax, 0), step(triplet, 0)
    assert head_loss > 1 > triplet_loss > 0
    assert step(both, 0) == pytest.approx(head_loss, rel=1e-5)
    assert step(both, 4) == pytest.approx(head_loss, rel=1e-5)
    assert step(both, 5) == pytest.approx(triplet_loss + 0.25 * head_loss, rel=1e-5)


@pytest.mark.parametrize("name", ["triplet", "softmax", "softmax_then_triplet"])
def test_every_loss_reaches_every_weight(name: str) -> None:
    module = build(name=name)
    images, labels = batch()
    module.objective(module(images), labels).backward()
    for key, parameter in module.model.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key


def test_adaface_is_told_the_length_of_each_image_also_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TripletModule, "global_step", property(lambda self: 0))
    images, labels = batch()
    losses = []
    for chunk_size in (None, 4):
        module = build(name="softmax", head={"name": "adaface"})
        module.model.eval()
        loss = backward(
            module.model,
            images,
            functools.partial(module.objective, labels=labels),
            chunk_size=chunk_size,
            embed=module._train_forward,
        )
        net: Any = module.model
        expected = net.embedding(net.features(images)).norm(dim=1)
        torch.testing.assert_close(module.head._lengths, expected.detach().clamp(1e-3, 100))  # type: ignore[union-attr]
        count = len(module._lengths)
        module.eval()
        module(images)
        assert len(module._lengths) == count, "evaluation is not measured"
        losses.append(loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_hyper_parameters_are_plain_and_rebuild_the_module(tmp_path: Any) -> None:
    module = build()
    path = tmp_path / "x.ckpt"
    torch.save({"hyper_parameters": dict(module.hparams), "state_dict": module.state_dict()}, path)
    content = torch.load(path, weights_only=True)
    again = TripletModule(**content["hyper_parameters"])
    again.load_state_dict(content["state_dict"])
    images = batch()[0]
    module.eval(), again.eval()
    with torch.no_grad():
        torch.testing.assert_close(again(images), module(images))
        torch.testing.assert_close(module(images.flip(-1)), module(images), atol=1e-5, rtol=1e-4)


def test_bad_options() -> None:
    with pytest.raises(ConfigError, match=r"loss\.name: unknown name 'tripel' \(did you mean 'triplet'"):
        build(name="tripel")
    with pytest.raises(ConfigError, match=r"loss\.margin"):
        build(margin=0.0)
    with pytest.raises(ConfigError, match=r"loss\.head\.name"):
        build(name="softmax", head={"name": "arc"})


@pytest.mark.slow  # dynamo
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # dynamo's own, at a hook
@pytest.mark.parametrize("loss", [{}, {"name": "joint", "head": {"name": "adaface", "centres": 2}}])
def test_compiling_changes_neither_names_nor_losses(monkeypatch: pytest.MonkeyPatch, loss: dict[str, Any]) -> None:
    plain, compiled = build(**loss), build(**loss)
    compiled._compile = True
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    assert [step(compiled, at) for at in (0, 1)] == pytest.approx([step(plain, at) for at in (0, 1)], abs=1e-5)
    assert compiled._compiled is not None
    assert list(compiled.state_dict()) == list(plain.state_dict())
    assert not any("_orig_mod" in key for key in compiled.state_dict())


def test_where_compiling_fails_training_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*args: Any) -> Any:
        raise RuntimeError("no compiler\nfound")

    module = build()
    module._compile = True
    monkeypatch.setattr(torch, "compile", lambda function: broken)
    losses = [step(module, at) for at in (0, 1)]
    assert losses[0] == pytest.approx(step(build(), 0))
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["trainer.compile: failed (RuntimeError: no compiler found); going on without"]
