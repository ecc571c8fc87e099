"""Runs beside published figures: ours and the paper's never share a scale."""

from __future__ import annotations

import pytest

from facenet.report.chapters.comparisons import sweep_chapter, view2_chapter
from facenet.report.page import Chapter
from facenet.report.paper import PAPER_NOTE
from facenet.report.sweeps import group_folds, group_sweeps
from tests.helpers.reports import run, tables, without_drawings


def texts(chapter: Chapter) -> str:
    return " ".join(getattr(block, "text", "") for section in chapter.sections for block in section.blocks)


def test_a_table_of_the_paper_stands_beside_ours() -> None:
    runs = [
        run(f"{model}{seed}", 0.8 + seed / 10, model=model, seed=seed) for model in ("nn2", "nn4") for seed in (0, 1)
    ]
    chapter = sweep_chapter(group_sweeps(runs)[0], ["7"])
    ours, theirs = tables(chapter)
    assert ours.rows[3] == ("nn4", "2", "85.0 % ± 7.1", "0.9", "70.0 % ± 0.0", "50.0 % ± 0.0", "1,000")
    assert ours.rows[0] == ("nn1", "-", "-", "-", "-", "-", "-")
    assert theirs.rows[0] == ("nn1", "87.9 %", "1.9 %")
    assert PAPER_NOTE in texts(chapter)
    assert chapter.verdict.startswith("2 of 6 settings")
    assert [line for line in chapter.warnings if "1 jobs have not finished: 7" in line]


def test_a_single_seed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    without_drawings(monkeypatch)
    chapter = sweep_chapter(group_sweeps([run("a", 0.9)])[0], [])
    assert [line for line in chapter.warnings if "single seed" in line]


def test_missing_folds_of_view_2_are_named() -> None:
    runs = [run(f"f{fold}", 0.9, table="lfw_view2", fold=fold) for fold in (1, 3)]
    chapter = view2_chapter(group_folds(runs), [])
    assert "2 of ten folds" in chapter.verdict
    assert [line for line in chapter.warnings if "2, 4, 5, 6, 7, 8, 9, 10 are missing" in line]
    mine, neighbours = tables(chapter)
    assert mine.rows == [("1", "90.00 %"), ("3", "90.00 %"), ("mean ± standard error", "90.0 % ± 0.0")]
    assert neighbours.rows[0][0] == "Unrestricted, No Outside Data"
    assert len(neighbours.rows) == 10


def test_ten_folds_are_a_score() -> None:
    runs = [run(f"f{fold}", 0.9, table="lfw_view2", fold=fold) for fold in range(1, 11)]
    chapter = view2_chapter(group_folds(runs), [])
    assert "ten folds" in chapter.verdict
    assert not chapter.warnings
