"""The words of a report: the verdict, and a warning for each thing to beware of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from facenet.report.facts import (
    fact_table,
    far_table,
    floor_table,
    fold_table,
    identification_table,
    leakage_line,
    plus_minus,
    quantised_table,
    verdict,
    warnings,
)
from facenet.report.runs import Run

FOUND = {
    "accuracy": 0.89,
    "sem": 0.006,
    "std": 0.019,
    "auc": 0.958,
    "eer": 0.104,
    "threshold": 1.0321,
    "pairs": 1000,
    "same": 500,
    "different": 500,
    "skipped": 0,
    "duplicated": 0,
    "folds": [0.9, 0.88] * 5,
    "thresholds": [1.0, 1.1] * 5,
    "val_at_far": {
        "1e-1": {"val": 0.9, "low": 0.87, "high": 0.92, "threshold": 1.1, "resolvable": True, "negatives": 500},
        "1e-3": {"val": None, "low": None, "high": None, "threshold": None, "resolvable": False, "negatives": 500},
    },
}
BYTES = {"bytes_per_face": 128, "float_bytes_per_face": 512}
CALIBRATED = {"thresholds": {"1e-3": 0.4}}


def run(metrics: dict[str, Any] | None = None, **found: Any) -> Run:
    return Run(Path("runs/x"), "x", "verification", {"verification": {**FOUND, **found}, **(metrics or {})})


def test_the_verdict_is_a_line_with_floor_and_threshold() -> None:
    assert verdict(run({"pca_baseline": {"accuracy": 0.73}, "pixel_baseline": {"accuracy": 0.64}})) == (
        "Right on 89.0 % ± 0.6 (standard error over 10 folds) of 1,000 pairs of faces (500 of one person, 500 of two),"
        " taking two faces for one person up to a squared distance of 1.032. That is 16.0 points above the best floor"
        " on these pairs, PCA (73.0 %)."
    )
    assert "10.0 points below the best floor" in verdict(run({"untrained": {"accuracy": 0.99}}))


def test_the_verdict_of_a_single_fold_has_no_error() -> None:
    text = verdict(run(sem=None, folds=None, threshold=None))
    assert text == "Right on 89.0 % of 1,000 pairs of faces (500 of one person, 500 of two)."


@pytest.mark.parametrize("broken", [None, float("nan"), "0.9", {}, 10**400])
def test_an_accuracy_that_is_no_number_is_said(broken: Any) -> None:
    assert "not a number" in verdict(run(accuracy=broken))
    assert "The accuracy is missing or not a number." in warnings(run(accuracy=broken), CALIBRATED)


@pytest.mark.parametrize(
    ("metrics", "found", "says"),
    [
        ({}, {}, "VAL at FAR 1e-3 can not be resolved by 500 different pairs; 1e-3 needs 1,000 at least."),
        (
            {},
            {"val_at_far": {"1e-2": {"val": 0.5, "resolvable": True, "negatives": 500}}},
            "rests on 5 of the different",
        ),
        ({}, {"skipped": 3}, "3 pairs were left out"),
        ({}, {"duplicated": 2}, "2 pairs occur more than once"),
        ({}, {"folds": [0.9, 0.8]}, "Only 2 folds"),
        ({"leakage": {"shared_people": 4, "near_duplicates": 0}}, {}, "4 reported people were trained on"),
        ({"leakage": {"shared_held_out": 2}}, {}, "2 reported people chose the checkpoint"),
        ({"leakage": {"shared_people": None, "near_duplicates": 7}}, {}, "7 pairs of reported faces of two people"),
        ({"leakage": {"train_near_duplicates": 3}}, {}, "3 pairs of a reported and a training face"),
        ({"pca_baseline": {"accuracy": 0.9}}, {}, "The accuracy is not above the floor: PCA reaches 90.0 %"),
        ({"pca_baseline": {"accuracy": 0.885}}, {}, "within two standard errors of the floor"),
        ({"train": {"skipped": 5}}, {}, "5 training files could not be read"),
    ],
)
def test_each_thing_to_beware_of_is_said(metrics: dict[str, Any], found: dict[str, Any], says: str) -> None:
    assert [line for line in warnings(run(metrics, **found), CALIBRATED) if says in line]


def test_thresholds_that_nobody_calibrated_are_said() -> None:
    assert [line for line in warnings(run(), None) if "No threshold is calibrated" in line]
    assert not [line for line in warnings(run(), CALIBRATED) if "calibrated" in line]
    assert not [line for line in warnings(run(CALIBRATED), None) if "calibrated" in line]


def test_a_clean_run_has_no_warnings() -> None:
    clean = run(
        {"leakage": {"shared_people": 0, "near_duplicates": 0}, "pca_baseline": {"accuracy": 0.7}}, val_at_far={}
    )
    assert warnings(clean, CALIBRATED) == []


@pytest.mark.parametrize(
    "broken", [None, [], "x", {"1e-3": None}, {"x": {"val": 1}}, {"0": {"val": 1, "negatives": 3}}]
)
def test_strange_rates_end_in_no_warning(broken: Any) -> None:
    assert warnings(run(val_at_far=broken), CALIBRATED) == []


def test_val_at_far_says_what_can_not_be_resolved() -> None:
    table = far_table(FOUND)
    assert table is not None
    assert table.rows == [
        ("1e-1", "90.0 %", "87.0 % to 92.0 %", "1.1", "500"),
        ("1e-3", "not resolvable", "", "", "500"),
    ]
    assert far_table({}) is None


def test_folds_are_listed_with_their_mean() -> None:
    table = fold_table(FOUND)
    assert table is not None
    assert len(table.rows) == 12
    assert table.rows[1] == ("2", "88.00 %", "1.1")
    assert table.rows[10] == ("mean ± standard error", "89.00 % ± 0.60", "1.032")
    assert fold_table({"folds": None}) is None
    assert fold_table({"folds": [0.5], "thresholds": [1, 2]}) is not None, "thresholds of another number are left out"


def test_tables_of_what_was_not_measured_are_left_out() -> None:
    metrics = {"verification": FOUND}
    assert floor_table(metrics) is None
    assert quantised_table(metrics) is None
    assert identification_table(metrics) is None
    metrics |= {
        "pixel_baseline": {"accuracy": 0.64, "auc": 0.7},
        "quantised": {"int8": {"accuracy": 0.889, "sem": 0.006, "auc": 0.957, "eer": 0.11, **BYTES}},
        "identification": {
            "rank1": 0.8,
            "cmc": {"1": 0.8, "5": 0.9},
            "map": 0.7,
            "tpir_at_fpir": {"1e-1": {"tpir": 0.5, "low": 0.4, "high": 0.6}, "1e-3": {"tpir": None, "low": None}},
            "probes": 30,
        },
    }
    floors, quantised, many = floor_table(metrics), quantised_table(metrics), identification_table(metrics)
    assert floors is not None
    assert quantised is not None
    assert many is not None
    assert floors.rows == [("this encoder", "89.0 %", "0.958"), ("grey pixels", "64.0 %", "0.7")]
    assert [row[:3] for row in quantised.rows] == [("float", "512", "89.0 % ± 0.6"), ("int8", "128", "88.9 % ± 0.6")]
    assert many.rows == [
        ("right person among the 1 nearest", "80.0 %", ""),
        ("right person among the 5 nearest", "90.0 %", ""),
        ("mean average precision", "70.0 %", ""),
        ("found, with strangers, at FPIR 1e-1", "50.0 %", "40.0 % to 60.0 %"),
        ("found, with strangers, at FPIR 1e-3", "not resolvable", ""),
    ]
    assert many.caption == "30 probes"


def test_facts_leave_out_what_is_not_known() -> None:
    rows = dict(fact_table(run(), None, None).rows)
    assert rows == {"run folder": "runs/x", "leakage": "not checked in this run"}
    assert leakage_line({"leakage": {"shared_people": 0, "shared_held_out": None, "near_duplicates": 2}}) == (
        "people trained on: 0; people who chose the checkpoint: not known; near-duplicates of training faces:"
        " not known; near-duplicates under two names: 2"
    )


def test_an_error_that_is_no_number_is_left_out() -> None:
    assert plus_minus(0.5, None) == "50.0 %"
    assert plus_minus(0.5, float("nan")) == "50.0 %"
