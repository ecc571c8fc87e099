"""The nets by name. Nothing here imports torch: a net's builder does when it is called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from facenet.errors import ConfigError
from facenet.models.inception import INCEPTION_NETS
from facenet.models.tables import NetTable
from facenet.models.zeiler_fergus import ZEILER_FERGUS_NETS
from facenet.registry import Registry

if TYPE_CHECKING:
    from torch import nn

TABLES: dict[str, NetTable] = {**ZEILER_FERGUS_NETS, **INCEPTION_NETS}


class BuildNet(Protocol):
    """Builds a net from those options of :func:`facenet.models.build.build_model` that it names as arguments."""

    def __call__(self, **options: Any) -> nn.Module:
        """Return a module that keeps to :class:`facenet.models.net.Net`."""
        ...


class NetEntry(NamedTuple):
    """A net that can be built, and the input size (H, W) it has unless told otherwise."""

    build: BuildNet
    input_size: tuple[int, int]


def entry_of(table: NetTable) -> NetEntry:
    """Return the entry of a net that is written as a row table."""

    def build(**options: Any) -> nn.Module:
        from facenet.models.net import EmbeddingNet

        return EmbeddingNet(table, **options)

    return NetEntry(build, table.input_size)


NETS: Registry[NetEntry] = Registry("net", {name: entry_of(table) for name, table in TABLES.items()})


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
