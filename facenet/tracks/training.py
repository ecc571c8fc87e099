"""Train TrackPool over a frozen encoder: frames are embedded once, then triplets of tracks are mined.

Letters: M tracks, L frames of the longest, D embedding width, P identities, K tracks of each in a batch, B = P K.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from facenet.data.records import write_skipped
from facenet.data.tracks import Tracks, TrackSplits
from facenet.encoders.encoder import Encoder
from facenet.errors import ConfigError, DataError, choose
from facenet.losses.triplet import triplet_loss
from facenet.mining.online import mine
from facenet.mining.rules import MINERS, SELECTS
from facenet.models.track_pool import TrackPool
from facenet.options import to_dict
from facenet.tracks.evaluation import (
    BASELINES,
    TrackSet,
    embed_tracks,
    evaluate_templates,
    over_seeds,
    paired,
    streaming_gap,
    track_pairs,
    verify_templates,
)
from facenet.tracks.options import TrackPoolOptions, TrackTrainingOptions
from facenet.tracks.pool import write_track_pool
from facenet.training.optim import build_optimizer, lr_factor
from facenet.types import Pairs

Say = Callable[[str], None]


def train_tracks(
    encoder: Encoder,
    splits: TrackSplits,
    out: str | Path,
    *,
    pool: TrackPoolOptions = TrackPoolOptions(),  # noqa: B008
    training: TrackTrainingOptions = TrackTrainingOptions(),  # noqa: B008
    seeds: tuple[int, ...] = (0, 1, 2),
    say: Say = print,
) -> dict[str, Any]:
    """Train a TrackPool for each seed; score the pools and the baselines on people that no pool was trained on.

    Args:
        encoder: Encoder of the frames; it is not trained.
        splits: Tracks of disjoint people to train on, to choose by and to report on.
        out: Folder for ``track_pool/`` (the best seed on the held-out people) and ``skipped.csv``.
        pool: Options of the TrackPool.
        training: Options of its training; see :func:`train_pool`.
        seeds: Seeds of initial weights and batches.
        say: Prints the lines of progress.

    Returns:
        The content of ``metrics.json``: ``track_pool`` (mean and standard deviation over the seeds, and each seed), the
        baselines by name, ``gain_over_mean`` by seed, ``streaming_gap``, counts.

    Raises:
        ConfigError, DataError: wrong options or unusable data.
    """
    check_options(encoder, pool=pool, training=training, seeds=seeds)
    _people(splits.train)
    for part in (splits.held_out, splits.evaluation):
        track_pairs(part)  # too few people are told before their frames are embedded
    say(f"embedding {sum(len(part.frames) for part in splits)} frames")
    parts = [embed_tracks(encoder, part) for part in splits]
    train, held_out, reported = parts
    say(_headline(parts))
    pairs = track_pairs(reported.tracks)
    baselines = {name: evaluate_templates(make, reported, pairs) for name, make in BASELINES.items()}
    results, chosen, best = [], -1.0, 0
    for seed in seeds:
        model, summary = train_pool(train, held_out, pool=pool, training=training, seed=seed, say=say)
        scores = evaluate_templates(model, reported, pairs)
        gain = paired(scores["folds"], baselines["mean"]["folds"])
        results.append(
            {"seed": seed, **scores, **summary, "gain": gain, "streaming_gap": streaming_gap(model, reported)}
        )
        if summary["held_out_auc"] > chosen:
            chosen, best = summary["held_out_auc"], seed
            options = {**to_dict(pool), "seed": seed, "bounded": True}
            write_track_pool(model, Path(out) / "track_pool", encoder, options=options, training=summary)
    skipped = {
        item for given, part in zip(splits, parts, strict=True) for item in (*given.skipped, *part.tracks.skipped)
    }
    write_skipped(Path(out) / "skipped.csv", sorted(skipped))
    return {
        "track_pool": {**over_seeds(results), "by_seed": results, "saved_seed": best},
        **baselines,
        "gain_over_mean": {str(result["seed"]): result["gain"] for result in results},
        "streaming_gap": max(result["streaming_gap"] for result in results),
        "pairs": len(pairs),
        "tracks": {name: len(part.tracks) for name, part in zip(TrackSplits._fields, parts, strict=True)},
        "frames": {name: len(part.tracks.frames) for name, part in zip(TrackSplits._fields, parts, strict=True)},
        "skipped": len(skipped),
    }


def train_pool(
    train: TrackSet,
    held_out: TrackSet,
    *,
    pool: TrackPoolOptions = TrackPoolOptions(),  # noqa: B008
    training: TrackTrainingOptions = TrackTrainingOptions(),  # noqa: B008
    seed: int = 0,
    say: Say = print,
) -> tuple[TrackPool, dict[str, Any]]:
    """Train one TrackPool on tracks (M, L, D) with the triplet loss; keep its best state on the held-out people.

    The optimiser is AdamW with a cosine schedule; a tenth of the steps are warm-up. A batch has fewer people, or fewer
    tracks of a person, if there are fewer. A track keeps at least one frame.

    Args:
        train: Tracks to train on.
        held_out: Tracks of other people; their AUC chooses the step. Step 0, the untrained pool, may be chosen too.
        pool: Options of the TrackPool.
        training: Batches, learning rate and mining; miner and select as for :func:`facenet.mining.mine`.
        seed: Seed of initial weights and batches.
        say: Prints a line at each check that improves the AUC.

    Returns:
        The pool in evaluation mode; `step`, `held_out_auc`, `untrained_auc` and `seconds`.

    Raises:
        ConfigError: an unknown name.
        DataError: fewer than two people with two tracks.
    """
    started = time.perf_counter()
    model = TrackPool(train.frames.shape[-1], **to_dict(pool), seed=seed)
    optimizer = build_optimizer([model], name="adamw", lr=training.lr, weight_decay=training.weight_decay)
    rng = np.random.default_rng([seed, 5])
    pairs = track_pairs(held_out.tracks)
    people = _people(train.tracks)
    untrained = best = _auc(model, held_out, pairs)
    state, when = copy.deepcopy(model.state_dict()), 0
    steps, margin = training.steps, training.margin
    for step in range(1, steps + 1):
        rows = draw_batch(people, training.identities, training.tracks_each, rng)
        mask = thin(train.mask[rows], training.least_frames, rng)
        labels = torch.from_numpy(train.tracks.labels[rows])
        templates = model.train()(train.frames[rows], mask)  # (B, D)
        triplets = mine(templates, labels, margin=margin, miner=training.miner, select=training.select, seed=seed)
        loss = triplet_loss(templates, triplets, margin=margin)
        optimizer.zero_grad()
        loss.backward()
        factor = lr_factor(step - 1, schedule="cosine", total_steps=steps, warmup_steps=steps // 10)
        for group in optimizer.param_groups:
            group["lr"] = training.lr * factor
        optimizer.step()
        if step % training.check_every == 0 or step == steps:
            auc = _auc(model, held_out, pairs)
            if auc > best:
                best, when, state = auc, step, copy.deepcopy(model.state_dict())
                say(f"seed {seed}, step {step}: loss {loss.item():.4f}, held-out AUC {auc:.4f}")
    model.load_state_dict(state)
    seconds = time.perf_counter() - started
    return model.eval(), {"step": when, "held_out_auc": best, "untrained_auc": untrained, "seconds": seconds}


def check_options(
    encoder: Encoder, *, pool: TrackPoolOptions, training: TrackTrainingOptions, seeds: tuple[int, ...]
) -> None:
    """Check names and seeds before frames are drawn and embedded.

    Raises:
        ConfigError: no seed or a negative one, or unknown features, miner or select.
    """
    if not seeds or min(seeds) < 0:
        raise ConfigError(f"seeds: expected numbers of at least 0, got {list(seeds)}")
    TrackPool(encoder.dim, **to_dict(pool))
    choose(MINERS, training.miner, "training.miner")
    choose(SELECTS, training.select, "training.select")


def draw_batch(people: list[np.ndarray], identities: int, tracks_each: int, rng: np.random.Generator) -> np.ndarray:
    """Draw up to `identities` people and up to `tracks_each` tracks of each, without replacement: rows (B,)."""
    chosen = rng.permutation(len(people))[:identities]
    return np.concatenate([rng.permutation(people[person])[:tracks_each] for person in chosen])


def thin(mask: Tensor, least: float, rng: np.random.Generator) -> Tensor:
    """Keep a random share between `least` and 1 of the frames of each track (B, L), at least one of them."""
    there = mask.numpy()
    luck = np.where(there, rng.random(there.shape), 2.0)
    share = rng.uniform(least, 1, (len(there), 1))
    kept = (luck < share) | (luck == luck.min(1, keepdims=True))
    return torch.from_numpy(kept & there)


def _people(tracks: Tracks) -> list[np.ndarray]:
    """Return the rows of each person who has two tracks or more."""
    labels = tracks.labels
    people = [rows for label in range(len(tracks.names)) if len(rows := np.flatnonzero(labels == label)) > 1]
    if len(people) < 2:
        raise DataError(f"training needs two people with two tracks each, got {len(people)}; give more tracks")
    return people


def _auc(model: TrackPool, data: TrackSet, pairs: Pairs) -> float:
    with torch.inference_mode():
        return verify_templates(model.eval()(data.frames, data.mask), data.tracks, pairs)[0].auc


def _headline(parts: list[TrackSet]) -> str:
    counts = [
        f"{len(part.tracks)} tracks of {len(part.tracks.names)} people ({len(part.tracks.frames)} frames)"
        for part in parts
    ]
    return f"training on {counts[0]}; choosing on {counts[1]}; reporting {counts[2]}"
