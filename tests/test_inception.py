"""The networks: the paper's counts, shapes, gradients, and independence of batch mates."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from facenet.errors import ConfigError
from facenet.models import MODELS, build_model
from facenet.models.inception import Inception, InceptionNet

SMALL_INPUT = {"nn4": (64, 64), "nns2": (140, 116), "small": (48, 48)}
# params, MACs, tolerances; NN4's MACs to 0.5 %, NNS2 is a reconstruction to 2 %
PAPER = {"nn4": (6_600_384, 284.7e6, 0.0, 0.005), "nns2": (4.3e6, 20e6, 0.02, 0.02)}


def count(model: InceptionNet) -> tuple[int, int]:
    """Weights and multiply-adds of convolutions and fully connected layers, without biases."""
    totals = [0, 0]

    def add(module: nn.Module, inputs: object, out: torch.Tensor) -> None:
        weights = module.weight.numel()  # type: ignore[operator, union-attr]
        totals[0] += weights
        totals[1] += weights * (out.shape[2] * out.shape[3] if out.ndim == 4 else 1)

    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(add)
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, *model.input_size))
    return totals[0], totals[1]


@pytest.mark.parametrize("name", sorted(PAPER))
def test_counts_of_the_paper(name: str) -> None:
    params, macs, params_tolerance, macs_tolerance = PAPER[name]
    counted = count(build_model(name, norm="lrn"))
    assert counted[0] == pytest.approx(params, rel=params_tolerance)
    assert counted[1] == pytest.approx(macs, rel=macs_tolerance)


def test_nn4_sizes_and_kernels() -> None:
    model = build_model("nn4", norm="lrn").eval()
    sizes = {}
    for name, stage in model.stages.items():
        stage.register_forward_hook(lambda m, i, o, name=name: sizes.update({name: tuple(o.shape[1:])}))
    with torch.no_grad():
        model(torch.zeros(1, 3, 96, 96))
    assert sizes["conv1"] == (64, 48, 48)
    assert sizes["pool1"] == (64, 24, 24)
    assert sizes["inception_2"] == (192, 24, 24)
    assert sizes["inception_3a"] == (256, 12, 12)
    assert sizes["inception_3c"] == (640, 6, 6)
    assert sizes["inception_4e"][1:] == (3, 3)
    assert sizes["inception_5b"] == (896, 3, 3)
    row = model.stages["inception_4a"]
    assert isinstance(row, Inception)
    kernels = {m.kernel_size for m in row.modules() if isinstance(m, nn.Conv2d)}
    assert kernels == {(1, 1), (3, 3), (5, 5)}, "5x5 is really 5x5"
    kernels_5a = {m.kernel_size for m in model.stages["inception_5a"].modules() if isinstance(m, nn.Conv2d)}
    assert (5, 5) not in kernels_5a


@pytest.mark.parametrize("norm", ["batch", "lrn"])
@pytest.mark.parametrize("name", sorted(MODELS))
def test_forward_backward_and_batch_mates(name: str, norm: str) -> None:
    torch.manual_seed(0)
    model = build_model(name, norm=norm, input_size=SMALL_INPUT[name], embedding_dim=24, dropout=0.2)
    images = torch.randn(4, 3, *SMALL_INPUT[name])
    out = model(images)
    assert out.shape == (4, 24)
    torch.testing.assert_close(out.norm(dim=1), torch.ones(4))
    (out * torch.randn(4, 24)).sum().backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert torch.isfinite(parameter.grad).all(), parameter_name
        assert parameter.grad.abs().sum() > 0, parameter_name
    model.eval()
    with torch.no_grad():
        together, alone = model(images)[1], model(images[1:2])[0]
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def test_options_fail_at_the_door() -> None:
    with pytest.raises(ConfigError, match="did you mean 'small'"):
        build_model("smal")
    with pytest.raises(ConfigError, match=r"model\.norm"):
        build_model("small", norm="layer")
    for wrong in ({"embedding_dim": 0}, {"dropout": 1.0}, {"input_size": (8, 8)}):
        with pytest.raises(ConfigError):
            build_model("small", **wrong)  # type: ignore[arg-type]


def test_any_size_for_averaging_nets() -> None:
    model = build_model("small").eval()
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 50, 70)).shape == (1, 128)
