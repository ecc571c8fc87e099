"""Train TrackPool over a frozen encoder: frames are embedded once, then tracks are mined like faces.

Letters: M tracks, L frames of the longest, D embedding width, P identities, K tracks of each in a batch, B = P K.
"""

from __future__ import annotations

import copy
import inspect
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
from facenet.tracks.evaluation import (
    FLOORS,
    TrackSet,
    embed_tracks,
    evaluate_templates,
    over_seeds,
    paired,
    streaming_gap,
    track_pairs,
    verify_templates,
)
from facenet.tracks.pool import write_track_pool
from facenet.training.optim import build_optimizer, lr_factor
from facenet.types import Pairs

Say = Callable[[str], None]


def train_tracks(
    encoder: Encoder,
    splits: TrackSplits,
    out: str | Path,
    *,
    pool: dict[str, Any],
    training: dict[str, Any],
    seeds: tuple[int, ...] = (0, 1, 2),
    say: Say = print,
) -> dict[str, Any]:
    """Train a TrackPool for each seed and score them, and the floors, on people none of them has seen.

    Args:
        encoder: Embeds the frames; it stays as it is.
        splits: Tracks to train on, to choose by and to report on, of people who do not meet.
        out: Gets ``track_pool/`` (the best of the seeds on the held-out people) and ``skipped.csv``.
        pool: Options of :class:`~facenet.models.track_pool.TrackPool` but `dim` and `seed`.
        training: Options of :func:`train_pool` but `seed` and `say`.
        seeds: Of initial weights and batches.
        say: Gets the lines of progress.

    Returns:
        What ``metrics.json`` holds: ``track_pool`` (mean and standard deviation over the seeds, and each seed), the
        floors by name, ``gain_over_mean`` by seed, ``streaming_gap``, counts.

    Raises:
        ConfigError, DataError: options or data that can not work.
    """
    check_options(encoder, pool=pool, training=training, seeds=seeds)
    say(f"embedding {sum(len(part.frames) for part in splits)} frames")
    parts = [embed_tracks(encoder, part) for part in splits]
    train, held_out, reported = parts
    say(_headline(parts))
    pairs = track_pairs(reported.tracks)
    floors = {name: evaluate_templates(make, reported, pairs) for name, make in FLOORS.items()}
    results, chosen, best = [], -1.0, 0
    for seed in seeds:
        model, summary = train_pool(train, held_out, pool=pool, seed=seed, say=say, **training)
        scores = evaluate_templates(model, reported, pairs)
        gain = paired(scores["folds"], floors["mean"]["folds"])
        results.append(
            {"seed": seed, **scores, **summary, "gain": gain, "streaming_gap": streaming_gap(model, reported)}
        )
        if summary["held_out_auc"] > chosen:
            chosen, best = summary["held_out_auc"], seed
            write_track_pool(model, Path(out) / "track_pool", encoder, options={**pool, "seed": seed}, training=summary)
    skipped = {
        item for given, part in zip(splits, parts, strict=True) for item in (*given.skipped, *part.tracks.skipped)
    }
    write_skipped(Path(out) / "skipped.csv", sorted(skipped))
    return {
        "track_pool": {**over_seeds(results), "by_seed": results, "saved_seed": best},
        **floors,
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
    pool: dict[str, Any],
    steps: int = 300,
    identities: int = 32,
    tracks_each: int = 4,
    lr: float = 3e-3,
    weight_decay: float = 1e-2,
    margin: float = 0.2,
    miner: str = "all_valid",
    select: str = "all",
    least_frames: float = 0.25,
    check_every: int = 25,
    seed: int = 0,
    say: Say = print,
) -> tuple[TrackPool, dict[str, Any]]:
    """Train one TrackPool on tracks (M, L, D) with the triplet loss; keep its best state on the held-out people.

    Args:
        train: Tracks to train on.
        held_out: Tracks of other people; their AUC chooses the step, the untrained state included.
        pool: Options of TrackPool but `dim` and `seed`.
        steps: Of AdamW, cosine schedule with a tenth of warm-up.
        identities: P of a batch, fewer where there are fewer.
        tracks_each: K, drawn without return where a person has as many.
        lr, weight_decay: Of AdamW.
        margin, miner, select: See :func:`facenet.mining.mine`.
        least_frames: A track keeps a random share of its frames between this and all, one at least.
        check_every: Steps between two looks at the held-out people.
        seed: Of initial weights and batches.
        say: Gets a line at each look that improves.

    Returns:
        The pool in evaluation mode; `step`, `held_out_auc`, `untrained_auc` and `seconds`.

    Raises:
        ConfigError: an option out of range.
        DataError: fewer than two people with two tracks.
    """
    _check_training(miner, select, least_frames, steps, check_every, tracks_each, identities)
    started = time.perf_counter()
    model = TrackPool(train.frames.shape[-1], **pool, seed=seed)
    optimizer = build_optimizer([model], name="adamw", lr=lr, weight_decay=weight_decay)
    rng = np.random.default_rng([seed, 5])
    pairs = track_pairs(held_out.tracks)
    people = _people(train.tracks)
    untrained = best = _auc(model, held_out, pairs)
    state, when = copy.deepcopy(model.state_dict()), 0
    for step in range(1, steps + 1):
        rows = draw_batch(people, identities, tracks_each, rng)
        mask = thin(train.mask[rows], least_frames, rng)
        labels = torch.from_numpy(train.tracks.labels[rows])
        templates = model.train()(train.frames[rows], mask)  # (B, D)
        triplets = mine(templates, labels, margin=margin, miner=miner, select=select, seed=seed)
        loss = triplet_loss(templates, triplets, margin=margin)
        optimizer.zero_grad()
        loss.backward()
        factor = lr_factor(step - 1, schedule="cosine", total_steps=steps, warmup_steps=steps // 10)
        for group in optimizer.param_groups:
            group["lr"] = lr * factor
        optimizer.step()
        if step % check_every == 0 or step == steps:
            auc = _auc(model, held_out, pairs)
            if auc > best:
                best, when, state = auc, step, copy.deepcopy(model.state_dict())
                say(f"seed {seed}, step {step}: loss {loss.item():.4f}, held-out AUC {auc:.4f}")
    model.load_state_dict(state)
    seconds = time.perf_counter() - started
    return model.eval(), {"step": when, "held_out_auc": best, "untrained_auc": untrained, "seconds": seconds}


def check_options(encoder: Encoder, *, pool: dict[str, Any], training: dict[str, Any], seeds: tuple[int, ...]) -> None:
    """Fail on what can not work before frames are drawn and embedded; raises ConfigError as :func:`train_tracks`."""
    if not seeds or min(seeds) < 0:
        raise ConfigError(f"seeds: expected numbers of at least 0, got {list(seeds)}")
    TrackPool(encoder.dim, **pool)
    known = {key: item.default for key, item in inspect.signature(train_pool).parameters.items()}
    checked = list(inspect.signature(_check_training).parameters)
    _check_training(**{key: {**known, **training}[key] for key in checked})


def _check_training(
    miner: str, select: str, least_frames: float, steps: int, check_every: int, tracks_each: int, identities: int
) -> None:
    choose(MINERS, miner, "training.miner")
    choose(SELECTS, select, "training.select")
    if not 0 < least_frames <= 1 or steps < 0 or check_every < 1 or tracks_each < 2 or identities < 2:
        raise ConfigError(
            "training: expected least_frames in (0, 1], steps >= 0, check_every >= 1, tracks_each and identities >= 2;"
            f" got {least_frames}, {steps}, {check_every}, {tracks_each} and {identities}"
        )


def draw_batch(people: list[np.ndarray], identities: int, tracks_each: int, rng: np.random.Generator) -> np.ndarray:
    """Draw up to `identities` people and `tracks_each` tracks of each, all of them where there are fewer: rows (B,)."""
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
    told = [
        f"{len(part.tracks)} tracks of {len(part.tracks.names)} people ({len(part.tracks.frames)} frames)"
        for part in parts
    ]
    return f"training on {told[0]}; choosing on {told[1]}; reporting {told[2]}"
