"""The page from run folders on disk: sections there and not there, hostile names, size, sweeps."""

from __future__ import annotations

import json
import statistics
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from facenet.errors import DataError
from facenet.files import read_sealed, write_sealed
from facenet.report.build import LIMIT, SIDES, fit, overview_chapter, write_report
from facenet.report.page import Chapter
from tests.helpers.pictures import write_tree
from tests.helpers.reports import (
    HOSTILE,
    faces,
    read,
    run,
    tables,
    titles,
    without_drawings,
    write_metrics,
    write_run,
)

TITLES = {
    "How often it is right",
    "Fold by fold",
    "What it gets wrong",
    "Triplets",
    "Clusters",
    "Who lies where",
    "How it was trained",
    "What it was measured with",
}


def page_of(tmp_path: Path, *folders: Path, **options: Any) -> tuple[str, dict[str, Any]]:
    metrics = write_report(list(folders), tmp_path / "page.html", **options)
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert metrics["bytes"] == len(text.encode()) < LIMIT
    read(text)
    json.dumps(metrics)
    return text, metrics


class Whole(NamedTuple):
    folder: Path
    text: str
    metrics: dict[str, Any]
    progress: list[tuple[int, int]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """A run with every part, and its page."""
    place, seen = tmp_path_factory.mktemp("runs"), list[tuple[int, int]]()
    folder = write_run(place / "train")
    return Whole(folder, *page_of(place, folder, progress=lambda done, total: seen.append((done, total))), seen)


def test_a_whole_run_has_every_section(whole: Whole) -> None:
    assert titles(whole.text) == TITLES
    assert whole.metrics["chapters"] == {"train": [t for t in whole.metrics["chapters"]["train"] if t in TITLES]}
    assert whole.text.count("<svg") == 7
    assert whole.text.count("<img") > 30
    assert "Right on" in whole.text
    assert "calibrated for FAR 0.001 0.600" in whole.text
    assert whole.progress == [(1, 1)]


@pytest.mark.slow  # two whole pages; parts are compared in their own tests
def test_the_same_runs_give_the_same_page(whole: Whole, tmp_path: Path) -> None:
    assert page_of(tmp_path, whole.folder)[0] == whole.text


@pytest.mark.parametrize(
    ("gone", "without", "says"),
    [
        ("evaluation", {"What it gets wrong", "Triplets", "Clusters", "Who lies where"}, "facenet verify keeps"),
        ("logs", {"How it was trained"}, "run folder of facenet train"),
        ("evaluation/thumbnails.npy", {"What it gets wrong", "Triplets", "Clusters"}, "are gone"),
        ("encoder", set(), "No threshold is calibrated"),
    ],
)
def test_a_missing_part_leaves_its_section_out_and_says_what_makes_it(
    tmp_path: Path, gone: str, without: set[str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_drawings(monkeypatch)
    run = write_run(tmp_path / "run")
    (run / gone).rename(tmp_path / "away")
    text, _ = page_of(tmp_path, run)
    assert TITLES - titles(text) == without
    assert says in text


def test_metrics_alone_make_a_page(tmp_path: Path) -> None:
    text, _ = page_of(tmp_path, write_metrics(tmp_path / "run", {"verification": {"accuracy": None, "folds": "x"}}))
    assert "not a number" in text
    assert titles(text) == {"What it was measured with"}


def test_a_hostile_name_is_text_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_drawings(monkeypatch)  # test_svg.py holds these against the same names
    names = [HOSTILE, f"$\\frac{{1}}{{0$ {'long ' * 200}", *(f"p{i}" for i in range(12))]
    folder = write_run(tmp_path / "<script>alert(2)<" / HOSTILE.replace("/", "-"), faces(names=names))
    record = read_sealed(folder / "encoder" / "encoder.json")
    record["model"]["name"] = record["training"]["data"] = HOSTILE
    record["thresholds"] = {HOSTILE: 1, "0.001": 10**400}
    write_sealed(folder / "encoder" / "encoder.json", record)
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["leakage"] = {HOSTILE: 3}
    metrics["identification"] = {HOSTILE: {HOSTILE: 0.5}}
    metrics["quantised"] = {HOSTILE: {"accuracy": 0.5}}
    metrics["verification"]["val_at_far"][HOSTILE] = {"val": 10**400, "negatives": float("nan")}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    text, _ = page_of(tmp_path, folder, title=HOSTILE)
    shown = read(text)
    assert f"face of {HOSTILE}" in {attributes.get("alt") for _, attributes in shown.tags}
    assert HOSTILE in shown.text
    assert "<img src=x" not in text


def test_huge_and_broken_numbers_do_not_stop_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_drawings(monkeypatch)
    run = write_run(tmp_path / "run")
    metrics = json.loads((run / "metrics.json").read_text())
    for key in ("accuracy", "sem", "auc", "eer", "std", "pairs"):
        metrics["verification"][key] = float("nan") if key == "sem" else 10**300
    metrics["train"] = {"faces_seen": float("inf"), "images": None, "skipped": "many"}
    metrics["verification"]["folds"] = [None, float("nan"), 1e308]
    (run / "metrics.json").write_text(json.dumps(metrics))
    page_of(tmp_path, run)


def test_files_are_shown_through_the_encoder_of_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_drawings(monkeypatch)
    embeddings = faces(6, 6)
    write_tree(tmp_path / "faces", 6, 6)
    paths = [f"p{i // 6:03d}/p{i // 6:03d}_{i % 6 + 1:04d}.png" for i in range(36)]
    embeddings = type(embeddings)(
        embeddings.vectors, paths, embeddings.identities, embeddings.fingerprint, str(tmp_path / "faces")
    )
    train = write_run(tmp_path / "train", faces(6, 3))
    verify = write_run(tmp_path / "verify", embeddings, thumbnails=False)
    (verify / "encoder").rename(tmp_path / "gone")
    text, metrics = page_of(tmp_path, train, verify)
    assert "What it gets wrong" in metrics["chapters"]["verify"]
    assert metrics["chapters"]["Overview"] == ["Runs"]
    alone, _ = page_of(tmp_path, verify)
    assert "central crop" not in alone
    given, _ = page_of(tmp_path, verify, encoder=tmp_path / "gone")
    assert "central crop" in given
    assert text.count("central crop") == 2, "the verification found the encoder with its fingerprint"


def test_a_sweep_is_put_together(tmp_path: Path) -> None:
    values = {("nn4", 0): 0.9, ("nn4", 1): 0.94, ("nn2", 0): 0.8}
    for job, ((model, seed), accuracy) in enumerate(values.items()):
        about = {"table": "table3", "scale": "synthetic", "model": model, "seed": seed}
        write_metrics(tmp_path / "sweep" / str(job), {"run": about, "verification": {"accuracy": accuracy}})
    for fold in (1, 2):
        about = {"table": "lfw_view2", "model": "small", "fold": fold, "seed": 0}
        verification = {"accuracy": 0.8 + fold / 100, "pairs": 600}
        write_metrics(tmp_path / "view2" / str(fold), {"run": about, "verification": verification})
    text, metrics = page_of(tmp_path, tmp_path / "sweep", tmp_path / "view2")
    found = metrics["sweeps"]["table3"]["synthetic"]["nn4"]["accuracy"]
    assert found["mean"] == pytest.approx(statistics.mean([0.9, 0.94]))
    assert found["std"] == pytest.approx(statistics.stdev([0.9, 0.94]))
    view2 = metrics["sweeps"]["lfw_view2"]["small seed 0"]
    assert view2["accuracy"] == pytest.approx(0.815)
    assert view2["sem"] == pytest.approx(statistics.stdev([0.81, 0.82]) / 2**0.5)
    assert view2["missing"] == [3, 4, 5, 6, 7, 8, 9, 10]
    assert "private hold-out set" in text
    assert "87.9\N{NO-BREAK SPACE}%" in text


def test_many_runs_are_listed_and_some_shown_in_full(tmp_path: Path) -> None:
    folders = [write_metrics(tmp_path / f"r{i}", {"verification": {"accuracy": 0.5 + i / 10}}) for i in range(4)]
    text, metrics = page_of(tmp_path, *folders, full=2)
    assert list(metrics["chapters"]) == ["Overview", "r0", "r1"]
    assert "in full: r2, r3; give fewer runs at a time" in text
    write_metrics(tmp_path / "search", {"queries": 3})
    text, metrics = page_of(tmp_path, folders[0], tmp_path / "search")
    assert metrics["left_out"] == ["search"]
    assert "Left out, since a report shows nothing of them: search." in text


def test_pictures_shrink_until_the_page_fits() -> None:
    def chapter(side: int) -> Chapter:
        return Chapter("x" * side * side, "", [], [])

    sizes = [len(fit("t", "s", [lambda _, side=side: chapter(side)])[0]) for side in SIDES]  # type: ignore[misc]
    for size, side in zip(sizes, SIDES, strict=True):
        text, chosen, (shown,) = fit("t", "s", [chapter], size)
        assert (len(text), chosen, shown) == (size, side, chapter(side))
    with pytest.raises(DataError, match="give fewer runs"):
        fit("t", "s", [chapter], sizes[-1] - 1)


def test_the_limit_holds_for_the_page(tmp_path: Path) -> None:
    folder = write_metrics(tmp_path / "r", {"verification": {"accuracy": 0.5}})
    with pytest.raises(DataError, match="more than 1,000; give fewer runs"):
        write_report([folder], tmp_path / "page.html", limit=1000)
    assert not (tmp_path / "page.html").exists()


def test_an_overview_names_the_best_and_survives_broken_numbers() -> None:
    runs = [run("a", 0.8), run("b", 0.9), run("c", None)]
    chapter = overview_chapter(runs, 2)
    assert chapter.verdict == "Of 3 runs b has the highest accuracy, 90.0 %."
    assert [row[1] for row in tables(chapter)[0].rows] == ["80.0 %", "90.0 %", "-"]
    assert chapter.left_out
    other = run("b", 0.9)
    other.metrics["verification"]["pairs"] = 77
    assert "scored different pairs" in overview_chapter([run("a", 0.8), other], 2).verdict
    assert overview_chapter([run("c", None), run("d", float("nan"))], 4).verdict == "2 runs."


def test_the_template_is_part_of_the_package() -> None:
    assert (files("facenet") / "report" / "page.html.j2").is_file()
