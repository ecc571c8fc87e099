"""Tracks of random frames, and a pooling to train on them."""

from __future__ import annotations

import numpy as np
import torch

from facenet.data.records import Records
from facenet.data.tracks import (
    Tracks,
    group_tracks,
    pad,
)
from facenet.tracks.evaluation import (
    TrackSet,
)


def made(people: int = 12, tracks: int = 2, frames: int = 3) -> Tracks:
    paths = [
        f"p{i:02d}/t{t}/f{f}.png" for i in range(people) for t in range(tracks) for f in range(frames + (i + t) % 2)
    ]
    images = np.random.default_rng(0).integers(0, 256, (len(paths), 8, 8, 3), np.uint8)
    return group_tracks(Records.of(tuple(paths), tuple(path.split("/")[0] for path in paths), "", images))


def toy(people: int = 40, tracks: int = 4, *, seed: int = 0, bad_share: float = 0.6, dim: int = 16) -> TrackSet:
    """Good frames lie near their person's centre, bad ones near one direction that all people share."""
    rng = np.random.default_rng(seed)
    junk = np.random.default_rng(99).normal(size=dim)
    centres = rng.normal(size=(people, dim))
    lengths = rng.integers(3, 9, people * tracks)
    person = np.repeat(np.repeat(np.arange(people), tracks), lengths)
    bad = rng.random((len(person), 1)) < bad_share
    frames = np.where(bad, 3 * junk, centres[person]) + 0.35 * rng.normal(size=(len(person), dim))
    frames /= np.linalg.norm(frames, axis=1, keepdims=True)
    names = [f"p{i:02d}" for i in range(people) for _ in range(tracks)]
    keys = tuple(f"{name}/t{row % tracks}" for row, name in enumerate(names))
    kinds = tuple("bad" if part.mean() > 0.5 else "good" for part in np.split(bad[:, 0], np.cumsum(lengths)[:-1]))
    vectors, mask = pad(lengths, frames.astype(np.float32))
    table = Tracks(Records.of((), ()), keys, tuple(names), lengths, kinds)
    return TrackSet(torch.from_numpy(vectors), torch.from_numpy(mask), table)
