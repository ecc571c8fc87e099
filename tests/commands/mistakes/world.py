"""The files that the mistakes name: drawn people, two encoders, embeddings, a gallery, tracks, and broken copies."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from facenet.data.drawn.faces import draw
from facenet.data.options import DrawnOptions
from facenet.data.preprocess import Preprocess
from facenet.data.sources.folder import scan_folder
from facenet.encoders.bundle import save_bundle
from facenet.encoders.embedding import embed_records
from facenet.encoders.encoder import Encoder
from facenet.evaluation.calibration import calibrate
from facenet.gallery.gallery import Gallery
from facenet.models.build import build_model
from facenet.types import EmbeddingSet
from tests.commands.mistakes.single import Case


class World(NamedTuple):
    """The folder of all files that the cases name."""

    root: Path

    def line(self, case: Case) -> list[str]:
        """The arguments of a case, and a run folder unless it names one."""
        given = case.arguments.format(**{name: self.root / file for name, file in PLACES.items()}).split()
        own = any(argument.startswith("hydra.run.dir=") for argument in given)
        return given if own else [*given, f"hydra.run.dir={self.root / 'runs' / 'run'}"]

    def state(self) -> dict[str, tuple[int, int]]:
        """Size and time of every file and folder, except the run folder."""
        found = {}
        for folder, folders, files in os.walk(self.root):
            if "runs" in folders:
                folders.remove("runs")
            for name in (*folders, *files):
                status = os.lstat(f"{folder}/{name}")
                found[f"{folder}/{name}"] = (status.st_size, status.st_mtime_ns if name in files else 0)
        return found

    def empty_run(self) -> bool:
        """Whether there is a run folder that holds Hydra's own files alone."""
        run = self.root / "runs" / "run"
        return run.is_dir() and {path.name for path in run.iterdir() if path.suffix != ".log"} <= {".hydra"}

    def changes(self, before: dict[str, tuple[int, int]]) -> tuple[str, ...]:
        """What was written, changed or lost since a state; removes the run folder."""
        after = self.state()
        shutil.rmtree(self.root / "runs", ignore_errors=True)
        return tuple(sorted(path for path in {*before, *after} if before.get(path) != after.get(path)))


SAME = "faces one half flat tracks run empty closed missing new encoder other truncated embeddings others cut gallery"
PLACES = {
    **{name: name for name in (*SAME.split(), "damaged", "zeros")},
    **{name: f"{name}.csv" for name in ("pairs", "nothing", "alike", "columns", "strangers", "bytes", "outside")},
    **{name: f"{name}.npy" for name in ("wide", "pickled")},
    **{name: f"{name}.txt" for name in ("file", "text")},
    **{name: f"{name}.jpg" for name in ("broken", "pipe")},
    "a": "faces/p000/1.png",
    "b": "faces/p001/1.png",
}


def make_world(root: Path) -> World:
    """Fill an empty folder."""
    faces = draw(range(12), 6, DrawnOptions(size=48, difficulty=0.2), seed=3).images.reshape(12, 6, 48, 48, 3)
    for person in range(12):
        for number in range(6):
            picture, name = Image.fromarray(faces[person, number]), f"p{person:03d}/{number + 1}.png"
            place = f"p{person:03d}/{'ab'[number // 3]}/{number % 3}.png"
            targets = [f"faces/{name}", f"half/{name}", f"tracks/{place}", f"flat/{person}_{number}.png"]
            for target in (*targets, *([f"one/{name}"] if person == 0 else [])):
                (root / target).parent.mkdir(parents=True, exist_ok=True)
                picture.save(root / target)
            if number % 2:
                (root / f"half/{name}").write_bytes(f"broken {name}".encode())
    for folder in ("empty", "closed"):
        (root / folder).mkdir()
    for file, content in {
        "file.txt": "a file\n",
        "text.txt": "text\n",
        "broken.jpg": "no image",
        "nothing.csv": "",
        "alike.csv": "first,second,same\n" + "".join(f"p{a:03d}/1,p{a:03d}/2,1\n" for a in range(4)),
        "columns.csv": "one,two\n1,2\n",
        "strangers.csv": "first,second,same\nx/1,x/2,1\ny/1,z/1,0\n",
        "outside.csv": "path,identity\n../../etc/passwd,a\n",
        "pairs.csv": "first,second,same\n"
        + "".join(
            f"p{a:03d}/{1 + i},p{b:03d}/{2 + i},{int(a == b)}\n" for a in range(4) for b in range(4) for i in range(3)
        ),
    }.items():
        (root / file).write_text(content)
    (root / "bytes.csv").write_bytes(b"first,second,same\n\xff\xfe,\xff,1\n")
    os.mkfifo(root / "pipe.jpg")
    (root / "run").mkdir()
    (root / "run" / "metrics.json").write_text('{"verification": {"accuracy": 0.9}}')
    _embedded(root)
    (root / "closed").chmod(0o555)
    return World(root)


def _embedded(root: Path) -> None:
    """Make two encoders, their embeddings and a gallery, and damaged copies."""
    records = scan_folder(root / "faces")
    for seed, name, vectors in ((0, "encoder", "embeddings"), (1, "other", "others")):
        torch.manual_seed(seed)
        options: dict[str, Any] = {"embedding_dim": 16, "norm": "batch", "input_size": [32, 32], "dropout": 0.0}
        model = build_model("small", **{**options, "input_size": (32, 32)})
        encoder = Encoder(model, "small", options, Preprocess(size=(32, 32)))
        encoder.thresholds = calibrate(encoder, records, (0.1, 0.01))
        save_bundle(encoder, root / name)
        embed_records(encoder, records)[0].save(root / vectors)
    with torch.no_grad():
        model.embedding.weight.zero_()  # type: ignore[operator, union-attr]
    save_bundle(Encoder(model, "small", options, encoder.preprocess, encoder.thresholds), root / "zeros")
    with Gallery.open(root / "gallery", create=True) as gallery:
        gallery.add(EmbeddingSet.load(root / "embeddings"))
        gallery.save_cache(force=True)
    for source, copy, file in (
        ("encoder", "truncated", "encoder.safetensors"),
        ("embeddings", "cut", "vectors.npy"),
        ("gallery", "damaged", "items.sqlite"),
    ):
        shutil.copytree(root / source, root / copy)
        content = (root / copy / file).read_bytes()
        (root / copy / file).write_bytes(content[: len(content) // 2])
    np.save(root / "wide.npy", np.ones((2, 99), np.float32))
    np.save(root / "pickled.npy", np.array([{"a": 1}], object), allow_pickle=True)
