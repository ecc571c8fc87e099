"""One template for a video track: train TrackPool over an encoder, or score templates on tracks as they are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from facenet.commands.launch import launch
from facenet.commands.options import CommandOptions, refuse_unread
from facenet.console import progress, table
from facenet.data.options import DrawnTrackOptions, PairColumns, TrackDataOptions
from facenet.options import SEED, option
from facenet.tracks.options import TrackPoolOptions, TrackTrainingOptions


@dataclass(frozen=True, kw_only=True)
class TracksOptions(CommandOptions):
    """Options of ``tracks``."""

    encoder: str = option(help="encoder of the frames")
    train: bool = option(True, help="train a TrackPool; false: score what there is")
    track_pool: str | None = option(None, help="with train=false: a track_pool folder, scored beside the others")
    device: str = option("auto", help="auto, cpu, cuda")
    seeds: tuple[int, ...] = option(
        (0, 1, 2), **SEED, help="seeds of weights and batches; the best on held-out people is saved"
    )
    data: TrackDataOptions = TrackDataOptions()
    drawn: DrawnTrackOptions = DrawnTrackOptions()
    pool: TrackPoolOptions = TrackPoolOptions()
    training: TrackTrainingOptions = TrackTrainingOptions()


def run(options: TracksOptions, out: Path) -> dict[str, Any]:
    from facenet.encoders import lookup as encoders
    from facenet.tracks.evaluation import evaluate_tracks
    from facenet.tracks.pool import read_track_pool
    from facenet.tracks.training import check_options, train_tracks

    training, seeds, data = options.train, options.seeds, options.data
    divided = replace(data, root=None, pairs=None, pair_columns=PairColumns()) != TrackDataOptions()
    refuse_unread(
        ("track_pool", options.track_pool, not training, "train=false"),
        ("data.pairs", data.pairs, not training, "train=false"),
        ("data.pair_columns", data.pair_columns != PairColumns(), data.pairs, "data.pairs=FILE"),
        ("data", divided, data.root, "data.root=DIR"),
        ("drawn", options.drawn != DrawnTrackOptions(), not data.root, "drawn tracks, without data.root"),
        ("pool", options.pool != TrackPoolOptions(), training, "train=true"),
        ("training", options.training != TrackTrainingOptions(), training, "train=true"),
        ("seeds", seeds != (0, 1, 2), training, "train=true"),
    )
    encoder = encoders.load(options.encoder, device=options.device)
    if training:
        check_options(encoder, pool=options.pool, training=options.training, seeds=seeds)
        splits, _ = load(options)
        metrics = train_tracks(encoder, splits, out, pool=options.pool, training=options.training, seeds=seeds)
    else:
        pool = read_track_pool(options.track_pool, encoder) if options.track_pool else None
        tracks, pairs = load(options)
        metrics = evaluate_tracks(encoder, tracks, out, pool=pool, pairs=pairs)
    show(metrics)
    if training:
        print(f"track pool: {out / 'track_pool'} (seed {metrics['track_pool']['saved_seed']})")
    return metrics


def load(options: TracksOptions) -> tuple[Any, Any]:
    """Read or draw the tracks: in three splits, or without training those to report on, and their pairs if given."""
    from facenet.data.drawn.tracks import draw_reported, draw_splits
    from facenet.data.pairs import read_pairs
    from facenet.data.tracks import reported_tracks, scan_tracks, split_tracks

    data = options.data
    pairs = read_pairs(data.pairs, data.pair_columns) if data.pairs else None
    if not data.root:
        with progress("drawing tracks") as report:
            if options.train:
                return draw_splits(options.drawn, progress=report), None
            tracks = draw_reported(options.drawn, progress=report)
        return tracks if pairs is None else reported_tracks(tracks, pairs=pairs), pairs
    tracks = scan_tracks(data.root)
    tracks = tracks if data.max_frames is None else tracks.first(data.max_frames)
    if options.train:
        return split_tracks(tracks, data), None
    return reported_tracks(tracks, data, pairs=pairs), pairs


def show(metrics: dict[str, Any]) -> None:
    """Print one row for each template, then what TrackPool gains over the mean, where there is one."""
    scored = {name: value for name, value in metrics.items() if isinstance(value, dict) and "by_frames_seen" in value}
    kinds = metrics["mean"].get("by_kind", {})
    seen = metrics["mean"]["by_frames_seen"]
    rows = [
        (
            name.replace("_", " "),
            f"{value['accuracy']:.4f} +- {value['sem']:.4f}",
            value["auc"],
            value["eer"],
            *(value["by_kind"][kind]["accuracy"] for kind in kinds),
        )
        for name, value in scored.items()
    ]
    header = ("template", "accuracy +- SEM", "AUC", "EER", *(kind.replace("_", " ") for kind in kinds))
    table(rows, header=header, title=f"tracks: {metrics['pairs']} pairs of {metrics['tracks']['evaluation']} tracks")
    rows = [(name.replace("_", " "), *value["by_frames_seen"].values()) for name, value in scored.items()]
    table(rows, header=("accuracy after frames:", *seen))
    rows = [
        (f"seed {seed}" if seed.isdigit() else "TrackPool", f"{gain['accuracy']:+.4f} +- {gain['sem']:.4f}")
        for seed, gain in metrics.get("gain_over_mean", {}).items()
    ]
    if rows:
        spread = metrics["track_pool"].get("accuracy_spread")
        rows += [("accuracy, spread over seeds", spread)] if spread is not None else []
        rows += [("streaming and whole tracks differ by at most", metrics["streaming_gap"])]
        table(rows, header=("TrackPool - mean", "paired over folds +- SEM"))


def main() -> None:
    launch("tracks", run)
