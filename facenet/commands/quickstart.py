"""The whole pipeline on drawn faces, each step a command a user would type; ends with one table."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from facenet.commands.launch import launch
from facenet.console import flatten, table
from facenet.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
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


def step(out: Path, name: str, *arguments: str) -> dict[str, Any]:
    """Run one command and return its metrics; a failure ends the quick start with the command's exit code."""
    from facenet.files import read_json

    command = [f"scripts/{name}.py", *arguments, f"hydra.run.dir={out / name}"]
    print(f"\n$ python {' '.join(command)}", flush=True)
    done = subprocess.run([sys.executable, *command], cwd=ROOT, check=False)
    if done.returncode:
        raise SystemExit(done.returncode)
    return read_json(out / name / "metrics.json")


def write_faces(config: dict[str, Any], out: Path) -> None:
    """Write the evaluation faces, people never trained on, as image files: some to index, some to ask for."""
    from facenet.data.records import write_images
    from facenet.data.splits import split_faces, split_options

    faces = split_faces(**split_options(config["data"])).evaluation
    people = set(faces.names[: config["gallery_people"]])
    seen: dict[str, int] = {}
    gallery: list[int] = []
    queries: list[int] = []
    for row, name in enumerate(faces.identities):
        seen[name] = seen.get(name, 0) + 1
        (gallery if name in people and seen[name] <= config["gallery_faces"] else queries).append(row)
    write_images(faces.subset(gallery), out / "faces" / "gallery")
    write_images(faces.subset(queries), out / "faces" / "queries")


def run(config: dict[str, Any], out: Path) -> dict[str, Any]:
    if config["data"]["kind"] != "synthetic":
        raise ConfigError("quickstart: it is about drawn faces (data=synthetic); scripts/train.py takes your own")
    started = float(os.environ.get("FACENET_QUICKSTART_STARTED") or time.time())
    encoder, far, seed = f"encoder={out / 'train' / 'encoder'}", f"far={config['far']}", f"seed={config['seed']}"
    data = [f"data.synthetic.{key}={value}".replace(" ", "") for key, value in config["data"]["synthetic"].items()]
    metrics = {"train": step(out, "train", "experiment=quickstart", seed, *data, *config["train"])["train"]}
    metrics |= step(out, "verify", encoder, "data=synthetic", "baselines=true", seed, *data)
    write_faces(config, out)
    gallery = f"gallery={out / 'gallery'}"
    step(out, "embed", encoder, f"images={out / 'faces' / 'gallery'}", f"out={out / 'embeddings'}")
    step(out, "index", gallery, f"add={out / 'embeddings'}", encoder, "on_duplicate=replace")
    found = step(out, "search", gallery, encoder, f"query={out / 'faces' / 'queries'}", "k=5", far)
    metrics["search"] = {key: value for key, value in found.items() if key != "results"}
    metrics["cluster"] = step(out, "cluster", f"embeddings={out / 'embeddings'}", encoder, far)
    metrics["seconds"] = time.time() - started
    leaves = dict(flatten(metrics))
    table([(name, leaves.get(name)) for name in SHOWN], header=("metric", "value"), title="quickstart")
    return metrics


def main() -> None:
    launch("quickstart", run)
