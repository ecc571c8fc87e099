"""The chapter of an upgrade: it says what was measured, warns where that is needed, and never stops the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from facenet.compat.assessment import assess_upgrade
from facenet.compat.options import GateOptions
from facenet.console import plain
from facenet.report.build import write_report
from facenet.report.chapters.upgrade import upgrade_chapter
from facenet.report.page import Figures
from facenet.report.runs import Run, kind_of
from tests.helpers.compat import sets
from tests.helpers.reports import HOSTILE, read, titles, without_drawings, write_metrics


@pytest.fixture(scope="module")
def metrics() -> dict[str, Any]:
    """What facenet compat writes, with everything it can be given."""
    given = sets(30)
    fit = (given["old"].subset(range(60)), given["reference"].subset(range(60)))
    held = {name: embeddings.subset(range(60, 150)) for name, embeddings in given.items()}
    found: dict[str, Any] = plain(
        assess_upgrade(**held, fit=fit, steps=3, draws=50, gate=GateOptions(max_negative_flips=1.0))
    )
    return found


def chapter_of(metrics: dict[str, Any]) -> Any:
    return upgrade_chapter(Run(Path("run"), "run", "compat", metrics), "u0")


def test_the_page_has_every_section(metrics: dict[str, Any], tmp_path: Path) -> None:
    assert kind_of(metrics) == "compat"
    found = write_report([write_metrics(tmp_path / "upgrade", metrics)], tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    read(text)
    assert titles(text) == {
        "Old and new in four cells",
        "What the upgrade gains and costs",
        "While the gallery is backfilled",
        "Who gets worse",
        "Maps fitted afterwards",
        "What was compared",
    }
    assert list(found["chapters"]) == ["Upgrade: upgrade"]
    assert text.count("<svg") == 2
    assert "Compatible: new queries on the old gallery reach accuracy" in text
    assert all(f">{name}<" in text for name in ("old-old", "new-old", "new-new", "new*-new*"))


def test_two_upgrades_and_a_verification_share_a_page(
    metrics: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_drawings(monkeypatch)
    runs = [write_metrics(tmp_path / name, metrics) for name in ("one", "two")]
    runs.append(write_metrics(tmp_path / "three", {"verification": metrics["cells"]["new_new"]["verification"]}))
    found = write_report(runs, tmp_path / "page.html")
    assert list(found["chapters"]) == ["three", "Upgrade: one", "Upgrade: two"]
    read((tmp_path / "page.html").read_text(encoding="utf-8"))


def test_warnings_are_given_where_they_are_due(metrics: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    without_drawings(monkeypatch)
    sure = {"accuracy": {"new_old": {"difference": 0.02, "low": 0.01, "high": 0.03}}}
    assert chapter_of({**metrics, "intervals": sure}).warnings == []
    unsure = {"accuracy": {"new_old": {"difference": 0.02, "low": -0.01, "high": 0.05}}}
    worse = {
        **metrics,
        "intervals": unsure,
        "gate": {**metrics["gate"], "passed": False},
        "images": {**metrics["images"], "only_new": 3},
        "identification_left_out": "too few",
        "baselines": {**metrics["baselines"], "scored_too": 7},
    }
    said = chapter_of(worse).warnings
    assert len(said) == 5
    for part in ("gate did not pass", "(accuracy) holds 0", "3 images of new", "too few", "7 of the faces"):
        assert any(part in line for line in said), part


def test_what_is_missing_is_left_out_with_the_option_that_makes_it(
    metrics: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    without_drawings(monkeypatch)
    cells = {name: cell for name, cell in metrics["cells"].items() if name != "reference"}
    chapter = chapter_of({**metrics, "cells": cells, "baselines": {}})
    assert "Maps fitted afterwards" not in [section.title for section in chapter.sections]
    assert [line.split(": ")[1] for line in chapter.left_out] == [
        "facenet compat reference=EMBEDDINGS",
        "facenet compat fit_old=EMBEDDINGS fit_new=EMBEDDINGS",
    ]


def test_broken_numbers_and_hostile_names_do_not_stop_the_page(metrics: dict[str, Any], tmp_path: Path) -> None:
    bare = {"cells": {}, "yardsticks": {}}
    for broken in (
        bare,
        {**bare, "roc": {"far": [0.1, None], "old_old": [1, 2]}, "mixed": [{"share": "x"}, 3]},
        {**bare, "roc": {"far": [0.5, 0.1]}, "mixed": 3, "regressions": {"worst": [1, {}]}, "gate": 4, "flips": 1},
        {**metrics, "roc": {"far": metrics["roc"]["far"], "old_old": [1e400] * 120}},
    ):
        chapter = chapter_of(broken)
        assert not any(isinstance(block, Figures) for block in chapter.sections[0].blocks)
    worst = [{**row, "person": HOSTILE} for row in metrics["regressions"]["worst"][:2]]
    evil = {
        **metrics,
        "verdict": HOSTILE,
        "regressions": {**metrics["regressions"], "worst": worst},
        "encoders": {HOSTILE: HOSTILE},
    }
    write_report([write_metrics(tmp_path / "evil", evil)], tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert HOSTILE not in text
    read(text)
