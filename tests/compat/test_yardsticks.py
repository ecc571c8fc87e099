"""Criterion, gain, tax, flips and the gate against plain loops, and every way in which they are not defined."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from facenet.compat.cells import METRICS, score_cells
from facenet.compat.options import GateOptions
from facenet.compat.yardsticks import decide, flips, upgrade_gains
from facenet.errors import ConfigError
from tests.helpers.compat import case, right_by_loops


def measures(old: Any, mixed: Any, new: Any, reference: Any = ...) -> dict[str, dict[str, Any]]:
    found = {"old_old": old, "new_old": mixed, "old_new": mixed, "new_new": new}
    found |= {} if reference is ... else {"reference": reference}
    return {name: dict.fromkeys(METRICS, value) for name, value in found.items()}


def test_gain_and_tax_are_the_formulas() -> None:
    row = upgrade_gains(measures(0.70, 0.76, 0.85, 0.90))["accuracy"]
    assert row["criterion"] is True
    assert row["gain"] == pytest.approx((0.76 - 0.70) / (0.90 - 0.70))
    assert row["tax"] == pytest.approx(0.90 - 0.85)
    assert row["against"] == "reference"
    assert "reason" not in row
    row = upgrade_gains(measures(0.70, 0.69, 0.85, 0.90))["map"]
    assert (row["criterion"], row["gain"]) == (False, pytest.approx(-0.05))


def test_without_a_reference_the_gain_says_so_and_the_tax_is_none() -> None:
    row = upgrade_gains(measures(0.70, 0.76, 0.85))["accuracy"]
    assert row["gain"] == pytest.approx(0.4)
    assert (row["against"], row["tax"]) == ("new_new", None)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ((0.7, 0.7, 0.7), "new .0.7000. is not better than old .0.7000."),
        ((0.7, 0.7, 0.8, 0.65), r"new\* .0.6500. is not better"),
        ((None, 0.7, 0.8), "not measured in every cell"),
        ((0.7, 0.7, 0.8, None), "not measured in every cell"),
    ],
)
def test_a_gain_without_a_divisor_is_none_with_a_reason(values: tuple[Any, ...], reason: str) -> None:
    row = upgrade_gains(measures(*values))["accuracy"]
    assert row["gain"] is None
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(row["reason"])


def test_flips_against_loops() -> None:
    shared, pairs = case()
    cells = score_cells(shared, pairs, None)
    found = flips(cells, pairs)
    old = cells["old_old"]
    before = right_by_loops(old.sq_dist, pairs, old.verification.thresholds)
    for name in ("new_old", "new_new"):
        for key, thresholds in (
            (name, cells[name].verification.thresholds),
            (f"{name}_at_old_threshold", old.verification.thresholds),
        ):
            after = right_by_loops(cells[name].sq_dist, pairs, thresholds)
            both = [(one[0], score) for one, row in zip(before, after, strict=True) for score in row]
            assert found[key]["negative"] == sum(a and not b for a, b in both) / len(both) > 0
            assert found[key]["positive"] == sum(b and not a for a, b in both) / len(both) > 0
        net = found[name]["positive"] - found[name]["negative"]
        assert net == pytest.approx(np.mean(cells[name].right) - np.mean(old.right))
    assert len({row["negative"] for row in found.values()}) > 2, "the thresholds matter"


def flipped(new_old: float = 0.01, new_new: float = 0.01) -> dict[str, dict[str, float]]:
    return {name: {"negative": share, "positive": 0.1} for name, share in (("new_old", new_old), ("new_new", new_new))}


@pytest.mark.parametrize(
    ("values", "shares", "options", "failed"),
    [
        ((0.70, 0.76, 0.85, 0.90), (), {}, []),
        ((0.70, 0.76, 0.85, 0.90), (), {"min_gain": 0.29}, []),
        ((0.70, 0.76, 0.85, 0.90), (), {"min_gain": 0.31}, ["update gain 0.3000 is below 0.31"]),
        ((0.70, 0.69, 0.85, 0.90), (), {}, ["update gain -0.0500 is below 0"]),
        ((0.70, 0.69, 0.85, 0.90), (), {"min_gain": -0.1}, []),
        ((0.70, 0.76, 0.85), (0.05, 0.05), {}, []),
        ((0.70, 0.76, 0.85), (0.051, 0.01), {}, ["negative flips of new-old, 0.0510, are above 0.05"]),
        ((0.70, 0.76, 0.85), (0.01, 0.3), {}, ["negative flips of new-new, 0.3000, are above 0.05"]),
        ((0.70, 0.76, 0.85), (0.3, 0.3), {"max_negative_flips": 0.3}, []),
        ((0.70, 0.70, 0.70), (), {}, []),
        ((0.70, 0.69, 0.70), (), {}, ["accuracy falls from 0.7000 to 0.6900"]),
        ((0.70, 0.69, 0.70), (), {"max_fall": 0.011}, []),
        ((0.70, 0.69, 0.70), (), {"max_fall": 0.005}, ["accuracy falls from 0.7000 to 0.6900, by more than 0.005"]),
        ((0.70, 0.69, 0.85), (), {"max_fall": 0.5}, ["update gain"]),
        ((0.70, 0.70, 0.70), (), {"min_gain": 0.1}, ["the update gain is not defined: new"]),
        ((None, 0.70, 0.70), (), {"metric": "rank1"}, ["rank1 can not be measured"]),
    ],
)
def test_the_gate(values: Any, shares: Any, options: Any, failed: list[str]) -> None:
    found = decide(upgrade_gains(measures(*values)), flipped(*shares), GateOptions(**options))
    assert found["passed"] == (not failed)
    assert len(found["failed"]) == len(failed)
    assert all(said.startswith(wanted) for said, wanted in zip(found["failed"], failed, strict=True))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"metric": "acuracy"}, "metric: unknown name 'acuracy' .did you mean 'accuracy'"),
        ({"max_negative_flips": 1.5}, "max_negative_flips: expected a number"),
        ({"max_negative_flips": float("nan")}, "max_negative_flips: expected a number"),
        ({"min_gain": float("nan")}, "min_gain"),
        ({"max_fall": -0.1}, "max_fall: expected a number"),
    ],
)
def test_the_gate_refuses(options: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        decide(upgrade_gains(measures(0.7, 0.8, 0.9)), flipped(), GateOptions(**options))
