"""One template for a video track: train TrackPool over an encoder, score it on people it never saw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from launch import launch

from facenet.console import progress, table

SEEN = "accuracy after frames:"


def run(config: dict[str, Any], out: Path) -> dict[str, Any]:
    from facenet import bundle
    from facenet.data.synthetic_tracks import draw_splits
    from facenet.data.tracks import scan_tracks, split_tracks
    from facenet.track_training import check_options, train_tracks

    encoder = bundle.load(config["encoder"], device=config["device"])
    parts = {name: config[name] for name in ("pool", "training")}
    check_options(encoder, **parts, seeds=tuple(config["seeds"]))
    data, options = dict(config["data"]), dict(config["drawn"])
    root = data.pop("root")
    if root:
        splits = split_tracks(scan_tracks(root), **data)
    else:
        with progress("drawing tracks") as report:
            splits = draw_splits(**options, progress=report)
    metrics = train_tracks(encoder, splits, out, **parts, seeds=tuple(config["seeds"]))
    show(metrics)
    print(f"track pool: {out / 'track_pool'} (seed {metrics['track_pool']['saved_seed']})")
    return metrics


def show(metrics: dict[str, Any]) -> None:
    """Print one row for TrackPool and each floor, then the gain of each seed."""
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
    table(rows, header=header, title=f"tracks: {metrics['pairs']} pairs of unseen people")
    rows = [(name.replace("_", " "), *value["by_frames_seen"].values()) for name, value in scored.items()]
    table(rows, header=(SEEN, *seen))
    gains = [
        (f"seed {seed}", f"{g['accuracy']:+.4f} +- {g['sem']:.4f}") for seed, g in metrics["gain_over_mean"].items()
    ]
    spread = ("accuracy, spread over seeds", metrics["track_pool"]["accuracy_spread"])
    table(
        [*gains, spread, ("streaming and whole tracks differ by at most", metrics["streaming_gap"])],
        header=("TrackPool - mean", "paired over folds +- SEM"),
    )


if __name__ == "__main__":
    launch("tracks", run)
