"""Embedding networks by name: `MODELS` and :func:`build_model`."""

from __future__ import annotations

from facenet.errors import ConfigError, choose
from facenet.models.inception import INCEPTION_NETS, InceptionNet, Net

MODELS: dict[str, Net] = dict(INCEPTION_NETS)
NORMS = {"batch": "batch norm after every convolution", "lrn": "the paper's local response norm"}


def build_model(
    name: str,
    *,
    embedding_dim: int = 128,
    norm: str = "batch",
    input_size: tuple[int, int] | None = None,
    dropout: float = 0.0,
) -> InceptionNet:
    """Build a network that maps images (B, 3, H, W) to unit embeddings (B, embedding_dim).

    Args:
        name: A key of `MODELS`.
        embedding_dim: Embedding width D; the paper's is 128 (table 5).
        norm: "batch", or "lrn" as in the paper.
        input_size: (H, W); None is the size the table of the net states.
        dropout: Share of features dropped before the embedding layer while training.

    Raises:
        ConfigError: An unknown name or norm, or a number out of range.
    """
    net = choose(MODELS, name, "model.name")
    choose(NORMS, norm, "model.norm")
    if embedding_dim < 1:
        raise ConfigError(f"model.embedding_dim: expected at least 1, got {embedding_dim}")
    if not 0 <= dropout < 1:
        raise ConfigError(f"model.dropout: expected a share in [0, 1), got {dropout}")
    size = tuple(input_size) if input_size else None
    if size is not None and (len(size) != 2 or min(size) < 16):
        raise ConfigError(f"model.input_size: expected (height, width) of at least 16 pixels, got {input_size}")
    return InceptionNet(net, embedding_dim=embedding_dim, norm=norm, input_size=size, dropout=dropout)
