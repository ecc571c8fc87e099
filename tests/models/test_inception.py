"""The Inception nets: the paper's counts, sizes, kernels and pooling kinds, row by row."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from facenet.models.build import build_model
from facenet.models.layers import L2Pool2d
from facenet.models.net import EmbeddingNet, Inception
from facenet.models.summary import summarise, total

# params, MACs, tolerances: exact weights where the paper prints a table, 2 % where it prints totals alone
PAPER = {
    "nn2": (7_448_256, 1596.5e6, 0.0, 0.005),
    "nn3": (7_448_256, 814.6e6, 0.0, 0.005),
    "nn4": (6_600_384, 284.7e6, 0.0, 0.005),
    "nns1": (26e6, 220e6, 0.02, 0.02),
    "nns2": (4.3e6, 20e6, 0.02, 0.02),
}
INPUTS = {"nn2": (224, 224), "nn3": (160, 160), "nn4": (96, 96), "nns1": (165, 165), "nns2": (140, 116)}

# Table 2: size-out side and channels, then 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pooling kind, projection, stride
TABLE_2 = {
    "inception_3a": (28, 256, 64, 96, 128, 16, 32, "max", 32, 1),
    "inception_3b": (28, 320, 64, 96, 128, 32, 64, "L2", 64, 1),
    "inception_3c": (14, 640, 0, 128, 256, 32, 64, "max", 0, 2),
    "inception_4a": (14, 640, 256, 96, 192, 32, 64, "L2", 128, 1),
    "inception_4b": (14, 640, 224, 112, 224, 32, 64, "L2", 128, 1),
    "inception_4c": (14, 640, 192, 128, 256, 32, 64, "L2", 128, 1),
    "inception_4d": (14, 640, 160, 144, 288, 32, 64, "L2", 128, 1),
    "inception_4e": (7, 1024, 0, 160, 256, 64, 128, "max", 0, 2),
    "inception_5a": (7, 1024, 384, 192, 384, 48, 128, "L2", 128, 1),
    "inception_5b": (7, 1024, 384, 192, 384, 48, 128, "max", 128, 1),
}
STEM = {
    "conv1": (64, 112, 112),
    "pool1": (64, 56, 56),
    "norm1": (64, 56, 56),
    "inception_2": (192, 56, 56),
    "norm2": (192, 56, 56),
    "pool2": (192, 28, 28),
}


def sizes(model: EmbeddingNet, size: tuple[int, int]) -> dict[str, tuple[int, ...]]:
    """Output shape of every stage, and of what joins them."""
    found: dict[str, tuple[int, ...]] = {}
    for name, stage in [*model.stages.items(), ("pool", model.pool)]:
        stage.register_forward_hook(lambda m, i, o, name=name: found.update({name: tuple(o.shape[1:])}))
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, *size))
    return found


def convolutions(row: Inception) -> list[tuple[int, int, int, int]]:
    """Input width, output width, kernel and stride of each convolution in the order of the columns."""
    convs = [m for m in row.modules() if isinstance(m, nn.Conv2d)]
    assert all(m.kernel_size[0] == m.kernel_size[1] and m.groups == 1 for m in convs)
    return [(m.in_channels, m.out_channels, m.kernel_size[0], m.stride[0]) for m in convs]


@pytest.fixture(autouse=True)
def shapes_alone() -> Iterator[None]:
    """Build and run the nets without numbers: nothing here reads a weight, and there are many."""
    with torch.device("meta"):
        yield


@pytest.mark.parametrize("norm", ["lrn", "batch"])
@pytest.mark.parametrize("name", sorted(PAPER))
def test_counts_of_the_paper(name: str, norm: str) -> None:
    params, macs, params_tolerance, macs_tolerance = PAPER[name]
    model = build_model(name, norm=norm)
    assert model.input_size == INPUTS[name]
    counted = total(summarise(model))
    assert counted.params == pytest.approx(params, rel=params_tolerance, abs=0)
    assert counted.macs == pytest.approx(macs, rel=macs_tolerance)


def test_nn2_has_the_printed_size_after_every_row() -> None:
    found = sizes(build_model("nn2", norm="lrn"), (224, 224))
    expected = STEM | {name: (row[1], row[0], row[0]) for name, row in TABLE_2.items()} | {"pool": (1024,)}
    assert found == expected


@pytest.mark.parametrize("name", ["nn2", "nn3", "nn4"])
def test_kernels_widths_strides_and_pooling_of_table_2(name: str) -> None:
    model = build_model(name, norm="lrn")
    width = 192
    for row_name, (_, out, c1, r3, c3, r5, c5, kind, proj, stride) in TABLE_2.items():
        if name == "nn4" and row_name in ("inception_4e", "inception_5a", "inception_5b"):
            r5, c5, out = 0, 0, out - c5
        expected = [(width, c1, 1, 1)] if c1 else []
        expected += [(width, r3, 1, 1), (r3, c3, 3, stride)]
        expected += [(width, r5, 1, 1), (r5, c5, 5, stride)] if c5 else []
        expected += [(width, proj, 1, 1)] if proj else []
        row = model.stages[row_name]
        assert isinstance(row, Inception)
        assert convolutions(row) == expected, row_name
        pool = row.branches[-1][0]  # type: ignore[index]
        if kind == "L2":
            assert isinstance(pool, L2Pool2d)
            assert (pool.kernel, pool.stride) == (3, stride)
        else:
            assert isinstance(pool, nn.MaxPool2d)
            assert (pool.kernel_size, pool.stride) == (3, stride)
        width = out
    assert set(model.stages) == {*STEM, *TABLE_2}


def test_nn2_stem() -> None:
    model = build_model("nn2", norm="lrn")
    conv = model.stages["conv1"].conv
    assert (conv.kernel_size, conv.stride) == ((7, 7), (2, 2))  # type: ignore[union-attr]
    row = model.stages["inception_2"]
    assert isinstance(row, Inception)
    assert convolutions(row) == [(64, 64, 1, 1), (64, 192, 3, 1)]
    assert all(isinstance(model.stages[n], nn.LocalResponseNorm) for n in ("norm1", "norm2"))
    assert not any(isinstance(m, nn.LocalResponseNorm) for m in build_model("nn2", norm="batch").modules())


@pytest.mark.parametrize(
    ("name", "last"), [("nn3", (1024, 5, 5)), ("nn4", (896, 3, 3)), ("nns1", (2848, 2, 2)), ("nns2", (3608, 3, 2))]
)
def test_the_last_map_of_the_other_nets(name: str, last: tuple[int, int, int]) -> None:
    model = build_model(name, norm="lrn")
    assert sizes(model, INPUTS[name])[list(model.stages)[-1]] == last


def test_small_keeps_the_keys_of_encoders_on_disk() -> None:
    keys = set(build_model("small").state_dict())
    assert {key.split(".")[0] for key in keys} == {"stages", "embedding"}
    assert "stages.inception_3b.branches.0.0.conv.weight" in keys
    assert "stages.conv1.norm.running_mean" in keys
    assert len(keys) == 49
