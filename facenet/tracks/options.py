"""Options of track templates: which tracks, the TrackPool, its training."""

from __future__ import annotations

from dataclasses import dataclass

from facenet.options import INSIDE, SEED, Options, option


@dataclass(frozen=True, kw_only=True)
class TrackDataOptions(Options):
    """Tracks of videos on disk, and how their people are divided."""

    root: str | None = option(None, help="<identity>/<track>/<frame>; without it tracks are drawn")
    splits: str | None = option(None, help="table identity,split (train, held_out, evaluation); else people by share")
    pairs: str | None = option(None, help="with train=false: CSV first,second,same[,fold] of <identity>/<track>")
    max_frames: int | None = option(None, least=1, help="of a track, its first; the paper compares the first 100")
    held_out: float = option(0.2, **INSIDE, help="share of the people for checkpoints")
    evaluation: float = option(0.3, least=0, below=1, help="share of the people reported")
    seed: int = option(0, **SEED, help="of the division")


@dataclass(frozen=True, kw_only=True)
class TrackPoolOptions(Options):
    """The arguments of TrackPool."""

    key_dim: int = option(32, least=1, help="width of its keys")
    features: str = option("positive", help="kernel features: positive, sincos, elu")
    num_features: int = option(64, least=1, help="random features R")


@dataclass(frozen=True, kw_only=True)
class TrackTrainingOptions(Options):
    """How a TrackPool learns."""

    steps: int = option(300, least=1, help="of training")
    identities: int = option(32, least=2, help="of a batch")
    tracks_each: int = option(4, least=2, help="of each identity")
    lr: float = option(3e-3, above=0, help="learning rate at its peak")
    weight_decay: float = option(1e-2, least=0, help="of weights")
    margin: float = option(0.2, above=0, most=4, help="of the triplet loss, squared L2")
    miner: str = option("all_valid", help="rule of a valid negative")
    select: str = option("all", help="which valid negatives")
    least_frames: float = option(0.25, above=0, most=1, help="a track keeps a random share of its frames above this")
    check_every: int = option(25, least=1, help="steps between two looks at the held-out people")
