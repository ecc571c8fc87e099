"""A folder of faces that nobody cleaned: training ends, and every bad file is listed with its reason, no good one.

A script draws people and puts one file of every kind into their folders in turn: good ones that look odd, and bad ones.
Training runs on them from a cache, and straight from the files. Then some more break while it runs.
"""

from __future__ import annotations

import csv
import io
import os
import random
import tempfile
import warnings
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from benchmarks.faults.image_files import BAD, GOOD, TWICE, TWO_NAMES, Spot
from benchmarks.faults.options import DataFaults
from benchmarks.faults.rights import without_root_power
from facenet.data.drawn.faces import draw
from facenet.data.options import DrawnOptions
from facenet.data.records import Skipped
from facenet.data.splits import split_faces
from facenet.errors import FacenetError
from facenet.options import build
from facenet.training.options import TrainOptions
from facenet.training.run import train

SIDE, PEOPLE_IMAGES = 48, 8
LOST = ("no such file", "not a readable image")  # kinds of reason of files that are deleted or cut


class Tree(NamedTuple):
    """What a dirty folder holds, by path below it; names that are no UTF-8 with their bytes escaped."""

    good: set[str]
    bad: dict[str, str]  # path -> the kind of reason it is to be listed with


def dirty_tree(folder: str | Path, images: int, seed: int) -> Tree:
    """Make a folder of so many image files (or one more) of drawn people below `folder`, every kind among them.

    Every seventh file is bad, a third is good and odd, every tenth person has one picture.
    """
    rng, root = random.Random(seed), Path(folder)
    people = 2 + images * 8 // (7 * PEOPLE_IMAGES)
    faces = draw(range(people), PEOPLE_IMAGES, DrawnOptions(size=SIDE, difficulty=0.2), seed=seed)
    bad, odd = list(BAD), list(GOOD)
    tree = Tree(set(), {})
    for row in range(people * PEOPLE_IMAGES):
        if len(tree.good) + len(tree.bad) >= images:
            break
        person, number = divmod(row, PEOPLE_IMAGES)
        place = root / f"p{person:03d}"
        place.mkdir(parents=True, exist_ok=True)
        spot = Spot(place, f"{number:03d}", Image.fromarray(faces.images[row]), rng)
        if row % 7 == 3:
            kind, make = BAD[bad[row // 7 % len(bad)]]
            made = make(spot)
            tree.bad[_name(root, made)] = kind
            if kind == TWO_NAMES:
                tree.bad[_name(root, place / f"{spot.stem}.png")] = kind
            elif kind == TWICE:  # the first in order is kept
                tree.bad.pop(_name(root, made))
                tree.bad[_name(root, place / f"{spot.stem}.png")] = kind
                tree.good.add(_name(root, made))
        elif row % 3 == 1:
            tree.good.add(_name(root, GOOD[odd[row // 3 % len(odd)]](spot)))
        elif not (person % 10 == 9 and number):
            tree.good.add(_name(root, spot.save(".jpg")))
        if row % 29 == 0:
            (place / f".{number}.jpg").write_bytes(b"hidden")
            (place / "Thumbs.db").write_bytes(b"no image by its name")
    return tree


def _name(root: Path, path: Path) -> str:
    return os.fsencode(path.relative_to(root)).decode("utf-8", "backslashreplace")


def run(counts: DataFaults, *, folder: str = "", temporary: str = "", seed: int = 0) -> dict[str, dict[str, int]]:
    """Train on a dirty folder, from a cache and from its files with 0 and 2 workers; returns counts of what went wrong.

    While training reads the files, `lost` more are deleted or cut. At last the folder is refused, as more of it is bad
    than is allowed. Root trains without its power to read every file.
    """
    found: dict[str, dict[str, int]] = {}
    with tempfile.TemporaryDirectory(prefix="facenet-dirty-", dir=folder or None) as name, without_root_power():
        for cache, workers in (("ram", 0), ("none", 0), ("none", 2)):
            print(f"dirty folder of {counts.images} images: {cache} cache, {workers} workers", flush=True)
            place = Path(name) / f"{cache}{workers}"
            tree = dirty_tree(place / "faces", counts.images, seed)
            config = _options(place / "faces", counts.steps, seed, {"cache": cache, "workers": workers})
            lost = 0 if cache == "ram" else counts.lost
            found[f"dirty folder, {cache} cache, {workers} workers"] = _trained(tree, place, config, lost)
        config = _options(place / "faces", counts.steps, seed, {"cache": "ram"}, max_bad_share=0.1)
        found["dirty folder, refused"] = _refused(tree, place, config)
    return found


def _options(root: Path, steps: int, seed: int, loader: dict[str, Any], **data: Any) -> TrainOptions:
    """A short training of the small net."""
    values = {
        "seed": seed,
        "init": None,
        "data": {
            "kind": "folder",
            "root": str(root),
            "crop": 1.0,
            "held_out": 0.15,
            "evaluation": 0.15,
            "seed": seed,
            **data,
        },
        "preprocess": {"mean": [0.5] * 3, "std": [0.5] * 3, "mirror": False},
        "augment": {"enabled": True, "rotate": 5.0},
        "sampler": {"batch_size": 36, "faces_per_identity": 8, "negative_share": 0.1, "coverage": 1},
        "loader": {"repeat_batch": False, **loader},
        "model": {"name": "small", "input_size": [32, 32], "embedding_dim": 16, "dropout": 0.0},
        "loss": {"name": "triplet", "margin": 0.2, "reduction": "mean"},
        "mining": {"miner": "semi_hard", "select": "nearest", "fallback": "none", "max_triplets": 10_000},
        "optim": {"name": "adamw", "lr": 1e-3, "schedule": "constant", "warmup_steps": 0},
        "trainer": {
            "max_steps": steps,
            "val_check_interval": steps,
            "accelerator": "cpu",
            "log_every_n_steps": steps,
            "progress": False,
            "refresh_rate": steps,
        },
    }
    return build(TrainOptions, values)


def _trained(tree: Tree, place: Path, options: TrainOptions, lost: int) -> dict[str, int]:
    counts = {"files": len(tree.good) + len(tree.bad), "bad": len(tree.bad), "ended": 0, "unhandled": 0, "warnings": 0}
    broken: set[str] = set()

    def say(line: str) -> None:
        if line.startswith("training on") and not broken:
            broken.update(_break(options, tree.good, lost))

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        try:
            train(options, place / "run", say=say)
            counts["ended"] = 1
        except FacenetError as error:
            print(f"refused: {error}", flush=True)
        except Exception as error:
            print(f"unhandled: {type(error).__name__}: {error}", flush=True)
            counts["unhandled"] = 1
    counts["warnings"] = len(caught)
    return counts | _compared(tree, place / "run" / "skipped.csv", broken)


def _compared(tree: Tree, table: Path, broken: set[str]) -> dict[str, int]:
    """Compare a list of skipped files with what is bad, and with those that broke while training ran."""
    listed = {one.path: one for one in read_skipped(table)}
    right = {path for path, kind in tree.bad.items() if path in listed and listed[path].kind == kind}
    amiss = sorted({*tree.bad} - right) + sorted(set(listed) - set(tree.bad) - broken)
    for path in amiss[:10]:
        print(f"{path!r}: {tree.bad.get(path, 'good')}, listed: {listed.get(path)}", flush=True)
    return {
        "listed_with_its_reason": len(right),
        "not_listed": len(set(tree.bad) - set(listed)),
        "good_skipped": len(set(listed) & tree.good - broken),
        "unknown_listed": len(set(listed) - set(tree.bad) - tree.good),
        "lost_while_training": len(broken),
        "lost_listed": sum(path in listed and listed[path].kind in LOST for path in broken),
    }


def read_skipped(table: Path) -> list[Skipped]:
    """Read ``skipped.csv``; no file is no lines."""
    if not table.is_file():
        return []
    rows = list(csv.reader(io.StringIO(table.read_bytes().decode(), newline="")))
    return [Skipped(*row) for row in rows[1:]]


def _break(options: TrainOptions, good: set[str], count: int) -> set[str]:
    """Delete or cut some of the files that are trained on, of people with many, who are in every pass."""
    faces = split_faces(options.data).train
    several = [
        path
        for path, name in zip(faces.paths, faces.identities, strict=True)
        if path in good and path.endswith("0.jpg") and faces.identities.count(name) > 4
    ]
    chosen = random.Random(options.seed).sample(several, min(count, len(several)))
    for number, path in enumerate(chosen):
        file = Path(faces.root) / path
        content = file.read_bytes()
        file.unlink()
        if number % 2:
            file.write_bytes(content[: len(content) // 2])
    return set(chosen)


def _refused(tree: Tree, place: Path, options: TrainOptions) -> dict[str, int]:
    """Train with fewer bad files allowed than there are: an error before the first step, and the list all the same."""
    counts = {"refused": 0, "unclear": 0}
    try:
        train(options, place / "refused", say=lambda line: None)
    except FacenetError as error:
        counts["refused"] = int(error.exit_code == 3)
        counts["unclear"] = int("data.max_bad_share" not in str(error) or "\n" in str(error))
    listed = {one.path for one in read_skipped(place / "refused" / "skipped.csv")}
    return counts | {
        "listed": len(listed & set(tree.bad)),
        "trained": int((place / "refused" / "checkpoints").exists()),
    }
