"""The chapter on robustness: levels in order, the paper's figures beside ours, broken levels left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from facenet.report.chapters.robustness import by_level, robustness_chapter
from facenet.report.runs import Run
from tests.helpers.reports import tables


def degrade_run(content: Any) -> Run:
    return Run(Path("d"), "d", "degrade", {"degrade": content, "clean": {"accuracy": 0.9}})


def test_robustness_stands_beside_table_4_where_the_paper_has_it() -> None:
    level = {"accuracy": 0.8, "sem": 0.01, "auc": 0.9, "eer": 0.2, "val_at_far": {"1e-3": {"val": 0.3}}}
    chapter = robustness_chapter(
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
    chapter = robustness_chapter(degrade_run({"jpeg": None, "blur": {"1": 3}, "x": {"1": {"accuracy": None}}}), "d0")
    assert chapter.verdict == "No disturbance was measured."
    assert len(tables(chapter)) == 1


def test_levels_are_sorted_as_numbers() -> None:
    assert [level for level, _ in by_level(dict.fromkeys(["100", "20", "none", "3.5"]))] == ["3.5", "20", "100", "none"]
