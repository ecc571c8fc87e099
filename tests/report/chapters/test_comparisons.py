"""Chapters of several runs: what stands in them, and that ours and the paper's never share a scale."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from facenet.report.chapters.comparisons import clustered, degraded, folds, overview, sweep
from facenet.report.page import Chapter, Table
from facenet.report.runs import Found, Run
from facenet.report.sweeps import PAPER_NOTE, sweeps, view2
from tests.helpers.reports import run


def tables(chapter: Chapter) -> list[Table]:
    return [block for section in chapter.sections for block in section.blocks if isinstance(block, Table)]


def texts(chapter: Chapter) -> str:
    return " ".join(getattr(block, "text", "") for section in chapter.sections for block in section.blocks)


def test_a_table_of_the_paper_stands_beside_ours() -> None:
    runs = [
        run(f"{model}{seed}", 0.8 + seed / 10, model=model, seed=seed) for model in ("nn2", "nn4") for seed in (0, 1)
    ]
    chapter = sweep(sweeps(runs)[0], Found(runs, ["7"], []))
    ours, theirs = tables(chapter)
    assert ours.rows[3] == ("nn4", "2", "85.0 % ± 7.1", "0.9", "70.0 % ± 0.0", "50.0 % ± 0.0", "1,000")
    assert ours.rows[0] == ("nn1", "-", "-", "-", "-", "-", "-")
    assert theirs.rows[0] == ("nn1", "87.9 %", "1.9 %")
    assert PAPER_NOTE in texts(chapter)
    assert chapter.verdict.startswith("2 of 6 settings")
    assert [line for line in chapter.warnings if "1 jobs have not finished: 7" in line]


def test_a_single_seed_is_said() -> None:
    chapter = sweep(sweeps([run("a", 0.9)])[0], Found([], [], []))
    assert [line for line in chapter.warnings if "single seed" in line]


def test_missing_folds_of_view_2_are_named() -> None:
    runs = [run(f"f{fold}", 0.9, table="lfw_view2", fold=fold) for fold in (1, 3)]
    chapter = folds(view2(runs), Found(runs, [], []))
    assert "2 of ten folds" in chapter.verdict
    assert [line for line in chapter.warnings if "2, 4, 5, 6, 7, 8, 9, 10 are missing" in line]
    mine, neighbours = tables(chapter)
    assert mine.rows == [("1", "90.00 %"), ("3", "90.00 %"), ("mean ± standard error", "90.0 % ± 0.0")]
    assert neighbours.rows[0][0] == "Unrestricted, No Outside Data"
    assert len(neighbours.rows) == 10


def test_ten_folds_are_a_score() -> None:
    runs = [run(f"f{fold}", 0.9, table="lfw_view2", fold=fold) for fold in range(1, 11)]
    chapter = folds(view2(runs), Found(runs, [], []))
    assert "ten folds" in chapter.verdict
    assert not chapter.warnings


def degrade_run(content: Any) -> Run:
    return Run(Path("d"), "d", "degrade", {"degrade": content, "clean": {"accuracy": 0.9}})


def test_robustness_stands_beside_table_4_where_the_paper_has_it() -> None:
    level = {"accuracy": 0.8, "sem": 0.01, "auc": 0.9, "eer": 0.2, "val_at_far": {"1e-3": {"val": 0.3}}}
    chapter = degraded(
        degrade_run({"jpeg": {"90": level, "10": {**level, "accuracy": 0.6}}, "blur": {"2": level}}), "d0"
    )
    jpeg, blur = tables(chapter)
    assert jpeg.rows[0] == ("10", "60.0 % ± 1.0", "0.9", "20.0 %", "30.0 %", "67.3 %")
    assert jpeg.rows[1][-1] == "86.5 %"
    assert len(blur.rows[0]) == len(blur.header) == 5
    assert chapter.verdict == (
        "The hardest disturbance is JPEG quality 10: 60.0 % of the pairs right, 90.0 % on untouched images."
    )


def test_broken_levels_are_left_out() -> None:
    chapter = degraded(degrade_run({"jpeg": None, "blur": {"1": 3}, "x": {"1": {"accuracy": None}}}), "d0")
    assert chapter.verdict == "No disturbance was measured."
    assert len(tables(chapter)) == 1


def test_clusters_are_listed_largest_first(tmp_path: Path) -> None:
    (tmp_path / "clusters.csv").write_text("cluster,path,identity\n0,a,x\n1,b,y\n1,c,y\n1,d,z\n2,e,\n")
    metrics = {"faces": 5, "clusters": 3, "threshold": 0.5, "bcubed_f1": 0.8}
    chapter = clustered(Run(tmp_path, "c", "cluster", metrics))
    scores, largest = tables(chapter)
    assert scores.rows == [("BCubed F1", "0.8")]
    assert largest.rows == [("1", "3", "2", "y"), ("0", "1", "1", "x"), ("2", "1", "1", "unknown")]
    assert "5 faces fell into 3 clusters" in chapter.verdict


def test_an_overview_names_the_best_and_survives_broken_numbers() -> None:
    runs = [run("a", 0.8), run("b", 0.9), run("c", None)]
    chapter = overview(runs, 2)
    assert chapter.verdict == "Of 3 runs b has the highest accuracy, 90.0 %."
    assert [row[1] for row in tables(chapter)[0].rows] == ["80.0 %", "90.0 %", "-"]
    assert chapter.left_out
    assert overview([run("c", None), run("d", float("nan"))], 4).verdict == "2 runs."
