"""Options of an embedding network."""

from __future__ import annotations

from dataclasses import dataclass

from facenet.options import Options, option


@dataclass(frozen=True, kw_only=True)
class AttentionOptions(Options):
    """Linear attention over the positions of a stage's output."""

    after: str | None = option(None, help="stage behind which the block stands; null is no attention")
    heads: int = option(4, least=1, help="heads of the block")
    features: str = option("positive", help="kernel features: positive, sincos, elu, softmax")
    num_features: int = option(64, least=1, help="random features R of a head")
    orthogonal: bool = option(True, help="orthogonal rows of random features")
    normalise: bool = option(True, help="queries and keys of unit length, with a learned temperature")
    position: bool = option(True, help="learned positions")
    backend: str = option("auto", help="how the sums are made")
    seed: int = option(0, least=0, most=2**32 - 1, help="of the random features, drawn once and stored")


@dataclass(frozen=True, kw_only=True)
class ModelOptions(Options):
    """The arguments of :func:`facenet.build_model`."""

    name: str = option("small", help="a net's name: nn1, nn2, nn3, nn4, nns1, nns2, small, or one a plugin registers")
    embedding_dim: int = option(128, least=1, most=65536, help="embedding width D (paper, table 5)")
    norm: str = option("batch", choices=("batch", "lrn"), help="batch norm, or the paper's local response norm")
    input_size: tuple[int, int] | None = option(None, least=1, help="height and width; null is the net's own")
    dropout: float = option(0.0, least=0, below=1, help="share of features dropped before the embedding layer")
    attention: AttentionOptions | None = AttentionOptions()
    pool: str | None = option(None, help="average, flatten or attention in place of the net's own pooling")
