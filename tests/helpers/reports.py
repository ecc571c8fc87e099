"""Run folders as the commands leave them, and a reader of the page made from them."""

from __future__ import annotations

import csv
import html
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facenet.data.pair_folds import make_pairs_in_folds
from facenet.evaluation.verification import verify_pairs
from facenet.files import read_sealed, sha256_file, write_sealed
from facenet.report.page import Chapter, Figure, Table
from facenet.report.runs import Run
from facenet.types import EmbeddingSet
from facenet.vectors import normalise, sq_dist
from tests.helpers.pictures import blob

HOSTILE = "<script>alert(1)</script>\"'&<img src=x onerror=y>"
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Reader(HTMLParser):
    """Collects elements, attributes and text; fails on tags that do not nest."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read(page: str) -> Reader:
    """Parse a page and check what holds for each: well nested, no scripts, no address, nothing that loads."""
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    names = {tag for tag, _ in reader.tags}
    assert not names & {"script", "link", "iframe", "object", "embed", "base", "form"}
    assert "<script" not in page.lower()
    assert "http://" not in page
    assert "https://" not in page
    assert "@import" not in page
    for tag, attributes in reader.tags:
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in ("src", "href", "xlink:href"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:image/jpeg;base64,", "#")), value
    return reader


def titles(text: str) -> set[str]:
    return {part.split("</h3>")[0] for part in text.split("<h3>")[1:]}


FINGERPRINT = "f" * 64


def faces(people: int = 14, images: int = 6, *, noise: float = 0.9, names: list[str] | None = None) -> EmbeddingSet:
    """Unit vectors around a centre for each person, so that some pairs are judged wrongly."""
    rng = np.random.default_rng(0)
    names = names or [f"person {i:02d}" for i in range(people)]
    centres = np.repeat(rng.normal(size=(len(names), 16)), images, 0)
    vectors = normalise(centres + noise * rng.normal(size=centres.shape))
    paths = [f"p{i:02d}/p{i:02d}_{j:04d}.png" for i in range(len(names)) for j in range(images)]
    return EmbeddingSet(vectors, paths, [name for name in names for _ in range(images)], FINGERPRINT)


def write_evaluation(folder: Path, embeddings: EmbeddingSet, *, thumbnails: bool = True) -> dict[str, Any]:
    """Write ``evaluation/`` as facenet.evaluation.evaluate does; return what ``verification`` in metrics.json holds."""
    embeddings.save(folder)
    remedy = {"of": "pairs", "remedy": "more", "seed": 0}
    pairs = make_pairs_in_folds(embeddings.keys, embeddings.identities, **remedy)
    row = {key: place for place, key in enumerate(embeddings.keys)}
    one, two = ([row[key] for key in side] for side in (pairs.first, pairs.second))
    distances = sq_dist(embeddings.vectors[one], embeddings.vectors[two])
    with (folder / "pairs.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["first", "second", "same", "fold", "sq_dist"])
        writer.writerows(
            zip(pairs.first, pairs.second, pairs.same.astype(int), pairs.fold, distances.tolist(), strict=True)
        )
    if thumbnails:
        people = np.unique(embeddings.identities, return_inverse=True)[1].tolist()
        np.save(folder / "thumbnails.npy", np.stack([blob(who, place, 48) for place, who in enumerate(people)]))
    sign(folder)
    return verify_pairs(distances, pairs.same, pairs.fold).metrics() | {"duplicated": 0}


def sign(folder: Path) -> None:
    """Bring the sums of an evaluation up to date."""
    beside = [name for name in ("pairs.csv", "thumbnails.npy") if (folder / name).is_file()]
    meta = read_sealed(folder / "meta.json")
    sums = {name: sha256_file(folder / name) for name in ("vectors.npy", "items.csv", *beside)}
    write_sealed(folder / "meta.json", {**meta, "sha256": sums})


def write_metrics(folder: Path, metrics: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return folder


def write_run(folder: Path, embeddings: EmbeddingSet | None = None, *, thumbnails: bool = True, **more: Any) -> Path:
    """Write a whole training run: evaluation, logs, encoder record, metrics."""
    verification = write_evaluation(folder / "evaluation", embeddings or faces(), thumbnails=thumbnails)
    (folder / "logs").mkdir(exist_ok=True)
    lines = [f"{step},{1 / (step + 1):.4f},,{0.5 + step / 400:.3f}," for step in range(0, 100, 10)]
    lines += ["99,,0.9,,0.95"]
    (folder / "logs" / "metrics.csv").write_text("\n".join(["step,loss,val_accuracy,active,val_auc", *lines]))
    record = {
        "schema": 1,
        "model": {"name": "small", "options": {"norm": "batch"}},
        "embedding_dim": 16,
        "preprocessing": {"size": [64, 64], "crop": 0.5, "mean": [0.5] * 3, "std": [0.5] * 3},
        "fingerprint": FINGERPRINT,
        "thresholds": {"0.01": 0.8, "0.001": 0.6},
        "training": {"data": "synthetic", "seed": 3, "loss": {"name": "triplet", "margin": 0.2}},
    }
    (folder / "encoder").mkdir(exist_ok=True)
    write_sealed(folder / "encoder" / "encoder.json", record)
    train = {
        "images": 400,
        "identities": 50,
        "steps": 100,
        "faces_seen": 36000,
        "images_per_second": 400.0,
        "skipped": 0,
    }
    metrics = {
        "train": train,
        "held_out": {"identities": 9, "accuracy": 0.91, "step": 80},
        "verification": verification,
    }
    return write_metrics(folder, {**metrics, **more})


VERIFICATION = {
    "accuracy": 0.89,
    "sem": 0.006,
    "std": 0.019,
    "auc": 0.958,
    "eer": 0.104,
    "threshold": 1.0321,
    "pairs": 1000,
    "same": 500,
    "different": 500,
    "skipped": 0,
    "duplicated": 0,
    "folds": [0.9, 0.88] * 5,
    "thresholds": [1.0, 1.1] * 5,
    "val_at_far": {
        "1e-1": {"val": 0.9, "low": 0.87, "high": 0.92, "threshold": 1.1, "resolvable": True, "negatives": 500},
        "1e-3": {"val": None, "low": None, "high": None, "threshold": None, "resolvable": False, "negatives": 500},
    },
}


def verification_run(metrics: dict[str, Any] | None = None, **found: Any) -> Run:
    """A run of a verification, with some of its values replaced and other metrics beside it."""
    return Run(Path("runs/x"), "x", "verification", {"verification": {**VERIFICATION, **found}, **(metrics or {})})


def run(name: str, accuracy: Any, *, val: Any = 0.5, faces_seen: Any = 1000, **of: Any) -> Run:
    about = {"table": "table3", "scale": "synthetic", "model": "nn4", "embedding_dim": 128, "seed": 0, **of}
    verification = {
        "accuracy": accuracy,
        "auc": 0.9,
        "pairs": 600,
        "val_at_far": {"1e-2": {"val": 0.7}, "1e-3": {"val": val}},
    }
    metrics = {"run": about, "verification": verification, "train": {"faces_seen": faces_seen}}
    return Run(Path(name), name, about["table"], metrics)


def tables(chapter: Chapter) -> list[Table]:
    """The tables of a chapter."""
    return [block for section in chapter.sections for block in section.blocks if isinstance(block, Table)]


def without_drawings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the drawings of a page empty, for tests of everything else: each takes a quarter of a second."""

    def empty(name: str, alt: str, paint: Any, *, caption: str = "", size: Any = None) -> Figure:
        return Figure(f'<svg viewBox="0 0 1 1" role="img" aria-label="{html.escape(alt)}"></svg>', caption)

    monkeypatch.setattr("facenet.report.plots.draw", empty)
    monkeypatch.setattr("facenet.report.chapters.upgrade.draw", empty)


def scored_pairs(count: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Squared distances of pairs, and which are the same person."""
    rng = np.random.default_rng(0)
    same = np.arange(count) % 2 == 0
    return np.where(same, rng.normal(0.7, 0.25, count), rng.normal(1.3, 0.25, count)).clip(0, 4), same
