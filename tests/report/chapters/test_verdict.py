"""The verdict of a verification, and a warning for each thing to beware of."""

from __future__ import annotations

from typing import Any

import pytest

from facenet.report.chapters.verdict import list_warnings, verdict_line
from tests.helpers.reports import verification_run

CALIBRATED = {"thresholds": {"1e-3": 0.4}}


def test_the_verdict_is_a_line_with_baseline_and_threshold() -> None:
    found = verification_run({"pca_baseline": {"accuracy": 0.73}, "pixel_baseline": {"accuracy": 0.64}})
    assert verdict_line(found) == (
        "Right on 89.0 % ± 0.6 (standard error over 10 folds) of 1,000 pairs of faces (500 of one person, 500 of two),"
        " taking two faces for one person up to a squared distance of 1.032."
        " That is 16.0 points above the best baseline on these pairs, PCA (73.0 %)."
    )
    assert "10.0 points below the best baseline" in verdict_line(verification_run({"untrained": {"accuracy": 0.99}}))


def test_the_verdict_of_a_single_fold_has_no_error() -> None:
    text = verdict_line(verification_run(sem=None, folds=None, threshold=None))
    assert text == "Right on 89.0 % of 1,000 pairs of faces (500 of one person, 500 of two)."


@pytest.mark.parametrize("broken", [None, float("nan"), "0.9", {}, 10**400])
def test_an_accuracy_that_is_no_number_is_said(broken: Any) -> None:
    assert "not a number" in verdict_line(verification_run(accuracy=broken))
    assert "The accuracy is missing or not a number." in list_warnings(verification_run(accuracy=broken), CALIBRATED)


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
        ({"pca_baseline": {"accuracy": 0.9}}, {}, "The accuracy is not above the best baseline: PCA reaches 90.0 %"),
        ({"pca_baseline": {"accuracy": 0.885}}, {}, "within two standard errors of the best baseline"),
        ({"train": {"skipped": 5}}, {}, "5 training files were left out"),
    ],
)
def test_each_thing_to_beware_of_is_said(metrics: dict[str, Any], found: dict[str, Any], says: str) -> None:
    assert [line for line in list_warnings(verification_run(metrics, **found), CALIBRATED) if says in line]


def test_thresholds_that_nobody_calibrated_are_said() -> None:
    assert [line for line in list_warnings(verification_run(), None) if "No threshold is calibrated" in line]
    assert not [line for line in list_warnings(verification_run(), CALIBRATED) if "calibrated" in line]
    assert not [line for line in list_warnings(verification_run(CALIBRATED), None) if "calibrated" in line]


def test_a_clean_run_has_no_warnings() -> None:
    clean = verification_run(
        {"leakage": {"shared_people": 0, "near_duplicates": 0}, "pca_baseline": {"accuracy": 0.7}}, val_at_far={}
    )
    assert list_warnings(clean, CALIBRATED) == []


@pytest.mark.parametrize(
    "broken", [None, [], "x", {"1e-3": None}, {"x": {"val": 1}}, {"0": {"val": 1, "negatives": 3}}]
)
def test_strange_rates_end_in_no_warning(broken: Any) -> None:
    assert list_warnings(verification_run(val_at_far=broken), CALIBRATED) == []
