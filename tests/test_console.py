from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from facenet.console import flatten, one_line_errors, plain, show, table, write_metrics
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
