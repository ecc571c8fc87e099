from __future__ import annotations

from facenet.evaluation.tables import evaluation_rows, far_rows, leakage_line


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
    assert rows["leakage"].startswith("9 people (trained on: unknown); 2 pairs")
    assert len(rows["leakage"]) < 110, "one line of a table"
    assert "3 with training faces" in rows["leakage"]
