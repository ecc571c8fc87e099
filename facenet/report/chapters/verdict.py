"""A verification in words: a verdict in one line, and warnings about the numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from facenet.report.runs import Run
from facenet.report.values import get_rows, get_value, number, parse_rate, percent, plain, plus_minus

BASELINES = {  # as facenet verify baselines=true names them
    "pixel_baseline": "grey pixels",
    "color_baseline": "colour histogram",
    "pca_baseline": "PCA",
    "untrained": "the same net untrained",
}
LEAKS = {  # key of facenet.evaluation.leakage -> what is counted, and a warning if it is not 0
    "shared_people": ("people trained on", "reported people were trained on: the score is too good."),
    "shared_held_out": ("people who chose the checkpoint", "reported people chose the checkpoint and the thresholds."),
    "train_near_duplicates": (
        "near-duplicates of training faces",
        "pairs of a reported and a training face are one photograph.",
    ),
    "near_duplicates": (
        "near-duplicates under two names",
        "pairs of reported faces of two people are nearly one photograph.",
    ),
}
FEW = 10  # different pairs that a VAL at a FAR should rest on at least


def best_baseline(metrics: Mapping[str, Any]) -> tuple[str, float] | None:
    """Return the best baseline on the same pairs with its accuracy; None if none was measured."""
    found = {text: number(get_value(metrics, key, "accuracy")) for key, text in BASELINES.items()}
    known = {text: value for text, value in found.items() if value is not None}
    best = max(known, key=lambda text: known[text], default=None)
    return None if best is None else (best, known[best])


def verdict_line(run: Run) -> str:
    """Return a line with accuracy, pairs, threshold and the best baseline."""
    found = run.metrics["verification"]
    accuracy, sem = number(found.get("accuracy")), number(found.get("sem"))
    folds = found.get("folds")
    if accuracy is None:
        return "The accuracy of this run is not a number: it says nothing about the encoder."
    count = f" over {len(folds)} folds" if isinstance(folds, list) else ""
    error = "" if sem is None else f" (standard error{count})"
    text = f"Right on {plus_minus(accuracy, sem)}{error} of {plain(found.get('pairs'))} pairs of faces"
    text += f" ({plain(found.get('same'))} of one person, {plain(found.get('different'))} of two)"
    if number(found.get("threshold")) is not None:
        text += f", taking two faces for one person up to a squared distance of {plain(found.get('threshold'))}"
    best = best_baseline(run.metrics)
    if best is not None:
        name, reached = best
        side = "above" if accuracy >= reached else "below"
        text += f". That is {100 * abs(accuracy - reached):.1f} points {side} the best baseline on these pairs,"
        text += f" {name} ({percent(reached)})"
    return f"{text}."


def list_warnings(run: Run, encoder: Mapping[str, Any] | None) -> list[str]:
    """List the warnings about the numbers, one sentence each."""
    found = run.metrics["verification"]
    lines = [*_about_accuracy(run), *_about_fars(found), *_about_pairs(found), *_about_leakage(run.metrics)]
    if not (get_value(run.metrics, "thresholds") or get_value(encoder, "thresholds")):
        lines.append("No threshold is calibrated for a false accept rate; facenet verify calibrate=true does it.")
    skipped = number(get_value(run.metrics, "train", "skipped"))
    if skipped:
        lines.append(f"{plain(skipped)} training files were left out; skipped.csv has the reasons.")
    return lines


def _about_accuracy(run: Run) -> list[str]:
    found, best = run.metrics["verification"], best_baseline(run.metrics)
    accuracy, sem = number(found.get("accuracy")), number(found.get("sem"))
    if accuracy is None:
        return ["The accuracy is missing or not a number."]
    if best is not None and accuracy <= best[1]:
        return [f"The accuracy is not above the best baseline: {best[0]} reaches {percent(best[1])} without learning."]
    if best is not None and accuracy - best[1] < 2 * (sem or 0):
        return [f"The accuracy is within two standard errors of the best baseline ({best[0]}, {percent(best[1])})."]
    return []


def _about_fars(found: Mapping[str, Any]) -> list[str]:
    lines, too_small = [], []
    for far, row in get_rows(found, "val_at_far"):
        share, negatives = parse_rate(far), number(row.get("negatives"))
        if share is None or negatives is None:
            continue
        if row.get("resolvable") is False or row.get("val") is None:
            too_small.append((share, far, negatives))
        elif share * negatives < FEW:
            lines.append(f"VAL at FAR {far} rests on {plain(int(share * negatives + 1e-9))} of the different pairs.")
    if too_small:
        share, far, negatives = max(too_small)
        below = " and below" if len(too_small) > 1 else ""
        lines.append(
            f"VAL at FAR {far}{below} can not be resolved by {plain(negatives)} different pairs;"
            f" {far} needs {plain(math.ceil(1 / share - 1e-9))} at least."
        )
    return lines


def _about_pairs(found: Mapping[str, Any]) -> list[str]:
    lines = []
    for key, text in (
        ("skipped", "pairs were left out because an image was missing: the score is not that of the whole list."),
        ("duplicated", "pairs occur more than once: the intervals are too narrow."),
    ):
        count = number(found.get(key))
        if count:
            lines.append(f"{plain(count)} {text}")
    folds = found.get("folds")
    if isinstance(folds, list) and len(folds) < 10:
        lines.append(f"Only {len(folds)} folds: the standard error is itself uncertain.")
    return lines


def _about_leakage(metrics: Mapping[str, Any]) -> list[str]:
    lines = []
    for key, text in LEAKS.items():
        count = number(get_value(metrics, "leakage", key))
        if count:
            lines.append(f"{plain(count)} {text[1]}")
    return lines
