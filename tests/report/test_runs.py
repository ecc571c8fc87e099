"""Run folders as the commands leave them, and everything that can be wrong with one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from facenet.errors import ConfigError, DataError
from facenet.report.runs import find_runs, kind_of
from tests.helpers.reports import write_metrics


@pytest.mark.parametrize(
    ("metrics", "kind"),
    [
        ({"verification": {}}, "verification"),
        ({"degrade": {}, "clean": {}}, "degrade"),
        ({"faces": 1, "clusters": 1, "threshold": 1}, "cluster"),
        ({"verification": {}, "run": {"table": "table3"}}, "table3"),
        ({"verification": {}, "run": {"table": None}}, "verification"),
        ({"verification": {}, "run": {"table": ["table3"]}}, "verification"),
        ({"added": 3}, None),
        ({"verification": 3}, None),
    ],
)
def test_a_run_is_told_by_its_content(metrics: dict[str, Any], kind: str | None) -> None:
    assert kind_of(metrics) == kind


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    folders = [tmp_path / place / "verify" for place in ("a", "b")]
    for folder in (*folders, tmp_path / "one"):
        write_metrics(folder, {"verification": {}})
    found = find_runs([*folders, tmp_path / "one"])
    assert [run.name for run in found.runs] == [*(folder.as_posix() for folder in folders), "one"]


def test_a_sweep_is_a_folder_of_runs_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for job in (10, 2, 1):
        write_metrics(tmp_path / "sweep" / str(job), {"verification": {}})
    (tmp_path / "sweep" / "3" / ".hydra").mkdir(parents=True)
    write_metrics(tmp_path / "sweep" / "other", {"added": 1})
    write_metrics(tmp_path / "one", {"verification": {}})
    found = find_runs([tmp_path / "sweep", tmp_path / "one"])
    assert [run.name for run in found.runs] == ["sweep/1", "sweep/2", "sweep/10", "one"]
    assert [run.given for run in found.runs] == [False, False, False, True]
    assert (found.unfinished, found.foreign) == (["3"], ["other"])


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda at: None, "no such run folder"),
        (lambda at: at.mkdir(), "not a run folder"),
        (lambda at: write_metrics(at, {"added": 3}), "nothing a report shows (it holds added)"),
        (lambda at: write_metrics(at, [1]), "expected a JSON object"),
        (lambda at: (at.mkdir(), (at / "metrics.json").write_text('{"verification": {')), "not readable as JSON"),
    ],
    ids=["missing", "empty", "foreign", "list", "broken"],
)
def test_what_is_no_run_is_one_clear_line(tmp_path: Path, make: Any, says: str) -> None:
    make(tmp_path / "run")
    with pytest.raises(DataError) as raised:
        find_runs([tmp_path / "run"])
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)


def test_no_folder_at_all() -> None:
    with pytest.raises(ConfigError, match="pass runs=DIR"):
        find_runs([])
