"""What an evaluation measured, as the rows of the printed table: the figures that a person reads first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def fold_rows(metrics: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Turn the metrics of one fold, scored at a threshold chosen elsewhere, into the rows a person reads first.

    >>> fold_rows({"accuracy": 0.9, "correct": 540, "pairs": 600, "auc": 0.95, "eer": 0.1, "threshold": 1.1})[0]
    ('accuracy, pairs right', '0.9000, 540 of 600')
    """
    rows = [("accuracy, pairs right", f"{metrics['accuracy']:.4f}, {metrics['correct']} of {metrics['pairs']}")]
    return [*rows, ("AUC", metrics["auc"]), ("EER", metrics["eer"]), ("threshold (sq_dist)", metrics["threshold"])]


def verification_rows(metrics: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Turn the metrics of a verification into the rows a person reads first.

    >>> rows = verification_rows({"accuracy": 0.9, "sem": 0.01, "auc": 0.95, "eer": 0.1, "threshold": 1.1, "pairs": 10,
    ...                           "skipped": 0, "duplicated": 0, "val_at_far": {"1e-2": {"val": None}}})
    >>> rows[0]
    ('accuracy, mean of folds +- SEM', '0.9000 +- 0.0100')
    >>> rows[-2]
    ('VAL at FAR 1e-2', 'not resolvable: too few different pairs')
    """
    rows: list[tuple[str, Any]] = [
        ("accuracy, mean of folds +- SEM", f"{metrics['accuracy']:.4f} +- {metrics['sem']:.4f}"),
        ("AUC", metrics["auc"]),
        ("EER", metrics["eer"]),
        ("threshold, mean of folds (sq_dist)", metrics["threshold"]),
    ]
    counts = f"{metrics['pairs']}, {metrics['skipped']}, {metrics['duplicated']}"
    return [*rows, *far_rows(metrics["val_at_far"]), ("pairs, skipped, duplicated", counts)]


def far_rows(val_at_far: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Turn VAL at FAR into one row for each rate that the pairs resolve, and one for all the others by reason."""
    rows: list[tuple[str, Any]] = []
    missing: dict[str, list[str]] = {}
    for far, entry in val_at_far.items():
        if entry["val"] is None:
            missing.setdefault(entry.get("reason") or "too few different pairs", []).append(far)
        else:
            value = f"{entry['val']:.4f} (95 % {entry['low']:.4f} to {entry['high']:.4f})"
            rows.append((f"VAL at FAR {far}", value))
    return rows + [(f"VAL at FAR {', '.join(fars)}", f"not resolvable: {why}") for why, fars in missing.items()]


def evaluation_rows(metrics: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Turn all that an evaluation reports into rows: pairs or all pairs, identification, quantised, leakage."""
    rows: list[tuple[str, Any]] = []
    if "verification" in metrics:
        found = metrics["verification"]
        rows += fold_rows(found) if "correct" in found else verification_rows(found)
    if found := metrics.get("backend"):
        rows.append((f"{found['name']}: accuracy, AUC", f"{found['accuracy']:.4f}, {found['auc']:.4f}"))
        rows.append((f"{found['name']}: for reports alone", "no distance: galleries and thresholds do not know it"))
    if "all_pairs" in metrics:
        found = metrics["all_pairs"]
        rows += [(name, found[name]) for name in ("faces", "identities")]
        rows += [
            ("pairs, same and different", f"{found['same']}, {found['different']}"),
            *far_rows(found["val_at_far"]),
        ]
    if "identification" in metrics:
        found = metrics["identification"]
        ranks = ", ".join(f"{share:.4f} ({k})" for k, share in found["cmc"].items())
        rows += [
            ("identification: people, probes, strangers", f"{found['people']}, {found['probes']}, {found['strangers']}")
        ]
        rows += [("identification: found at rank (k)", ranks), ("identification: mAP", found["map"])]
        for fpir, entry in found["tpir_at_fpir"].items():
            value = "too few strangers" if entry["tpir"] is None else entry["tpir"]
            rows.append((f"identification: TPIR at FPIR {fpir}", value))
    for method, found in metrics.get("quantised", {}).items():
        change = f"{found['accuracy']:.4f} ({100 * found['accuracy_difference']:+.2f} points)"
        rows.append((f"{method}, {found['bytes_per_face']} bytes a face: accuracy", change))
    return rows + ([("leakage", leakage_line(metrics["leakage"]))] if "leakage" in metrics else [])


def leakage_line(found: Mapping[str, Any]) -> str:
    """Put what an evaluation found out about leakage into one line.

    >>> leakage_line({"people": 120, "shared_people": 0, "shared_held_out": 0, "near_duplicates": 2,
    ...               "train_near_duplicates": None, "near_sq_dist": 0.01})
    '0 of 120 people trained on, 0 held out; 2 pairs of different people within sq_dist 0.01'
    """
    people = f"{found['people']} people (trained on: unknown)"
    if found["shared_people"] is not None:
        people = f"{found['shared_people']} of {found['people']} people trained on, {found['shared_held_out']} held out"
    near = f"{found['near_duplicates']} pairs of different people"
    if found["train_near_duplicates"] is not None:
        near += f", {found['train_near_duplicates']} with training faces"
    return f"{people}; {near} within sq_dist {found['near_sq_dist']:g}"
