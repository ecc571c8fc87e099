from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from facenet.console import (
    evaluation_rows,
    far_rows,
    flatten,
    leakage_line,
    one_line_errors,
    plain,
    show,
    table,
    write_metrics,
)
from facenet.errors import ConfigError, DataError
from facenet.files import read_json


class Point(NamedTuple):
    x: float


def test_metrics_are_plain_json(tmp_path: Path) -> None:
    path = write_metrics(tmp_path, {"a": {"b": np.float32(0.5), "nan": float("nan")}, "c": np.arange(2), "p": Point(1)})
    assert read_json(path) == {"a": {"b": 0.5, "nan": None}, "c": [0, 1], "p": {"x": 1}}


@pytest.mark.parametrize(("error", "code"), [(ConfigError("a\n b"), 2), (DataError("a\n b"), 3)])
def test_an_error_is_one_line_and_a_code(error: Exception, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped, one_line_errors():
        raise error
    assert stopped.value.code == code
    assert capsys.readouterr().err == "error: a b\n"


def test_bugs_are_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError), one_line_errors():
        _ = 1 / 0


def test_table_prints_every_cell(capsys: pytest.CaptureFixture[str]) -> None:
    table([("accuracy", 0.98765), ("path", "[red]x")], header=("metric", "value"), title="verify")
    out = capsys.readouterr().out
    assert "0.9877" in out
    assert "[red]x" in out
    assert "metric" in out


def test_show_and_flatten() -> None:
    assert show(0.00001234) == "1.234e-05"
    assert flatten({"a": {"b": 1, "c": [1]}}) == [("a.b", 1)]
    assert plain(Path("x")) == "x"


def test_rates_that_are_not_resolved_share_a_row_for_each_reason() -> None:
    known = {"val": 0.5, "low": 0.4, "high": 0.6}
    rows = far_rows(
        {"1e-1": {"val": None, "reason": "too big"}, "1e-2": known, "1e-3": {"val": None}, "1e-4": {"val": None}}
    )
    assert rows == [
        ("VAL at FAR 1e-2", "0.5000 (95 % 0.4000 to 0.6000)"),
        ("VAL at FAR 1e-1", "not resolvable: too big"),
        ("VAL at FAR 1e-3, 1e-4", "not resolvable: too few different pairs"),
    ]


def test_an_evaluation_becomes_rows() -> None:
    leakage = {
        "people": 9,
        "shared_people": None,
        "near_duplicates": 2,
        "train_near_duplicates": 3,
        "near_sq_dist": 0.01,
    }
    found = {
        "all_pairs": {"faces": 4, "identities": 2, "same": 2, "different": 4, "val_at_far": {}},
        "identification": {
            "people": 2,
            "probes": 5,
            "strangers": 1,
            "map": 0.5,
            "cmc": {"1": 0.25, "5": 1.0},
            "tpir_at_fpir": {"1e-1": {"tpir": 0.75}, "1e-2": {"tpir": None}},
        },
        "quantised": {"int8": {"accuracy": 0.9, "accuracy_difference": -0.001, "bytes_per_face": 128}},
        "leakage": leakage,
    }
    rows = dict(evaluation_rows(found))
    assert rows["pairs, same and different"] == "2, 4"
    assert rows["identification: found at rank (k)"] == "0.2500 (1), 1.0000 (5)"
    assert rows["identification: TPIR at FPIR 1e-1"] == 0.75
    assert rows["identification: TPIR at FPIR 1e-2"] == "too few strangers"
    assert rows["int8, 128 bytes a face: accuracy"] == "0.9000 (-0.10 points)"
    assert rows["leakage"] == leakage_line(leakage)
    assert "does not say" in rows["leakage"]
    assert "3 with training faces" in rows["leakage"]
