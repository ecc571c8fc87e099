"""The chapter of a search: what its threshold costs, and the rates beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from facenet.errors import ConfigError
from facenet.report.build import write_report
from facenet.report.chapters.search import search_chapter
from facenet.report.runs import Run, find_runs
from tests.helpers.reports import HOSTILE, read, tables, write_metrics

METRICS: dict[str, Any] = {
    "queries": 4, "skipped": 0, "threshold": 0.9, "rate_kind": "fpir", "fpir": 0.05, "faces": 300,
    "threshold_from": "60 people of the gallery", "expected_strangers_accepted": 0.05, "expected_right": 0.98,
    "accepted_right": 0.5, "strangers_rejected": 0.75,
    "rates": [
        {"fpir": 0.01, "threshold": 0.7, "expected_strangers_accepted": 0.01, "expected_right": 0.9},
        {"fpir": 0.2, "threshold": 1.2, "expected_strangers_accepted": 0.2, "expected_right": None},
    ],
    "results": [
        {"query": "a.jpg", "answer": "ada", "nearest_sq_dist": 0.6, "neighbours": []},
        {"query": "b.jpg", "answer": "bob", "nearest_sq_dist": 0.8, "neighbours": []},
        {"query": "c.jpg", "answer": None, "nearest_sq_dist": 1.1, "neighbours": []},
        {"query": HOSTILE, "answer": None, "nearest_sq_dist": 1.3, "neighbours": []},
    ],
}  # fmt: skip


def chapter(metrics: dict[str, Any], fpir: float | None = None) -> Any:
    return search_chapter(Run(Path("s"), "s", "search", metrics), fpir)


def test_the_threshold_stands_beside_its_costs() -> None:
    found = chapter(METRICS)
    facts, rates, answers = tables(found)
    assert found.verdict == "Of 4 queries 2 get a name at fpir 0.05, up to a squared distance of 0.9."
    told = dict(facts.rows)
    assert told["kind of rate"] == "fpir: share of strangers who get any match"
    assert (told["strangers let in, expected"], told["strangers let in, of these queries"]) == ("5.0 %", "25.0 %")
    assert (told["right people kept, expected"], told["right people kept, of these queries"]) == ("98.0 %", "50.0 %")
    assert [row[0::4] for row in rates.rows] == [("0.01", "1"), ("0.2", "3")], "queries with a name at other rates"
    assert rates.rows[1][3] == "-"
    assert [row[1] for row in answers.rows] == ["ada", "bob", "no match", "no match"]


def test_another_rate_is_chosen_of_those_that_the_run_lists() -> None:
    assert chapter(METRICS, 0.2).verdict == "Of 4 queries 3 get a name at fpir 0.2, up to a squared distance of 1.2."
    mixed = METRICS | {"thresholds_of_older": {"ab": 1.0}}
    assert "queries - get a name at fpir 0.2" in chapter(mixed, 0.2).verdict, "each encoder has its own threshold"
    with pytest.raises(ConfigError, match=r"fpir: s lists no costs of 0\.3 \(it lists 0\.01, 0\.2\)"):
        chapter(METRICS, 0.3)
    with pytest.raises(ConfigError, match="it lists none; search again"):
        chapter({"queries": 1, "threshold": 0.5, "results": []}, 0.3)


def test_a_search_makes_a_page(tmp_path: Path) -> None:
    foreign = METRICS | {
        "threshold_from": "the encoder's calibration would let in 90%: it is of other faces",
        "rates": 3,
    }
    for name, metrics in (("one", METRICS), ("two", foreign), ("old", {"queries": 0, "threshold": 1, "results": []})):
        write_metrics(tmp_path / name, metrics)
    assert [run.kind for run in find_runs([tmp_path / "one"]).runs] == ["search"]
    made = write_report([tmp_path / "one", tmp_path / "two", tmp_path / "old"], tmp_path / "page.html")
    read((tmp_path / "page.html").read_text())
    assert list(made["warnings"]) == ["Search: two"]
    write_metrics(tmp_path / "k", {"faces": 5, "clusters": 3, "threshold": 0.5})
    with pytest.raises(ConfigError, match=r"fpir: it is for runs of facenet search"):
        write_report([tmp_path / "k"], tmp_path / "k.html", fpir=0.1)
