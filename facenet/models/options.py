"""Options of an embedding network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from facenet.options import Options, option, to_dict


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
    seed: int = option(0, least=0, most=2**32 - 1, help="seed of the random features, which are drawn once and stored")


EDITION = 2


@dataclass(frozen=True, kw_only=True)
class ModelOptions(Options):
    """The arguments of :func:`facenet.build_model`."""

    name: str = option(
        "small",
        help="a net's name: nn1, nn2, nn3, nn4, nns1, nns2, small, inception_resnet_v1, iresnet18, iresnet50, "
        "iresnet100, mobilefacenet, mbf, fmobilenet, timm, or one a plugin registers",
    )
    embedding_dim: int = option(128, least=1, most=65536, help="embedding width D (paper, table 5)")
    norm: str = option("batch", choices=("batch", "lrn"), help="batch norm, or the paper's local response norm")
    input_size: tuple[int, int] | None = option(None, least=1, help="height and width; null is the net's own")
    dropout: float = option(0.0, least=0, below=1, help="share of features dropped before the embedding layer")
    attention: AttentionOptions | None = AttentionOptions()
    pool: str | None = option(None, help="average, flatten, depthwise or attention in place of the net's own pooling")
    timm: str | None = option(None, help="for model.name=timm: a net of that package, such as resnet18")
    edition: int = option(
        EDITION,
        least=1,
        most=EDITION,
        help="definition of layers: 2, or 1 of earlier encoders (LRN with alpha / n, random features without bound)",
    )


def depends_on_edition(options: Mapping[str, Any]) -> bool:
    """Whether a net of these options is another one in another edition: LRN, and random features without a bound."""
    attention = {**to_dict(AttentionOptions()), **(options.get("attention") or {})}
    used = attention["after"] is not None or options.get("pool") == "attention"
    unbounded = attention["features"] == "sincos" or (attention["features"] != "elu" and not attention["normalise"])
    return options.get("norm") == "lrn" or (used and unbounded)


def recorded_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options of a net as encoders and checkpoints keep them: the edition only if it matters, and is not 1.

    The name of a net of timm is kept for such a net alone.

    So what was written before there were editions means edition 1, and most fingerprints are what they were.
    """
    kept = {key: value for key, value in options.items() if key != "edition" and (key, value) != ("timm", None)}
    edition = options.get("edition", EDITION)
    return {**kept, "edition": edition} if edition > 1 and depends_on_edition(options) else kept


def edition_of(options: Mapping[str, Any]) -> int:
    """Return the edition of recorded options; the newest one if every edition is the same net."""
    return int(options.get("edition", 1)) if depends_on_edition(options) else EDITION
