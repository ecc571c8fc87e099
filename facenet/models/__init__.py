"""Embedding networks by name: `MODELS` and :func:`build_model`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from facenet.errors import ConfigError, choose
from facenet.models.inception import INCEPTION_NETS
from facenet.models.net import POOLS, EmbeddingNet, Net
from facenet.models.zeiler_fergus import ZEILER_FERGUS_NETS

MODELS: dict[str, Net] = {**ZEILER_FERGUS_NETS, **INCEPTION_NETS}
NORMS = {"batch": "batch norm after every convolution", "lrn": "the paper's local response norm"}


def build_model(
    name: str,
    *,
    embedding_dim: int = 128,
    norm: str = "batch",
    input_size: tuple[int, int] | None = None,
    dropout: float = 0.0,
    attention: Mapping[str, Any] | None = None,
    pool: str | None = None,
) -> EmbeddingNet:
    """Build a network that maps images (B, 3, H, W) to unit embeddings (B, embedding_dim).

    Args:
        name: A key of `MODELS`.
        embedding_dim: Embedding width D; the paper's is 128 (table 5).
        norm: "batch", or "lrn" as in the paper.
        input_size: (H, W); None is the size the table of the net states. Nets that flatten (nn1, nns2) accept that size
            alone; others any size their strides allow
            (training a single image needs more than one position behind the last stage, for batch norm).
        dropout: Share of features dropped before the embedding layer while training.
        attention: Linear attention over the positions of a stage's output: ``after``, the name of the stage
            (None for no attention), and options of :class:`facenet.models.linear_attention.AttentionBlock`.
        pool: "average", "flatten" or "attention" in place of what the net has; all but "flatten" accept any size.

    Raises:
        ConfigError: An unknown name, norm, stage, option or pool, or a number out of range.
    """
    net = choose(MODELS, name, "model.name")
    choose(NORMS, norm, "model.norm")
    if embedding_dim < 1:
        raise ConfigError(f"model.embedding_dim: expected at least 1, got {embedding_dim}")
    if not 0 <= dropout < 1:
        raise ConfigError(f"model.dropout: expected a share in [0, 1), got {dropout}")
    size = tuple(input_size) if input_size else None
    if size is not None and len(size) != 2:
        raise ConfigError(f"model.input_size: expected (height, width), got {input_size}")
    return EmbeddingNet(
        net, embedding_dim=embedding_dim, norm=norm, input_size=size, dropout=dropout, attention=attention, pool=pool
    )


__all__ = ["MODELS", "NORMS", "POOLS", "EmbeddingNet", "Net", "build_model"]
