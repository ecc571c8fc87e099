"""The whole pipeline on drawn faces, each step a command a user would type; ends with a table and a report page."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facenet.commands.launch import launch, run_step
from facenet.commands.options import CommandOptions
from facenet.console import flatten, table
from facenet.data.options import DataOptions
from facenet.errors import ConfigError
from facenet.options import RATE, SEED, option, to_dict

SHOWN = (  # what the last table shows; everything is in metrics.json
    "verification.accuracy",
    "verification.sem",
    "verification.auc",
    "pixel_baseline.accuracy",
    "color_baseline.accuracy",
    "pca_baseline.accuracy",
    "untrained.accuracy",
    "search.top1",
    "search.accepted_right",
    "search.strangers_rejected",
    "cluster.bcubed_f1",
    "cluster.pairwise_f1",
    "train.images_per_second",
    "seconds",
)


@dataclass(frozen=True, kw_only=True)
class QuickstartOptions(CommandOptions):
    """Options of ``quickstart``."""

    train: tuple[str, ...] = option((), help="more arguments for facenet train experiment=quickstart")
    gallery_people: int = option(80, least=1, help="people in the gallery; the others are strangers to it")
    gallery_faces: int = option(6, least=1, help="faces of each that are indexed; the others are queries")
    far: float | None = option(None, **RATE, help="false accept rate of the clusters; null: by the number of faces")
    seed: int = option(0, **SEED, help="seed of drawing, weights, batches and pairs")
    data: DataOptions = DataOptions()


def step(out: Path, name: str, *arguments: str) -> dict[str, Any]:
    """Print one command as a user would type it, run it and return its metrics."""
    print(f"\n$ facenet {name} {' '.join(arguments)} hydra.run.dir={out / name}", flush=True)
    return run_step(name, arguments, out / name)


def write_faces(options: QuickstartOptions, out: Path) -> None:
    """Write the evaluation faces, of people never trained on, as image files: some to index, the others as queries."""
    from facenet.data.records import write_images
    from facenet.data.splits import split_faces

    faces = split_faces(options.data).evaluation
    people = set(faces.names[: options.gallery_people])
    seen: dict[str, int] = {}
    gallery: list[int] = []
    queries: list[int] = []
    for row, name in enumerate(faces.identities):
        seen[name] = seen.get(name, 0) + 1
        (gallery if name in people and seen[name] <= options.gallery_faces else queries).append(row)
    write_images(faces.subset(gallery), out / "faces" / "gallery")
    write_images(faces.subset(queries), out / "faces" / "queries")


def run(options: QuickstartOptions, out: Path) -> dict[str, Any]:
    drawn = options.data.synthetic
    if options.data != DataOptions(synthetic=drawn, seed=options.seed, cache_dir=options.data.cache_dir):
        raise ConfigError("quickstart: of data only data.synthetic is taken; facenet train takes faces of your own")
    if options.gallery_people >= drawn.evaluation_identities and options.gallery_faces >= drawn.evaluation_images[1]:
        raise ConfigError("gallery_people, gallery_faces: all faces would be indexed, and none is left to ask with")
    started = float(os.environ.get("FACENET_QUICKSTART_STARTED") or time.time())
    encoder, seed = f"encoder={out / 'train' / 'encoder'}", f"seed={options.seed}"
    far = [f"far={options.far}"] if options.far is not None else []
    data = [f"data.synthetic.{key}={value}".replace(" ", "") for key, value in to_dict(drawn).items()]
    if options.data.cache_dir:
        data.append(f"data.cache_dir={options.data.cache_dir}")
    metrics = {"train": step(out, "train", "experiment=quickstart", seed, *data, *options.train)["train"]}
    metrics |= step(out, "verify", encoder, "data=synthetic", "baselines=true", seed, *data)
    write_faces(options, out)
    gallery = f"gallery={out / 'gallery'}"
    step(out, "embed", encoder, f"images={out / 'faces' / 'gallery'}", f"out={out / 'embeddings'}")
    step(out, "index", gallery, f"add={out / 'embeddings'}", encoder, "on_duplicate=replace")
    found = step(out, "search", gallery, encoder, f"query={out / 'faces' / 'queries'}", "k=5", "sheet=true")
    metrics["search"] = {key: value for key, value in found.items() if key != "results"}
    metrics["cluster"] = step(out, "cluster", f"embeddings={out / 'embeddings'}", encoder, *far)
    step(out, "report", f"runs={out / 'train'}")
    metrics["seconds"] = time.time() - started
    leaves = dict(flatten(metrics))
    table([(name, leaves.get(name)) for name in SHOWN], header=("metric", "value"), title="quickstart")
    print(f"the report, to open in a browser: {out / 'report' / 'report.html'}")
    print(f"queries beside what the gallery answered: {out / 'search' / 'sheet.png'}")
    return metrics


def main() -> None:
    launch("quickstart", run)
