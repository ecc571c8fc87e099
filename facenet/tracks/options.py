"""Options of track templates: the TrackPool and its training."""

from __future__ import annotations

from dataclasses import dataclass

from facenet.options import Options, option


@dataclass(frozen=True, kw_only=True)
class TrackPoolOptions(Options):
    """The arguments of TrackPool."""

    key_dim: int = option(32, least=1, help="width of its keys")
    features: str = option("positive", help="kernel features: positive, sincos, elu")
    num_features: int = option(64, least=1, help="random features R")


@dataclass(frozen=True, kw_only=True)
class TrackTrainingOptions(Options):
    """How a TrackPool learns."""

    steps: int = option(300, least=1, help="optimiser steps of the run")
    identities: int = option(32, least=2, help="people of a batch")
    tracks_each: int = option(4, least=2, help="tracks of each person in a batch")
    lr: float = option(3e-3, above=0, help="learning rate at its peak")
    weight_decay: float = option(1e-2, least=0, help="decay of weights")
    margin: float = option(0.2, above=0, most=4, help="margin of the triplet loss, squared L2")
    miner: str = option("all_valid", help="rule of a valid negative")
    select: str = option("all", help="which valid negatives")
    least_frames: float = option(0.25, above=0, most=1, help="a track keeps a random share of its frames above this")
    check_every: int = option(25, least=1, help="steps between two looks at the held-out people")
