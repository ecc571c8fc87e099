"""The grammar of the row tables, input sizes, what joins the stages, and the scale of activations at the start."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from facenet.errors import ConfigError, DataError
from facenet.models.build import build_model
from facenet.models.net import EmbeddingNet, Inception
from facenet.models.registry import TABLES
from facenet.models.tables import Conv, Full, NetTable, Pool, Row

TINY = NetTable((24, 16), (Conv("conv1", 8, 3, 2), Pool("pool1"), Row("row", 4, 4, 8, 4, 4, "L2", 0, stride=2)))


def tiny(**options: object) -> EmbeddingNet:
    return EmbeddingNet(TINY, **{"embedding_dim": 6, "norm": "lrn", **options})  # type: ignore[arg-type]


def smooth_images(count: int, size: tuple[int, int]) -> Tensor:
    """Random images with structure: noise of 6x6 drawn large, (count, 3, H, W) in [-1, 1]."""
    noise = torch.rand(count, 3, 6, 6) * 2 - 1
    return nn.functional.interpolate(noise, size=size, mode="bicubic").clamp(-1, 1)


def test_a_row_counts_its_channels_and_names_its_columns() -> None:
    row = Row("row", 4, 3, 8, 2, 5, "L2", 0)
    assert row.out(7) == 4 + 8 + 5 + 7
    assert row._replace(proj=6).out(7) == 4 + 8 + 5 + 6
    module = Inception(row._replace(proj=6), 7, norm="lrn")
    assert module(torch.randn(2, 7, 9, 5)).shape == (2, 23, 9, 5)
    assert list(module.columns.values()) == ["1x1", "3x3 reduce", "3x3", "5x5 reduce", "5x5", "pool", "pool proj"]


def test_shrink_is_the_product_of_the_strides() -> None:
    assert TINY.least == 8
    assert {name: net.least for name, net in TABLES.items()} == {
        "nn1": 32,
        "nn2": 32,
        "nn3": 32,
        "nn4": 32,
        "nns1": 128,
        "nns2": 64,
        "small": 16,
    }


@pytest.mark.parametrize("pool", ["average", "attention"])
def test_nets_that_do_not_flatten_accept_any_size(pool: str) -> None:
    model = tiny(pool=pool).eval()
    with torch.no_grad():
        for size in ((8, 8), (9, 31), (50, 70)):
            assert model(torch.randn(2, 3, *size)).shape == (2, 6)
        with pytest.raises(DataError, match=r"expected sides of at least 8.*got 7x30"):
            model(torch.randn(2, 3, 7, 30))


def test_nets_that_flatten_accept_their_size_alone() -> None:
    for size in ((24, 16), (25, 9), (8, 8)):
        model = tiny(pool="flatten", input_size=size).eval()
        assert model(torch.randn(2, 3, *size)).shape == (2, 6)
        with pytest.raises(DataError, match=rf"expected {size[0]}x{size[1]}, got 26x16"):
            model(torch.randn(2, 3, 26, 16))


def test_what_is_no_image_fails_at_the_door() -> None:
    for shape in ((3, 24, 16), (2, 1, 24, 16)):
        with pytest.raises(DataError, match=r"expected \(batch, 3, height, width\)"):
            tiny()(torch.randn(*shape))
    with pytest.raises(ConfigError, match=r"model\.input_size: expected sides of at least 8"):
        tiny(input_size=(24, 7))


def test_fully_connected_layers_read_what_the_pool_gives() -> None:
    net = TINY._replace(head="flatten", full=(Full("fc1", 10), Full("fc2", 12, 3)))
    model = EmbeddingNet(net, embedding_dim=6, norm="lrn")
    assert [tuple(layer.weight.shape) for layer in model.full] == [(20, 3 * 2 * 24), (36, 10)]  # type: ignore[arg-type]
    pooled = EmbeddingNet(net, embedding_dim=6, norm="lrn", pool="average")
    assert pooled.full[0].in_features == 24
    assert model(torch.randn(2, 3, 24, 16)).shape == (2, 6)


def test_attention_comes_after_its_stage_and_changes_no_other_key() -> None:
    plain, block = tiny(), tiny(attention={"after": "pool1", "num_features": 8, "heads": 2})
    added = set(block.state_dict()) - set(plain.state_dict())
    assert set(plain.state_dict()) < set(block.state_dict())
    assert {key.split(".")[0] for key in added} == {"attention"}
    order: list[str] = []
    for name, module in [*block.stages.items(), ("attention", block.attention)]:
        assert module is not None
        module.register_forward_hook(lambda m, i, o, name=name: order.append(name))
    block(torch.randn(2, 3, 24, 16))
    assert order == ["conv1", "pool1", "attention", "row"]
    assert tiny(attention={"after": None, "heads": 4}).attention is None


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"attention": {"after": "rwo"}}, r"model\.attention\.after: unknown name 'rwo' \(did you mean 'row'\?\)"),
        ({"attention": {"after": "row", "haeds": 2}}, r"model\.attention\.haeds' .*did you mean 'heads'"),
        ({"attention": {"heads": 2}}, r"model\.attention: heads given, but .*conv1, pool1, row.*model\.pool=attention"),
        ({"attention": {"after": None, "seed": 1, "heads": 2}}, r"model\.attention: heads, seed given"),
        ({"pool": "attention", "attention": {"features": "foo"}}, r"attention\.features: unknown name 'foo'"),
        ({"pool": "averag"}, r"model\.pool: unknown name 'averag' \(did you mean 'average'\?\)"),
    ],
)
def test_a_wrong_option_names_its_key(options: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        tiny(**options)


@pytest.mark.parametrize("name", sorted(TABLES))
def test_scale_of_activations_at_the_start_without_batch_norm(name: str) -> None:
    torch.manual_seed(0)
    size = (96, 96) if name in ("nn1", "nn2", "nn3") else TABLES[name].input_size
    model = build_model(name, norm="lrn", input_size=size).eval()
    images = smooth_images(3, size)
    scale: dict[str, float] = {}
    parts = [*model.stages.items(), *model.full.named_children(), ("embedding", model.embedding)]
    for part, module in parts:
        module.register_forward_hook(
            lambda m, i, o, part=part: scale.update({part: float(o.square().mean() / images.square().mean())})
        )
    with torch.no_grad():
        out = model(images)
    assert len(scale) == len(parts)
    assert all(0.02 < value < 100 for value in scale.values()), scale
    assert float(torch.pdist(out).min()) > 0.02, "different images, different embeddings"


def test_the_layer_behind_l2_pooling_starts_smaller() -> None:
    torch.manual_seed(0)
    row = build_model("nn4", norm="lrn").stages["inception_4a"]
    assert isinstance(row, Inception)
    by_column = {column: row.get_submodule(f"branches.{path}") for path, column in row.columns.items()}
    pooled, plain = (by_column[name].conv.weight.std().item() for name in ("pool proj", "3x3 reduce"))
    assert pooled == pytest.approx(plain / 3, rel=0.02)
