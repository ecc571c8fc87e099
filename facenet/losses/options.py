"""Options of what a batch is asked: mining, losses, harmonic training."""

from __future__ import annotations

from dataclasses import dataclass

from facenet.errors import ConfigError
from facenet.options import SHARE, Options, option

# Versions of anchor, positive and negative: n new, o old; at least one is new, since old vectors do not learn.
SLOTS = ("nnn", "nno", "non", "noo", "onn", "ono", "oon")


@dataclass(frozen=True, kw_only=True)
class MiningOptions(Options):
    """Which triplets of a batch are taken, see :func:`facenet.mine`."""

    miner: str = option("semi_hard", help="rule of a valid negative: semi_hard, hard, all_valid, random, or a plugin's")
    select: str = option("nearest", help="which valid negatives: nearest, random, all")
    fallback: str = option("none", help="for a pair without one: none, nearest_beyond, hardest")
    max_triplets: int = option(2_000_000, least=1, help="triplets of a batch at most, over all ranks")


@dataclass(frozen=True, kw_only=True)
class HeadOptions(Options):
    """A classification head over the training people."""

    name: str = option("cosface", help="softmax, cosface, arcface or adaface")
    scale: float | None = option(None, above=0, help="scale of the logits; null: the head's own")
    margin: float | None = option(
        None, least=0, help="margin: cosface's of the cosine, the others' an angle; null: the head's own"
    )
    label_smoothing: float = option(0.0, least=0, below=1, help="share of the target spread over all classes")
    centres: int | None = option(None, least=1, help="directions of a class, of which the nearest counts; null: 1")
    sampled: int | None = option(None, least=2, help="classes that stand for all in a batch; null: all of them")


@dataclass(frozen=True, kw_only=True)
class LossOptions(Options):
    """The objective of a batch."""

    name: str = option(
        "triplet",
        help="triplet, softmax, softmax_then_triplet, arcface_then_triplet, joint, or one a plugin registers",
    )
    margin: float = option(0.2, above=0, most=4, help="margin of the triplet loss, squared L2 (paper: 0.2)")
    reduction: str = option("mean", choices=("mean", "sum"), help="over the triplets")
    head: HeadOptions | None = None
    head_share: float = option(0.5, **SHARE, help="share of the steps in which the head alone teaches")
    head_weight: float = option(0.0, least=0, help="weight of the head's loss beside triplets")


@dataclass(frozen=True, kw_only=True)
class HarmonicOptions(Options):
    """Training beside an old encoder, so that both share a gallery."""

    old: str | None = option(None, help="the old encoder, or embeddings of the same images by it; null: none")
    method: str = option(
        "harmonic",
        choices=("harmonic", "l2", "harmonic_l2", "none"),
        help="harmonic (the paper's), l2, harmonic_l2, or none (a baseline)",
    )
    slots: tuple[str, ...] = option(SLOTS, choices=SLOTS, help="anchor, positive, negative: n new, o old")
    own_positive: bool = option(True, help="an image's own old embedding counts as its positive")
    embedding_share: float = option(0.0, **SHARE, help="share of the steps in which the embedding layer learns alone")
    weight: float = option(1.0, least=0, help="weight of the L2 distance to an image's own old embedding")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.slots:
            raise ConfigError(f"slots: expected at least one of {', '.join(SLOTS)}, got none")
