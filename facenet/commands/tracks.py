"""One template for a video track: train TrackPool over an encoder, or score templates on tracks as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from facenet.commands.launch import launch
from facenet.console import progress, table


def run(config: dict[str, Any], out: Path) -> dict[str, Any]:
    from facenet.encoders import lookup as encoders
    from facenet.errors import ConfigError
    from facenet.tracks.evaluation import evaluate_tracks
    from facenet.tracks.pool import read_track_pool
    from facenet.tracks.training import check_options, train_tracks

    training, seeds = config["train"], tuple(config["seeds"])
    if training and (config["track_pool"] or config["data"]["pairs"]):
        raise ConfigError("track_pool, data.pairs: they are for scoring without training; add train=false")
    encoder = encoders.load(config["encoder"], device=config["device"])
    parts = {name: config[name] for name in ("pool", "training")}
    if training:
        check_options(encoder, **parts, seeds=seeds)
        metrics = train_tracks(encoder, load(config)[0], out, **parts, seeds=seeds)
    else:
        pool = read_track_pool(config["track_pool"], encoder) if config["track_pool"] else None
        tracks, pairs = load(config)
        metrics = evaluate_tracks(encoder, tracks, out, pool=pool, pairs=pairs)
    show(metrics)
    if training:
        print(f"track pool: {out / 'track_pool'} (seed {metrics['track_pool']['saved_seed']})")
    return metrics


def load(config: dict[str, Any]) -> tuple[Any, Any]:
    """Read or draw the tracks: in three splits, or without training those to report on, and their pairs if given."""
    from facenet.data.drawn.tracks import draw_splits
    from facenet.data.pairs import read_pairs
    from facenet.data.tracks import reported_tracks, scan_tracks, split_tracks

    options = dict(config["data"])
    root, file, most = (options.pop(name) for name in ("root", "pairs", "max_frames"))
    pairs = read_pairs(file) if file else None
    if not root:
        with progress("drawing tracks") as report:
            splits = draw_splits(**config["drawn"], progress=report)
        tracks = splits.evaluation if pairs is None else reported_tracks(splits.evaluation, pairs=pairs)
        return (splits, None) if config["train"] else (tracks, pairs)
    tracks = scan_tracks(root)
    tracks = tracks if most is None else tracks.first(most)
    if config["train"]:
        return split_tracks(tracks, **options), None
    return reported_tracks(tracks, pairs=pairs, **options), pairs


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
