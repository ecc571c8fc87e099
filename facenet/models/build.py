"""Networks by name: :func:`build_model`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from torch import nn

from facenet.errors import ConfigError, choose
from facenet.models.net import Net
from facenet.models.options import EDITION, AttentionOptions, edition_of
from facenet.models.registry import NETS
from facenet.options import build
from facenet.registry import named_by

if TYPE_CHECKING:

    class NetModule(nn.Module, Net):
        """A module that is a net."""


def build_model(
    name: str,
    *,
    embedding_dim: int = 128,
    norm: str = "batch",
    input_size: tuple[int, int] | None = None,
    dropout: float = 0.0,
    attention: Mapping[str, Any] | None = None,
    pool: str | None = None,
    timm: str | None = None,
    edition: int = EDITION,
) -> NetModule:
    """Build a network that maps images (B, 3, H, W) to unit embeddings (B, embedding_dim).

    Args:
        name: A key of `NETS`: a built-in net, or one that :func:`~facenet.models.registry.register_net` added.
        embedding_dim: Embedding width D; the paper's is 128 (table 5).
        norm: "batch", or "lrn" as in the paper.
        input_size: (H, W); None is the size the net was registered with. Nets that flatten (nn1, nns2) accept that size
            alone. Others accept any size their strides allow. Training on a single image needs more than one position
            behind the last stage, for batch norm.
        dropout: Share of features dropped before the embedding layer while training.
        attention: Linear attention over the positions of a stage's output: values of
            :class:`facenet.models.options.AttentionOptions`.
        pool: "average", "flatten", "depthwise" or "attention" in place of what the net has. "flatten" and "depthwise"
            fix the input size.
        timm: For the name "timm": a net of that package.
        edition: Definition of layers: 2, or 1 of earlier encoders, whose LRN divides alpha by n, and whose attention
            has no bound on queries and keys.

    Raises:
        ConfigError: An unknown name, norm, stage, option or pool, a number out of range, an option that a registered
            net does not have, or a registered net that does not keep to :class:`~facenet.models.net.Net`.
    """
    entry = choose(NETS, name, "model.name")
    if embedding_dim < 1:
        raise ConfigError(f"model.embedding_dim: expected at least 1, got {embedding_dim}")
    if not 0 <= dropout < 1:
        raise ConfigError(f"model.dropout: expected a share in [0, 1), got {dropout}")
    size = tuple(input_size or entry.input_size)
    if len(size) != 2:
        raise ConfigError(f"model.input_size: expected (height, width), got {input_size}")
    options = {
        "embedding_dim": embedding_dim,
        "norm": norm,
        "input_size": size,
        "dropout": dropout,
        "attention": attention,
        "pool": pool,
        "timm": timm,
        "edition": edition,
    }
    taken = named_by(entry.build, options)
    unused = {"norm": norm != "batch", "dropout": dropout > 0, "pool": bool(pool), "timm": bool(timm)}
    unused["attention"] = build(AttentionOptions, attention or {}, "model.attention.") != AttentionOptions()
    for option, given in unused.items():
        if given and option not in taken:
            raise ConfigError(f"model.{option}: the net {name!r} has no such option; leave it out")
    model = entry.build(**taken)
    _check_net(model, name, embedding_dim, size)
    return cast("NetModule", model)


def build_recorded(name: str, **options: Any) -> NetModule:
    """Build a net from options that an encoder or a checkpoint keeps; before there were editions it was edition 1.

    Raises:
        ConfigError: as :func:`build_model`.
    """
    return build_model(name, **{**options, "edition": edition_of(options)})


def _check_net(model: nn.Module, name: str, embedding_dim: int, size: tuple[int, ...]) -> None:
    """Refuse what a builder from outside returned if it is no net, or another one than was asked for."""
    if not isinstance(model, nn.Module) or not isinstance(model, Net):
        raise ConfigError(
            f"net {name!r}: its builder returned a {type(model).__name__}; expected an nn.Module with embedding_dim,"
            " input_size and embedding_layer(), see facenet.models.net.Net"
        )
    found = (model.embedding_dim, tuple(model.input_size))
    if found != (embedding_dim, size):
        raise ConfigError(
            f"net {name!r}: its builder was asked for embedding_dim={embedding_dim} and input_size={list(size)}; the"
            f" module says {found[0]} and {list(found[1])}"
        )
