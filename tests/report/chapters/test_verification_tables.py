"""The tables of a verification: cells hold the numbers of the metrics, and what was not measured has no table."""

from __future__ import annotations

from facenet.report.chapters.verification_tables import (
    baseline_table,
    fact_table,
    far_table,
    fold_table,
    identification_table,
    leakage_line,
    quantised_table,
)
from tests.helpers.reports import VERIFICATION, verification_run

BYTES = {"bytes_per_face": 128, "float_bytes_per_face": 512}


def test_val_at_far_says_what_can_not_be_resolved() -> None:
    table = far_table(VERIFICATION)
    assert table is not None
    assert table.rows == [
        ("1e-1", "90.0 %", "87.0 % to 92.0 %", "1.1", "500"),
        ("1e-3", "not resolvable", "", "", "500"),
    ]
    assert far_table({}) is None


def test_folds_are_listed_with_their_mean() -> None:
    table = fold_table(VERIFICATION)
    assert table is not None
    assert len(table.rows) == 12
    assert table.rows[1] == ("2", "88.00 %", "1.1")
    assert table.rows[10] == ("mean ± standard error", "89.00 % ± 0.60", "1.032")
    assert fold_table({"folds": None}) is None
    assert fold_table({"folds": [0.5], "thresholds": [1, 2]}) is not None, "thresholds of another number are left out"


def test_tables_of_what_was_not_measured_are_left_out() -> None:
    metrics = {"verification": VERIFICATION}
    assert baseline_table(metrics) is None
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
    baselines, quantised, many = baseline_table(metrics), quantised_table(metrics), identification_table(metrics)
    assert baselines is not None
    assert quantised is not None
    assert many is not None
    assert baselines.rows == [("this encoder", "89.0 %", "0.958"), ("grey pixels", "64.0 %", "0.7")]
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
    rows = dict(fact_table(verification_run(), None, None).rows)
    assert rows == {"run folder": "runs/x", "leakage": "not checked in this run"}
    assert leakage_line({"leakage": {"shared_people": 0, "shared_held_out": None, "near_duplicates": 2}}) == (
        "people trained on: 0; people who chose the checkpoint: not known; near-duplicates of training faces:"
        " not known; near-duplicates under two names: 2"
    )
