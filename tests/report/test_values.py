"""Values of metrics: what is no number is None or a dash, never an error."""

from __future__ import annotations

from typing import Any

import pytest

from facenet.report.values import get_mapping, get_rows, number, parse_rate, percent, plain, plus_minus


@pytest.mark.parametrize("broken", [None, float("nan"), float("-inf"), "0.9", True, {}, [], 10**400])
def test_what_is_no_number_is_a_dash(broken: Any) -> None:
    assert number(broken) is None
    assert percent(broken) == plain(broken) == "-"
    assert plus_minus(0.5, broken) == "50.0 %"


@pytest.mark.parametrize("text", ["0", "-1e-3", "1.01", "nan", "inf", "", "x", "1e-400"])
def test_what_is_no_rate_is_none(text: str) -> None:
    assert parse_rate(text) is None
    assert parse_rate("1") == 1


def test_entries_that_are_no_mappings_are_left_out() -> None:
    metrics = {"a": {"x": {"b": 1}, "y": 3}, "c": 4}
    assert get_rows(metrics, "a") == [("x", {"b": 1})]
    assert get_mapping(metrics, "c") == get_mapping(None, "a") == get_mapping(metrics, "a", "y") == {}
