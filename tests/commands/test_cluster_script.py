"""facenet cluster as a user calls it: which rule gives the threshold, new faces, sheets, one line for mistakes."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.drawn import draw_gallery
from facenet.clustering.threshold import LINKS, calibrate_clustering
from facenet.encoders.bundle import load_bundle, save_bundle
from facenet.evaluation.thresholds import threshold_for
from facenet.types import EmbeddingSet
from tests.helpers.commands import every_fourth, mistaken, succeed
from tests.helpers.encoders import make
from tests.helpers.pictures import write_tree

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run the command in this process; return its metrics, the run folder being tmp_path / `out`."""

    def call(*arguments: object, out: str = "run") -> dict[str, Any]:
        return succeed("cluster", *arguments, out=tmp_path / out)

    return call


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder, and embeddings of it: 600 faces of 30 people, in parts `old` and `new`, and a sample of others."""
    root = tmp_path_factory.mktemp("cluster")
    encoder = make()
    sample, people = draw_gallery(400, seed=1)
    rates = calibrate_clustering(sample, people.astype(str)).thresholds
    encoder.thresholds = {far: rates[far] for far in (1e-1, 1e-2, 1e-3)}
    save_bundle(encoder, root / "encoder")
    vectors, labels = draw_gallery(600)
    rows = np.arange(600)
    files = write_tree(root / "images", 2, 2)
    for name, part in (("all", rows), ("old", rows[:450]), ("new", rows[450:])):
        keep(root / name, vectors[part], [f"{i}.jpg" for i in part], labels[part], encoder.fingerprint, str(files))
    keep(root / "sample", sample, [f"s{i}.jpg" for i in range(400)], people + 100, encoder.fingerprint)
    keep(root / "foreign", vectors, [f"f{i}.jpg" for i in rows], labels, "f" * 64)
    keep(root / "pictures", vectors[:2], ["p000/p000_0001.png", "no.png"], labels[:1].repeat(2), "x", str(files))
    return root


def keep(folder: Path, vectors: np.ndarray, paths: list[str], people: np.ndarray, made_by: str, root: str = "") -> None:
    EmbeddingSet(vectors, paths, [f"p{i:03d}" for i in people], made_by, root).save(folder)


def lines(file: Path) -> dict[str, int]:
    with file.open(newline="", encoding="utf-8") as source:
        return {row["path"]: int(row["cluster"]) for row in csv.DictReader(source)}


@pytest.mark.slow  # a command for each rule; tests/clustering holds the rules in every run
def test_each_rule_gives_its_threshold_and_says_so(made: Path, run: Run) -> None:
    embeddings, encoder = f"embeddings={made / 'all'}", f"encoder={made / 'encoder'}"
    rates = load_bundle(made / "encoder").thresholds
    given = run(embeddings, "threshold=0.7")
    assert (given["threshold"], given["rule"], given["method"]) == (0.7, "given", "average_linkage")
    assert run(embeddings, encoder, "far=0.01")["threshold"] == rates[1e-2]
    by_size = run(embeddings, encoder, "method=chinese_whispers")
    assert by_size["threshold"] == threshold_for(600, rates, links=LINKS).sq_dist
    assert by_size["rule"].startswith("5 strangers a face: far 0.0083 of 600 faces")
    assert run(embeddings, encoder, "links=0.01")["rule"].endswith("below the smallest calibrated rate, 0.001")
    sample = run(embeddings, f"sample={made / 'sample'}", "method=chinese_whispers")
    assert sample["sample"]["faces"] == 400
    assert sample["threshold"] != by_size["threshold"]
    assert sample["bcubed_f1"] > 0.9
    assert sample["identities"] == 30


@pytest.mark.slow  # three commands; tests/clustering joins faces in every run
def test_new_faces_join_known_clusters(made: Path, tmp_path: Path, run: Run) -> None:
    encoder = f"encoder={made / 'encoder'}"
    run(f"embeddings={made / 'old'}", encoder, "method=chinese_whispers", out="first")
    known = (f"known={made / 'old'}", f"clusters={tmp_path / 'first' / 'clusters.csv'}")
    found = run(f"embeddings={made / 'new'}", encoder, *known, out="second")
    before, after = (lines(tmp_path / name / "clusters.csv") for name in ("first", "second"))
    assert {path: after[path] for path in before} == before, "known labels never change"
    assert (found["faces"], found["known"], len(after)) == (150, 450, 600)
    assert 140 < found["joined"] <= 150
    assert found["bcubed_f1"] > 0.9
    assert found["rule"].startswith("5 strangers a face: far 0.0083 of 600 faces")
    several = f"known=[{made / 'old'},{made / 'new'}]"
    third = run(f"embeddings={made / 'sample'}", encoder, several, f"clusters={tmp_path / 'second' / 'clusters.csv'}")
    assert third["known"] == 600
    assert third["clusters"] > found["clusters"]


def test_sheets_are_pages_even_where_images_are_missing(made: Path, tmp_path: Path, run: Run) -> None:
    run(f"embeddings={made / 'pictures'}", "threshold=4.0", "sheets=true")
    assert [file.name for file in sorted((tmp_path / "run" / "sheets").iterdir())] == ["largest.png"]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    every_fourth(
        [
            ([], 2, "pass encoder=DIR for its calibration"),
            (["encoder={made}/encoder", "far=0.00001"], 3, "no threshold for far=1e-05 (calibrated: 0.001 to 0.1)"),
            (["embeddings={made}/foreign", "encoder={made}/encoder"], 3, "embedded by another encoder than"),
            (["encoder={made}/encoder", "links=0"], 2, "links above 0"),
            (["threshold=1", "known={made}/old"], 2, "known=EMBEDDINGS and clusters=FILE go together"),
            (["threshold=1", "clusters=c.csv"], 2, "go together"),
            (["threshold=1", "known={made}/foreign", "clusters=c.csv"], 3, "embedded by another encoder"),
            (["sample={made}/foreign"], 3, "embedded by another encoder"),
            (["threshold=1", "known={made}/nowhere", "clusters=c.csv"], 3, "no such embeddings folder"),
            (["threshold=1", "known={made}/sample", "clusters={made}/no.csv"], 3, "no.csv: no such file"),
            (["threshold=1", "known={made}/old", "clusters=c.csv"], 3, "among the new and the known faces"),
            (["threshold=5"], 2, "at most 4, got 5"),
            (["threshold=1", "method=whispers"], 2, "chinese_whispers"),
            (["threshold=1", "neighbours=0"], 2, "neighbours: expected a number of at least 1"),
            (["threshold=1", "method=chinese_whispers", "threads=0"], 2, "threads: expected a number of at least 1"),
        ]
    ),
)
def test_a_mistake_is_one_line(arguments: list[str], code: int, says: str, made: Path, tmp_path: Path) -> None:
    line = [f"embeddings={made / 'all'}", *(argument.format(made=made) for argument in arguments)]
    found, error = mistaken("cluster", *line, out=tmp_path / "run")
    assert says in error
    assert found == code
    assert error.count("\n") == 1
    assert error.startswith("error: ")
