"""The nets by name. Nothing here imports torch: a net's builder does when it is called."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from facenet.errors import ConfigError
from facenet.models.inception import INCEPTION_NETS
from facenet.models.tables import NetTable
from facenet.models.zeiler_fergus import ZEILER_FERGUS_NETS
from facenet.registry import Registry

if TYPE_CHECKING:
    from torch import nn

TABLES: dict[str, NetTable] = {**ZEILER_FERGUS_NETS, **INCEPTION_NETS}
# Nets that others made known: the module that has its table in `NETS`, and its input size.
KNOWN: dict[str, tuple[str, tuple[int, int]]] = {
    "inception_resnet_v1": ("inception_resnet", (160, 160)),
    **dict.fromkeys(("iresnet18", "iresnet50", "iresnet100"), ("iresnet", (112, 112))),
    **dict.fromkeys(("mobilefacenet", "mbf", "fmobilenet"), ("mobile", (112, 112))),
}


# Builds a net, which keeps to facenet.models.net.Net, from those options of facenet.build_model that it names.
BuildNet = Callable[..., "nn.Module"]


class NetEntry(NamedTuple):
    """A net that can be built, and the input size (H, W) it has unless told otherwise."""

    build: BuildNet
    input_size: tuple[int, int]


def entry_of(table: NetTable) -> NetEntry:
    """Return the entry of a net that is written as a row table."""
    return NetEntry(partial(_of_table, table), table.input_size)


def known_table(name: str) -> NetTable:
    """Return the table of a key of `KNOWN`; its module imports torch."""
    table: NetTable = importlib.import_module(f"facenet.models.{KNOWN[name][0]}").NETS[name]
    return table


def _of_table(
    table: NetTable,
    *,
    embedding_dim: int,
    norm: str,
    input_size: tuple[int, int],
    dropout: float,
    attention: Mapping[str, Any] | None,
    pool: str | None,
    edition: int,
) -> nn.Module:
    from facenet.models.net import EmbeddingNet

    return EmbeddingNet(
        table, embedding_dim=embedding_dim, norm=norm, input_size=input_size, dropout=dropout, attention=attention,
        pool=pool, edition=edition,
    )  # fmt: skip


def _known(
    name: str,
    *,
    embedding_dim: int,
    input_size: tuple[int, int],
    dropout: float,
    attention: Mapping[str, Any] | None,
    pool: str | None,
    edition: int,
) -> nn.Module:
    """Build a key of `KNOWN`; these nets have batch norm alone."""
    return _of_table(
        known_table(name), embedding_dim=embedding_dim, norm="batch", input_size=input_size, dropout=dropout,
        attention=attention, pool=pool, edition=edition,
    )  # fmt: skip


def _timm(*, timm: str | None, embedding_dim: int, input_size: tuple[int, int], dropout: float) -> nn.Module:
    from facenet.models.timm_net import TimmNet

    if not timm:
        raise ConfigError("model.timm: expected the name of a net of timm, such as resnet18, got none")
    return TimmNet(timm, embedding_dim=embedding_dim, input_size=input_size, dropout=dropout)


NETS: Registry[NetEntry] = Registry(
    "net",
    {
        **{name: entry_of(table) for name, table in TABLES.items()},
        **{name: NetEntry(partial(_known, name), size) for name, (_, size) in KNOWN.items()},
        "timm": NetEntry(_timm, (112, 112)),
    },
)


def register_net(name: str, build: BuildNet, *, input_size: tuple[int, int]) -> None:
    """Add a net that ``model.name`` then selects.

    Args:
        name: A name that is free.
        build: ``build(**options) -> nn.Module``. It is called with those of the keywords embedding_dim, norm,
            input_size, dropout, attention and pool that it names. A user who sets an option that it does not name gets
            a ConfigError. The module keeps to :class:`facenet.models.net.Net`: called with images (B, 3, H, W), floats
            in [-1, 1], it returns unit embeddings (B, embedding_dim); it has the attributes ``embedding_dim`` and
            ``input_size`` and the method ``embedding_layer()``. It builds on the meta device, too.
        input_size: (H, W) of its images, unless ``model.input_size`` says otherwise.

    Raises:
        ConfigError: a name that is taken, or a size that is not two positive integers.
    """
    size = tuple(input_size)
    if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
        raise ConfigError(f"net {name!r}: expected input_size=(height, width), got {input_size!r}")
    NETS.register(name, NetEntry(build, (size[0], size[1])))
